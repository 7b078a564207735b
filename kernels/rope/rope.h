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

#include <algorithm>
#include <vector>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/memory/memory.h"

namespace rat::kernels {

// cos and sin per position and frequency, (positions, P/2) each, computed in double on the host and kept in the memory of
// the backend that reads them; grows on demand.
class RopeTable {
 public:
  RopeTable(int64_t head_size, double base, const Backend& backend = cpu_backend())
      : head_size_(head_size), base_(base), memory_(backend) {}
  void ensure(int64_t positions);
  int64_t head_size() const { return head_size_; }
  int64_t positions() const { return positions_; }
  const float* cosines(int64_t position) const { return values() + position * (head_size_ / 2); }
  const float* sines(int64_t position) const { return cosines(positions_ + position); }

 private:
  int64_t head_size_;
  double base_;
  const float* values() const { return static_cast<const float*>(memory_.data()); }
  int64_t positions_ = 0;
  Memory memory_;  // cosines, then sines
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
