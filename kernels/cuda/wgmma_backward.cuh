// What attention_wgmma_backward.cu is made of: tile sizes, copies, operands, the way out.
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

struct Terms {
  float lse[kStep];  // times log2 e; +infinity beyond the sequence
  float delta[kStep];
};

// One thread of a block of keys: these, and then the row tiles of its steps.
template <int P, class Offsets, int STAGES, class Work>
__device__ __forceinline__ void copy_tiles(const Maps& maps, const Work& work, uint32_t shared) {
  const uint32_t keys_full = shared + Offsets::keys_full;
  barrier_expect(keys_full, 2 * kBigTile<P>);
  copy_key_tile<P>(shared + Offsets::keys, maps.keys, kBigHalf, work.first_key, work.h, work.b, keys_full);
  copy_key_tile<P>(shared + Offsets::values, maps.values, kBigHalf, work.first_key, work.h, work.b, keys_full);
  Ring ring;
  for (int step = 0; step < work.steps; ++step) {
    const uint32_t tile = shared + Offsets::stages + ring.stage * 2 * kSmallTile<P>;
    const uint32_t full = shared + Offsets::full + 8 * ring.stage;
    barrier_wait(shared + Offsets::free + 8 * ring.stage, ring.phase ^ 1);
    barrier_expect(full, 2 * kSmallTile<P>);
    copy_token_tile<P>(tile, maps.queries, kSmallHalf, work.group * P, work.row_of(step), work.b, full);
    copy_token_tile<P>(tile + kSmallTile<P>, maps.grads, kSmallHalf, work.h * P, work.row_of(step), work.b, full);
    ring.advance<STAGES>();
  }
}

// One warp: what belongs to the rows of each step.
template <class Offsets, int STAGES, class Work>
__device__ __forceinline__ void bring_terms(const ChunkAttentionBackwardArgs<bf16>& a, const Work& work, uint32_t shared,
                                            unsigned char* memory) {
  const int lane = threadIdx.x % 32;
  const int64_t terms_at = (int64_t{work.b} * a.shape.heads + work.h) * a.shape.tokens;
  auto* terms = reinterpret_cast<Terms*>(memory + Offsets::terms);
  Ring ring;
  for (int step = 0; step < work.steps; ++step) {
    float lse[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = work.row_of(step) + lane + 32 * i;
      lse[i] = row < work.seen.tokens ? a.lse[terms_at + row] * kLog2e : INFINITY;
      delta[i] = row < work.seen.tokens ? a.delta[terms_at + row] : 0.0f;
    }
    barrier_wait(shared + Offsets::free + 8 * ring.stage, ring.phase ^ 1);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      terms[ring.stage].lse[lane + 32 * i] = lse[i];
      terms[ring.stage].delta[lane + 32 * i] = delta[i];
    }
    barrier_arrive(shared + Offsets::full + 8 * ring.stage);  // every lane, for what it stored
    ring.advance<STAGES>();
  }
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
  for (int k = 0; k < 4; ++k) multiply_add(sums, left[k], further(columns_operand(tile, kSmallHalf), k * 2048));
}

// sums (64, 64) = rows of a big tile times those of a small one, transposed.
template <int P>
__device__ __forceinline__ void start_scores(float (&sums)[32], uint32_t big, uint32_t small) {
  const uint64_t left = rows_operand(big), right = rows_operand(small);
#pragma unroll
  for (int k = 0; k < P / 16; ++k)
    multiply_n64(sums, further(left, k / 4 * kBigHalf + k % 4 * 32), further(right, k / 4 * kSmallHalf + k % 4 * 32), k != 0);
  commit_products();
}
// Scores, and gradients of weights, of 64 keys and the 64 rows of a step: both products begin.
template <int P>
__device__ __forceinline__ void start_both(float (&scores)[32], float (&grad_weights)[32], uint32_t keys, uint32_t values,
                                           uint32_t queries, uint32_t grads) {
  begin_products();
  start_scores<P>(scores, keys, queries);
  start_scores<P>(grad_weights, values, grads);
}
// The same, and the scores are there.
template <int P>
__device__ __forceinline__ void begin_scores(float (&scores)[32], float (&grad_weights)[32], uint32_t keys, uint32_t values,
                                             uint32_t queries, uint32_t grads) {
  start_both<P>(scores, grad_weights, keys, values, queries, grads);
  wait_products<1>();
  hold(scores);
}
// Weights from scores: 2^(score - lse) of a step's rows, in units of log 2.
__device__ __forceinline__ void exponentiate(float (&scores)[32], const float (&of_rows)[kStep], float scale_log2) {
  const float2* lse = reinterpret_cast<const float2*>(of_rows) + threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 pair = lse[n * 4];
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& p = scores[n * 4 + 2 * i + e];
        p = exp2_fast(fmaf(p, scale_log2, e == 0 ? -pair.x : -pair.y));
      }
  }
}
// From the weights, the gradients of the scores in place of those of the weights, once these are there.
__device__ __forceinline__ void finish_scores(float (&grad_weights)[32], const float (&weights)[32], const float (&of_rows)[kStep]) {
  const float2* delta = reinterpret_cast<const float2*>(of_rows) + threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 pair = delta[n * 4];
#pragma unroll
    for (int e = 0; e < 2; ++e)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& ds = grad_weights[n * 4 + 2 * i + e];
        ds = weights[n * 4 + 2 * i + e] * (ds - (e == 0 ? pair.x : pair.y));
      }
  }
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

}  // namespace rat::kernels::cuda::paths
