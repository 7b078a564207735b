// Backward attention on tensor cores through mma.sync, in two kernels without atomics: one owns 64 keys of a head and
// walks the query rows that see them (both operands "packed": a key row meets all L rows of every later chunk), one owns
// 64 query rows of a group and walks heads and keys. The second repeats the scores: 7 products instead of 5, and in
// return the sum over the heads stays in registers and every result is written once.
#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/keys_seen.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/token_gradients.cuh"

namespace rat::kernels::cuda::paths {
namespace {

using namespace tiles;

constexpr int kRows = 64, kKeys = 64, kThreads = 128;

struct RowTerms {  // of the query rows of one stage, in shared memory
  float lse[kRows];  // times log2 e; +infinity for rows beyond the sequence: weight 0
  float delta[kRows];
};

template <int P>
struct KeyShared {
  static constexpr int tile = kKeys * P * 2;
  static constexpr int keys = 0, values = tile, stage = 2 * tile;  // stages of (queries, output gradients)
  static constexpr int terms = stage + 4 * tile;
  static constexpr int bytes = terms + 2 * static_cast<int>(sizeof(RowTerms));
};

template <int P>
__device__ __forceinline__ void write_rows(const float (&sums)[P / 8][4], float factor, float* to, int64_t stride, int row,
                                           int valid) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = row + i * 8 + lane / 4;
    if (r >= valid) continue;
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
      *reinterpret_cast<float2*>(to + r * stride + n * 8 + (lane & 3) * 2) =
          make_float2(sums[n][2 * i] * factor, sums[n][2 * i + 1] * factor);
  }
}

template <int P, class Seen>
__global__ void __launch_bounds__(kThreads, 2) key_gradient_kernel(ChunkAttentionBackwardArgs<bf16> a) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Offsets = KeyShared<P>;
  const uint32_t shared = shared_address(memory);
  auto* terms = reinterpret_cast<RowTerms*>(memory + Offsets::terms);
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int h = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z), T = static_cast<int>(s.tokens);
  const int first_key = static_cast<int>(blockIdx.x) * kKeys;  // early keys meet the most rows and start first
  const int keys_here = min(kKeys, seen.end(T - 1) - first_key);
  const int first_row = seen.first_token(first_key) / kRows * kRows;
  const int steps = (seen.end_token(first_key + keys_here - 1) - first_row + kRows - 1) / kRows;
  const int64_t row0 = int64_t{b} * T;
  const bf16* queries = a.q_rot + row0 * a.query_stride() + h % static_cast<int>(s.groups) * P;
  const bf16* grads = a.grad_out + row0 * s.channels() + h * P;
  const int64_t terms_at = (int64_t{b} * s.heads + h) * T;
  const auto start_step = [&](int step) {
    const int row = first_row + step * kRows;
    const uint32_t stage = shared + Offsets::stage + (step & 1) * 2 * Offsets::tile;
    copy_tile<kRows, P, kThreads>(stage, queries + row * a.query_stride(), a.query_stride(), T - row);
    copy_tile<kRows, P, kThreads>(stage + Offsets::tile, grads + row * s.channels(), s.channels(), T - row);
    const int r = static_cast<int>(threadIdx.x);
    if (r < kRows) {
      const bool inside = row + r < T;
      terms[step & 1].lse[r] = inside ? a.lse[terms_at + row + r] * kLog2e : INFINITY;
      terms[step & 1].delta[r] = inside ? a.delta[terms_at + row + r] : 0.0f;
    }
  };
  copy_tile<kKeys, P, kThreads>(shared + Offsets::keys, a.keys.at(b, h, first_key), a.keys.row, keys_here);
  copy_tile<kKeys, P, kThreads>(shared + Offsets::values, a.values.at(b, h, first_key), a.values.row, keys_here);
  start_step(0);
  commit_copies();

  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_keys[1][P / 8][4] = {}, grad_values[1][P / 8][4] = {};
  const int warp_key = first_key + warp * 16, key = warp_key + lane / 4;  // and key + 8
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) start_step(step + 1);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const uint32_t stage = shared + Offsets::stage + (step & 1) * 2 * Offsets::tile;
    const int row = first_row + step * kRows;
    if (Seen::own_key || !sees_none(seen, row, row + kRows - 1, warp_key, 16)) {
      const bool masked = !sees_all(seen, row, row + kRows - 1, warp_key, 16);
      float weights[1][kRows / 8][4] = {}, grad_scores[1][kRows / 8][4] = {};
      multiply_transposed<1, kRows / 8, P>(weights, shared + Offsets::keys, warp * 16, stage);
      multiply_transposed<1, kRows / 8, P>(grad_scores, shared + Offsets::values, warp * 16, stage + Offsets::tile);
#pragma unroll
      for (int n = 0; n < kRows / 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int r = n * 8 + (lane & 3) * 2 + e;
          const float lse = terms[step & 1].lse[r], delta = terms[step & 1].delta[r];
          const int limit = masked ? seen.end(row + r) : 0;
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& p = weights[0][n][2 * i + e];
            float& ds = grad_scores[0][n][2 * i + e];
            p = !masked || seen.sees(limit, key + 8 * i) ? exp2_fast(fmaf(p, scale_log2, -lse)) : 0.0f;
            ds = p * (ds - delta);
          }
        }
      uint32_t left[1][kRows / 16][4];
      as_left_operand<1, kRows / 8>(left, weights);
      multiply_add<1, kRows / 16, P>(grad_values, left, stage + Offsets::tile);
      as_left_operand<1, kRows / 8>(left, grad_scores);
      multiply_add<1, kRows / 16, P>(grad_keys, left, stage);
    }
    __syncthreads();
  }
  wait_copies<0>();
  if constexpr (Seen::own_key) {
    write_rows<P>(grad_keys[0], scale, a.grad_keys.at(b, h, first_key), a.grad_keys.row, warp * 16, keys_here);
    write_rows<P>(grad_values[0], 1.0f, a.grad_values.at(b, h, first_key), a.grad_values.row, warp * 16, keys_here);
  } else {
    const TokenGradients<bf16>& to = a.token_gradients;
    write_tokens<P>(grad_keys[0], scale, to.keys, b, h, first_key, warp * 16, keys_here, to.rope);
    write_tokens<P>(grad_values[0], 1.0f, to.values, b, h, first_key, warp * 16, keys_here, nullptr);
  }
}

template <int P>
struct QueryShared {
  static constexpr int tile = kKeys * P * 2;
  static constexpr int queries = 0, grads = tile, stage = 3 * tile;  // two tiles of gradients, stages of (keys, values)
  static constexpr int bytes = stage + 4 * tile;
};

template <int P, class Seen>
__global__ void __launch_bounds__(kThreads, 2) query_gradient_kernel(ChunkAttentionBackwardArgs<bf16> a) {
  extern __shared__ __align__(128) unsigned char memory[];
  using Offsets = QueryShared<P>;
  const uint32_t shared = shared_address(memory);
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = static_cast<int>(blockIdx.y), b = static_cast<int>(blockIdx.z), G = static_cast<int>(s.groups);
  const int first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int rows_here = min(kRows, static_cast<int>(s.tokens) - first_row);
  const int64_t row0 = b * s.tokens + first_row;
  const int first_key = seen.begin(first_row) / kKeys * kKeys;
  const int keys_here = seen.end(first_row + rows_here - 1) - first_key;
  const int warp_row = first_row + warp * 16, fewest_keys = seen.end(warp_row), latest_begin = seen.begin(warp_row + 15);
  const int tiles_per_head = (keys_here + kKeys - 1) / kKeys;
  const int steps = tiles_per_head * (static_cast<int>(s.heads) / G);
  const auto start_step = [&](int step) {
    const int index = step / tiles_per_head, tile = step % tiles_per_head, h = group + index * G;
    const uint32_t stage = shared + Offsets::stage + (step & 1) * 2 * Offsets::tile;
    const int key = first_key + tile * kKeys, left = keys_here - tile * kKeys;
    copy_tile<kKeys, P, kThreads>(stage, a.keys.at(b, h, key), a.keys.row, left);
    copy_tile<kKeys, P, kThreads>(stage + Offsets::tile, a.values.at(b, h, key), a.values.row, left);
    if (tile == 0)
      copy_tile<kRows, P, kThreads>(shared + Offsets::grads + (index & 1) * Offsets::tile,
                                    a.grad_out + row0 * s.channels() + h * P, s.channels(), rows_here);
  };
  copy_tile<kRows, P, kThreads>(shared + Offsets::queries, a.q_rot + row0 * a.query_stride() + group * P,
                                a.query_stride(), rows_here);
  if (steps > 0) start_step(0);
  commit_copies();

  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_queries[1][P / 8][4] = {};
  float lse[2] = {}, delta[2] = {};
  int limit[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) limit[i] = seen.end(warp_row + i * 8 + lane / 4);
  for (int step = 0; step < steps; ++step) {
    const int index = step / tiles_per_head, tile = step % tiles_per_head;
    if (step + 1 < steps) start_step(step + 1);
    commit_copies();
    if (tile == 0) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int r = warp * 16 + i * 8 + lane / 4;
        const int64_t at = (int64_t{b} * s.heads + group + index * G) * s.tokens + first_row + r;
        lse[i] = r < rows_here ? a.lse[at] * kLog2e : INFINITY;
        delta[i] = r < rows_here ? a.delta[at] : 0.0f;
      }
    }
    wait_copies<1>();
    __syncthreads();
    const uint32_t stage = shared + Offsets::stage + (step & 1) * 2 * Offsets::tile;
    const int tile_key = first_key + tile * kKeys;
    if (Seen::own_key || !sees_none(seen, warp_row, warp_row + 15, tile_key, kKeys)) {
      float weights[1][kKeys / 8][4] = {}, grad_scores[1][kKeys / 8][4] = {};
      multiply_transposed<1, kKeys / 8, P>(weights, shared + Offsets::queries, warp * 16, stage);
      multiply_transposed<1, kKeys / 8, P>(grad_scores, shared + Offsets::grads + (index & 1) * Offsets::tile, warp * 16,
                                           stage + Offsets::tile);
      const bool masked = tile_key + kKeys > fewest_keys || tile_key < latest_begin;
#pragma unroll
      for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int key = tile_key + n * 8 + (lane & 3) * 2 + e;
            float p = exp2_fast(fmaf(weights[0][n][2 * i + e], scale_log2, -lse[i]));
            if (masked && !seen.sees(limit[i], key)) p = 0.0f;
            grad_scores[0][n][2 * i + e] = p * (grad_scores[0][n][2 * i + e] - delta[i]);
          }
      uint32_t left[1][kKeys / 16][4];
      as_left_operand<1, kKeys / 8>(left, grad_scores);
      multiply_add<1, kKeys / 16, P>(grad_queries, left, stage);
    }
    __syncthreads();
  }
  wait_copies<0>();
  if constexpr (Seen::own_key) {
    write_rows<P>(grad_queries[0], scale, a.grad_q_rot + row0 * s.group_width() + group * P, s.group_width(), warp * 16,
                  rows_here);
  } else {
    const TokenGradients<bf16>& to = a.token_gradients;
    write_tokens<P>(grad_queries[0], scale, to.queries, b, group, first_row, warp * 16, rows_here, to.rope);
  }
}

template <int P, class Seen>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(query_gradient_kernel<P, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            QueryShared<P>::bytes),
                       "chunk_attention_backward (mma): shared memory"));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(key_gradient_kernel<P, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            KeyShared<P>::bytes),
                       "chunk_attention_backward (mma): shared memory"));
  const auto row_tiles = static_cast<unsigned>((s.tokens + kRows - 1) / kRows);
  query_gradient_kernel<P, Seen><<<dim3(row_tiles, static_cast<unsigned>(s.groups), static_cast<unsigned>(s.batch)),
                                   kThreads, QueryShared<P>::bytes, stream>>>(a);
  RAT_CUDA_TRY(launched("chunk_attention_backward (mma, queries)"));
  if (s.keys() == 0) return {};
  const auto key_tiles = static_cast<unsigned>((s.keys() + kKeys - 1) / kKeys);
  key_gradient_kernel<P, Seen><<<dim3(key_tiles, static_cast<unsigned>(s.heads), static_cast<unsigned>(s.batch)),
                                 kThreads, KeyShared<P>::bytes, stream>>>(a);
  return launched("chunk_attention_backward (mma, keys)");
}

template <class Seen>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? launch<64, Seen>(a, stream) : launch<128, Seen>(a, stream);
}

}  // namespace

Status mma_backward(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  return with_keys_seen(a.shape, [&](auto seen) { return launch<typename decltype(seen)::Type>(a, stream); });
}

}  // namespace rat::kernels::cuda::paths
