// Matrix product C = op(A) op(B), optionally added to what C holds or to another matrix.
//
//   plain:       c[i,j] = sum_k op(a)[i,k] op(b)[k,j]
//   accumulate:  c[i,j] += ...
//   addend:      c[i,j] = addend[i,j] + ...      (a residual stream, without a pass of its own)
//   op(x) is x or its transpose.
// Shapes: op(a) (M, K), op(b) (K, N), c and addend (M, N); any row strides.
// Traps:  a linear layer stores its weight (out, in), so y = x W^T is transpose_b; gradients of weights use
// transpose_a.
//         c must not overlap a or b. K = 0 gives zeros (or the addend).
#pragma once

#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

class PackedMatrix;

struct MatmulArgs {
  Input a, b;
  Output c;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
  const float* addend = nullptr;  // (M, N) with row stride N; not together with accumulate
  Dtype dtype = Dtype::f32;       // bf16: a and b are rounded to bf16, sums and c stay f32
  // b already rounded by round_weights, rows of k without padding, or null: what decoding streams.
  const uint16_t* b_bf16 = nullptr;
  // op(b) laid out by PackedMatrix::pack with the same dtype, or null. CPU only.
  const PackedMatrix* packed_b = nullptr;
};

// out = x rounded to bf16, of one length.
struct RoundWeightsArgs {
  std::span<const float> x;
  std::span<uint16_t> out;
};

[[nodiscard]] Status round_weights(const RoundWeightsArgs& args, const Exec& exec);
[[nodiscard]] Status matmul(const MatmulArgs& args, const Exec& exec);

}  // namespace rat::kernels
