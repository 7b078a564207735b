// Online softmax where wgmma leaves scores: of the 64 rows of a warpgroup, a thread has two (lane / 4 and 8 below).
#pragma once

#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/keys_seen.cuh"

namespace rat::kernels::cuda::hopper {

// By how many powers of 2 a score may exceed what weights are relative to, before all that was added up is made smaller:
// float32 has room for that, and most steps need not touch the sums.
constexpr float kSlack = 8.0f;

// Online softmax of one thread's two rows (lane / 4 and 8 below): scores become weights.
struct TwoRows {
  float top[2], sum[2];
  int limit[2];

  template <class Seen, int N>
  __device__ __forceinline__ void absorb(float (&scores)[N], float (&shrink)[2], const Seen& seen, int first_key,
                                         bool masked, float scale) {
    const int column = first_key + (threadIdx.x % 4) * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (masked) {
#pragma unroll
        for (int n = 0; n < N / 4; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (!seen.sees(limit[i], column + n * 8 + e)) scores[n * 4 + 2 * i + e] = -INFINITY;
      }
      float highest = scores[2 * i];
#pragma unroll
      for (int n = 0; n < N / 4; ++n) highest = fmaxf(highest, fmaxf(scores[n * 4 + 2 * i], scores[n * 4 + 2 * i + 1]));
      highest = tiles::row_max(highest) * scale;
      const float new_top = highest > top[i] + kSlack ? highest : top[i];
      shrink[i] = tiles::exp2_fast(top[i] - new_top);
      float total = 0.0f;
#pragma unroll
      for (int n = 0; n < N / 4; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n * 4 + 2 * i + e];
          score = tiles::exp2_fast(fmaf(score, scale, -new_top));
          total += score;
        }
      sum[i] = fmaf(sum[i], shrink[i], total);
      top[i] = new_top;
    }
  }
};

template <int N>
__device__ __forceinline__ void pack_weights(uint32_t (&weights)[N][4], const float (&scores)[8 * N]) {
#pragma unroll
  for (int k = 0; k < N; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[k][i] = pack_pair(scores[k * 8 + 2 * i], scores[k * 8 + 2 * i + 1]);
}
template <int N>
__device__ __forceinline__ void shrink_rows(float (&out)[N], const float (&shrink)[2]) {
  if (__all_sync(0xffffffffu, shrink[0] == 1.0f && shrink[1] == 1.0f)) return;
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] *= shrink[i / 2 % 2];
}

}  // namespace rat::kernels::cuda::hopper
