// Rows in e4m3 (sign, 4 exponent and 3 mantissa bits, largest value 448) with one power of two each: the decode cache
// at half the bytes of bf16.
//
//   scale = 2^e, the smallest with max |x| <= 448 scale;  row[i] = e4m3(x[i] / scale), to nearest even
//
// Source: Micikevicius et al., FP8 Formats for Deep Learning, arXiv:2209.05433. A power of two costs none of the
// format's relative precision (2^-4), and scaling by it is exact short of underflow.
// Zeros stay zeros. A row with an infinity or a NaN becomes NaN as a whole, scale included: it never turns finite.
// Scales are bf16, which holds every power of two of float32, in pairs: x of a key row, y of the value row beside it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <vector_types.h>

#include <type_traits>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

using e4m3 = __nv_fp8_e4m3;
template <class C>
constexpr bool kQuantised = std::is_same_v<C, e4m3>;

// (B, H, capacity), as head_major.
inline KeyRows<ushort2> scale_pairs(ushort2* data, const RatShape& shape, int64_t capacity) {
  return {data, shape.heads * capacity, capacity, 1};
}

}  // namespace rat::kernels::cuda
