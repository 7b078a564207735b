// Rotary position embedding of rows of heads: halves are rotated, not neighbouring pairs.
//
//   y[j]       = x[j] cos(a) - x[j + P/2] sin(a)
//   y[j + P/2] = x[j + P/2] cos(a) + x[j] sin(a),     a = position * base^(-2j / P),  j < P/2, in every head
//
// Source: Su et al. 2021, in the "rotate half" form of the published models; base 10000.
// Position of row i: (first + i % T) / L. L = 1 is the token index (attention); RAT rotates by the chunk index.
// Shapes: x, y (B*T, heads * P), P even. y may be x. `inverse` rotates back, which is also the gradient.
// Trap:   "rotate half" is not the interleaved form of the original paper; weights of one do not work with the other.
#pragma once

#include <vector>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

// cos and sin per position and frequency, (positions, P/2) each, computed in double; grows on demand.
class RopeTable {
 public:
  RopeTable(int64_t head_size, double base) : head_size_(head_size), base_(base) {}
  void ensure(int64_t positions);
  int64_t head_size() const { return head_size_; }
  int64_t positions() const { return positions_; }
  const float* cosines(int64_t position) const { return cos_.data() + position * (head_size_ / 2); }
  const float* sines(int64_t position) const { return sin_.data() + position * (head_size_ / 2); }

 private:
  int64_t head_size_;
  double base_;
  int64_t positions_ = 0;
  std::vector<float> cos_, sin_;
};

struct RopeArgs {
  Input x;
  Output y;
  const RopeTable* table = nullptr;  // must hold every position that occurs; null: no rotation, y is x
  int64_t tokens = 0;                // T
  int64_t chunk_len = 1;             // L
  int64_t first = 0;                 // token index of row 0
  bool inverse = false;
  bool add = false;  // add to y
};

[[nodiscard]] Status rope(const RopeArgs& args, const Exec& exec);

}  // namespace rat::kernels
