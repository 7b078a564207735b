// What the backward kernels for Hopper share: tile sizes, copies, operands, the way out.
#pragma once

#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/keys_seen.cuh"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/token_gradients.cuh"

namespace rat::kernels::cuda::paths {

using namespace hopper;
using tiles::exp2_fast;
using tiles::kLog2e;

namespace {

constexpr int kBlock = 128, kStep = 64;  // rows or keys that a block holds, and that one step brings
constexpr int kThreads = 3 * 128, kConsumerWarps = 8;
template <int P>
constexpr int kBigTile = tile_bytes(kBlock, P);
template <int P>
constexpr int kSmallTile = tile_bytes(kStep, P);
constexpr int kBigHalf = half_bytes(kBlock), kSmallHalf = half_bytes(kStep);

struct Maps {
  CUtensorMap queries, grads, keys, values;
};

struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  template <int STAGES>
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
};

__device__ __forceinline__ void release(uint32_t barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(barrier);
}
template <int P>
__device__ __forceinline__ void copy_key_tile(uint32_t to, const CUtensorMap& map, int half_size, int row, int head,
                                              int sequence, uint32_t full) {
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * half_size, map, half * kHalf, row, head, sequence, full);
}
template <int P>
__device__ __forceinline__ void copy_token_tile(uint32_t to, const CUtensorMap& map, int half_size, int column, int row,
                                                int sequence, uint32_t full) {
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * half_size, map, column + half * kHalf, row, sequence, full);
}

// Accumulators (64, 64) as left operand of the next product.
__device__ __forceinline__ void as_operand(uint32_t (&to)[4][4], const float (&sums)[32]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) to[k][i] = pack_pair(sums[k * 8 + 2 * i], sums[k * 8 + 2 * i + 1]);
}
// sums (64, P) += left (64, 64) tile, whose rows are the inner dimension.
template <int N>
__device__ __forceinline__ void add_product(float (&sums)[N], const uint32_t (&left)[4][4], uint32_t tile) {
#pragma unroll
  for (int k = 0; k < 4; ++k) multiply_add(sums, left[k], columns_operand(tile + k * 2048, kSmallHalf));
}

// (64, P) accumulators of one warpgroup, 8 columns after 8 columns.
template <int N>
__device__ __forceinline__ const float (&by_columns(const float (&sums)[N]))[N / 4][4] {
  return reinterpret_cast<const float(&)[N / 4][4]>(sums);
}

// The same to float32 rows; rows from `valid` on are not written.
template <int N>
__device__ __forceinline__ void write_rows(const float (&sums)[N], float factor, float* to, int64_t stride, int valid) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = warp * 16 + lane / 4 + 8 * i;
    if (r >= valid) continue;
#pragma unroll
    for (int n = 0; n < N / 4; ++n)
      *reinterpret_cast<float2*>(to + r * stride + n * 8 + (lane % 4) * 2) =
          make_float2(sums[n * 4 + 2 * i] * factor, sums[n * 4 + 2 * i + 1] * factor);
  }
}

}  // namespace

// Of attention over tokens.
Status wgmma_query_gradient(const ChunkAttentionBackwardArgs<bf16>& args, cudaStream_t stream);
Status wgmma_key_gradient(const ChunkAttentionBackwardArgs<bf16>& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda::paths
