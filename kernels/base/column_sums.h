// Sums over rows that do not depend on the thread count: blocks of rows are cut by shape, each sums into its own
// partial row, and the partial rows are added in order.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/base/parallel.h"

namespace rat::kernels {

// body(begin, end, partial): adds rows [begin, end) to partial (cols), which starts at zero. Then sums += all partials.
template <class Body>
void add_column_sums(int64_t rows, std::span<float> sums, const Body& body) {
  const auto cols = static_cast<int64_t>(sums.size());
  const int64_t block = std::max(rows_per_block(cols), (rows + 255) / 256);
  const int64_t blocks = (rows + block - 1) / block;
  static thread_local std::vector<float> partial;  // the caller's; grows once
  partial.assign(static_cast<std::size_t>(blocks * cols), 0.0f);
  float* const partials = partial.data();
  parallel_ranges(rows, block, [&](int64_t begin, int64_t end) { body(begin, end, partials + begin / block * cols); });
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t c = 0; c < cols; ++c) sums[static_cast<std::size_t>(c)] += partials[b * cols + c];
}

}  // namespace rat::kernels
