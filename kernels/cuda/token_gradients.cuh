// The way out of attention over tokens: accumulators to rows rounded to bf16, with the rotation of queries and keys undone.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

// Of a 16 x P tile of accumulators, 8 columns after 8 columns, a thread holds 2 neighbouring columns of rows lane / 4 and
// 8 below, so both channels of a rotated pair (i, i + P/2) are its own. The tile starts `row` rows after token `first` of
// a block of which `valid` are written. rope: (T, P/2), null for none.
template <int P>
__device__ __forceinline__ void write_tokens(const float (&sums)[P / 8][4], float factor, const KeyRows<bf16>& to, int b,
                                             int h, int first, int row, int valid, const float2* rope) {
  const int lane = threadIdx.x % 32, column = (lane % 4) * 2;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = row + lane / 4 + 8 * i;
    if (r >= valid) continue;
    bf16* const out = to.at(b, h, first + r) + column;
    const float2* const turns = rope + int64_t{first + r} * (P / 2) + column;
#pragma unroll
    for (int n = 0; n < P / 16; ++n) {
      float4 turn = make_float4(1.0f, 0.0f, 1.0f, 0.0f);  // (cos, sin) of both columns
      if (rope != nullptr) turn = *reinterpret_cast<const float4*>(turns + n * 8);
      const float low0 = sums[n][2 * i] * factor, low1 = sums[n][2 * i + 1] * factor;
      const float high0 = sums[n + P / 16][2 * i] * factor, high1 = sums[n + P / 16][2 * i + 1] * factor;
      *reinterpret_cast<unsigned*>(out + n * 8) =
          pack_pair(fmaf(high0, turn.y, low0 * turn.x), fmaf(high1, turn.w, low1 * turn.z));
      *reinterpret_cast<unsigned*>(out + n * 8 + P / 2) =
          pack_pair(fmaf(-low0, turn.y, high0 * turn.x), fmaf(-low1, turn.w, high1 * turn.z));
    }
  }
}

}  // namespace rat::kernels::cuda
