// Keys and values of generation, for mixers that attend to tokens: all of them; or those of a window, a ring of W+1 in
// which token t is row t % (W+1), and behind it what is kept of the tokens that have left the window.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/config.h"
#include "kernels/base/rows.h"

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
  KeyCache(int64_t width, const TokenWindow& window) : width_(width), window_(window) {}

  // Row of the token that leaves the window when token t comes; -1: none does.
  int64_t leaving_row(int64_t t) const { return window_.window < 0 || t <= window_.window ? -1 : row_of(t); }
  float* key(int64_t row) { return k_.data() + row * width_; }
  float* value(int64_t row) { return v_.data() + row * width_; }

  // Token t, after token t-1.
  void remember(int64_t t, const float* key_row, const float* value_row) {
    const int64_t leaving = leaving_row(t);
    if (leaving >= 0 && window_.keeps(t - window_.window - 1)) append(leaving);
    if (leaving < 0) resize(t + 1);
    const int64_t row = leaving < 0 ? t : leaving;
    std::copy_n(key_row, width_, key(row));
    std::copy_n(value_row, width_, value(row));
  }
  kernels::Input keys() const { return {k_.data(), rows(), width_}; }
  kernels::Input values() const { return {v_.data(), rows(), width_}; }
  int64_t bytes() const { return static_cast<int64_t>((k_.size() + v_.size()) * sizeof(float)); }

 private:
  int64_t rows() const { return static_cast<int64_t>(k_.size()) / width_; }
  int64_t row_of(int64_t t) const { return t % (window_.window + 1); }
  void resize(int64_t rows) {
    k_.resize(static_cast<std::size_t>(rows * width_));
    v_.resize(static_cast<std::size_t>(rows * width_));
  }
  void append(int64_t row) {
    const int64_t last = rows();
    resize(last + 1);
    std::copy_n(key(row), width_, key(last));
    std::copy_n(value(row), width_, value(last));
  }

  int64_t width_;
  TokenWindow window_;
  std::vector<float> k_, v_;  // (rows, width)
};

}  // namespace rat
