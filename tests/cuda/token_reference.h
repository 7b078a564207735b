// Attention over tokens in float64, written from the equations with plain loops; forward and backward.
#pragma once

#include <algorithm>

#include "kernels/cuda/shape.h"
#include "tests/cuda/check.h"

namespace rat::cuda_test {

using kernels::cuda::RatShape;

inline std::size_t at(int64_t index) { return static_cast<std::size_t>(index); }
std::string describe_tokens(const RatShape& s);

// Columns of a projected row: value | query | key, D each, then padding that nothing may read or write.
constexpr int64_t kPadding = 16;

struct TokenReference {
  RatShape s;
  int64_t dilation = 1, initial = 0;  // above 1: what is before the window is dilated
  Doubles proj, grad_y;             // (N, W), (N, D)
  Doubles y, lse, delta, grad_proj;  // (N, D), (B*H, T), (B*H, T), (N, W): of the rotated rows
  int64_t width() const { return 3 * s.channels() + kPadding; }
  std::size_t cell(int64_t b, int64_t t, int64_t part, int64_t h) const {
    return at((b * s.tokens + t) * width() + part * s.channels() + h * s.head_size);
  }
  double dot(std::size_t a, std::size_t b) const {
    double sum = 0.0;
    for (int64_t i = 0; i < s.head_size; ++i) sum += proj[a + at(i)] * proj[b + at(i)];
    return sum;
  }
  bool sees(int64_t t, int64_t j) const {
    const bool kept = dilation > 1 && (j < initial || (j + 1) % dilation == 0);
    return j <= t && (s.window < 0 || j >= t - s.window || kept);
  }

  void run();  // everything that follows from proj and grad_y

 private:
  void query(int64_t b, int64_t h, int64_t t);
};

// Turns queries and keys of projected rows by the angles of their tokens; direction -1 turns back.
void rotate_rows(Doubles& proj, const TokenReference& r, double direction);

}  // namespace rat::cuda_test
