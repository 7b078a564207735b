// Which tokens dilated attention (RAT+) still sees once they have left its window: the first `initial` ones, and every
// dilation-th: tokens dilation - 1, 2 dilation - 1, ...
// Source: Wei and Gulcehre, RAT+, arXiv:2602.18196.
#pragma once

#include <algorithm>
#include <cstdint>

namespace rat::kernels {

// How many of the first n tokens these are. Dilation 0: none but the initial ones.
constexpr int64_t kept_tokens(int64_t n, int64_t dilation, int64_t initial) {
  const int64_t first = std::min(initial, n);
  return first + (dilation > 0 ? n / dilation - first / dilation : 0);
}

}  // namespace rat::kernels
