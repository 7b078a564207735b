// Keys and values of generation, for mixers that attend to tokens: all of them; or those of a window, a ring of W+1 in
// which token t is row t % (W+1), and behind it what is kept of the tokens that have left the window.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/config.h"
#include "core/mixers/state_rows.h"

namespace rat {

// Which earlier tokens a query sees: those of the window, and of older ones the first `initial` and every dilation-th.
struct TokenWindow {
  int64_t window = -1;   // W; below 0: everything earlier
  int64_t dilation = 0;  // D; 0: no token before the window
  int64_t initial = 0;   // S

  bool keeps(int64_t t) const { return t < initial || (dilation > 0 && (t + 1) % dilation == 0); }
  // How many of the first n tokens are kept.
  int64_t kept_of(int64_t n) const {
    const int64_t first = std::min(initial, n);
    return first + (dilation > 0 ? n / dilation - first / dilation : 0);
  }
  // Keys that token t sees, its own included; also the rows of the cache after it.
  int64_t seen_by(int64_t t) const { return window < 0 || t <= window ? t + 1 : window + 1 + kept_of(t - window); }
  // Rows of the cache after T tokens: the last token that left the window went when token T-1 came.
  int64_t cached(int64_t tokens) const { return tokens == 0 ? 0 : seen_by(tokens - 1); }
  // Mean over the first T tokens of the keys that they see.
  double mean_seen(int64_t tokens) const {
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) sum += static_cast<double>(seen_by(t));
    return sum / static_cast<double>(std::max<int64_t>(1, tokens));
  }
};

class KeyCache {
 public:
  KeyCache(const kernels::Backend& backend, int64_t width, const TokenWindow& window)
      : window_(window), k_(backend, width), v_(backend, width) {}

  // Row of the token that leaves the window when token t comes; -1: none does.
  int64_t leaving_row(int64_t t) const { return window_.window < 0 || t <= window_.window ? -1 : row_of(t); }
  kernels::Output key(int64_t row) { return k_.range(row, 1); }
  kernels::Output value(int64_t row) { return v_.range(row, 1); }

  // Token t, after token t-1.
  Status remember(int64_t t, const kernels::Input& key_row, const kernels::Input& value_row, const kernels::Exec& exec) {
    const int64_t leaving = leaving_row(t);
    if (leaving >= 0 && window_.keeps(t - window_.window - 1)) {
      const int64_t last = k_.rows();
      resize(last + 1);
      RAT_TRY(kernels::copy_rows({.x = key(leaving), .y = key(last)}, exec));
      RAT_TRY(kernels::copy_rows({.x = value(leaving), .y = value(last)}, exec));
    }
    if (leaving < 0) resize(t + 1);
    const int64_t row = leaving < 0 ? t : leaving;
    RAT_TRY(kernels::copy_rows({.x = key_row, .y = key(row)}, exec));
    return kernels::copy_rows({.x = value_row, .y = value(row)}, exec);
  }
  // What it holds after all tokens of a sequence, of which `keys` and `values` are the rows.
  Status fill(const kernels::Input& keys, const kernels::Input& values, const kernels::Exec& exec) {
    const std::vector<int32_t> tokens = tokens_after(keys.rows);
    resize(static_cast<int64_t>(tokens.size()));
    RAT_TRY(kernels::copy_rows({.x = keys, .y = k_.all(), .rows = tokens}, exec));
    return kernels::copy_rows({.x = values, .y = v_.all(), .rows = tokens}, exec);
  }
  kernels::Input keys() { return k_.all(); }
  kernels::Input values() { return v_.all(); }
  int64_t bytes() const { return k_.bytes() + v_.bytes(); }

 private:
  int64_t row_of(int64_t t) const { return t % (window_.window + 1); }
  void resize(int64_t rows) {
    k_.resize(rows);
    v_.resize(rows);
  }
  // Which token each row holds when `count` have come: the newest of each row of the ring, then those kept of older ones.
  std::vector<int32_t> tokens_after(int64_t count) const {
    std::vector<int32_t> tokens;
    const int64_t ring = window_.window < 0 ? count : std::min(count, window_.window + 1);
    for (int64_t row = 0; row < ring; ++row)
      tokens.push_back(static_cast<int32_t>(row + (count - 1 - row) / ring * ring));
    for (int64_t t = 0; t < count - ring; ++t)
      if (window_.keeps(t)) tokens.push_back(static_cast<int32_t>(t));
    return tokens;
  }

  TokenWindow window_;
  StateRows k_, v_;
};

}  // namespace rat
