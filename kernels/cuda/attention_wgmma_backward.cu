// Backward attention for Hopper, the two kernels of attention_mma_backward.cu with wgmma: no atomics, every result is
// written once. The key kernel holds 128 keys and walks the row tiles that see them, all blocks of a head from the last
// row downwards, so that they read the same rows at the same time. The query kernel holds 128 rows of a group and walks
// its heads and their keys.
#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace rat::kernels::cuda::paths {
namespace {

using namespace hopper;
using tiles::exp2_fast;
using tiles::kLog2e;

constexpr int P = 128, kBlock = 128, kStep = 64;  // rows or keys that a block holds, and that one step brings
constexpr int kThreads = 3 * 128, kConsumerWarps = 8;
constexpr int kBigTile = kBlock * P * 2, kBigHalf = kBigTile / 2;
constexpr int kSmallTile = kStep * P * 2, kSmallHalf = kSmallTile / 2;

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
__device__ __forceinline__ void copy_key_tile(uint32_t to, const CUtensorMap& map, int half, int row, int head, int sequence,
                                              uint32_t full) {
  copy_box(to, map, 0, row, head, sequence, full);
  copy_box(to + half, map, kHalf, row, head, sequence, full);
}
__device__ __forceinline__ void copy_token_tile(uint32_t to, const CUtensorMap& map, int half, int column, int row,
                                                int sequence, uint32_t full) {
  copy_box(to, map, column, row, sequence, full);
  copy_box(to + half, map, column + kHalf, row, sequence, full);
}

// Accumulators (64, 64) as left operand of the next product.
__device__ __forceinline__ void as_operand(uint32_t (&to)[4][4], const float (&sums)[32]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) to[k][i] = pack_pair(sums[k * 8 + 2 * i], sums[k * 8 + 2 * i + 1]);
}
// sums (64, 128) += left (64, 64) tile, whose rows are the inner dimension.
__device__ __forceinline__ void add_product(float (&sums)[64], const uint32_t (&left)[4][4], uint32_t tile) {
#pragma unroll
  for (int k = 0; k < 4; ++k) multiply_n128<1>(sums, left[k], columns_operand(tile + k * 2048, kSmallHalf), 1);
}

// (64, 128) accumulators of one warpgroup to float32 rows; rows from `valid` on are not written.
__device__ __forceinline__ void write_rows(const float (&sums)[64], float factor, float* to, int64_t stride, int valid) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int r = warp * 16 + lane / 4 + 8 * i;
    if (r >= valid) continue;
#pragma unroll
    for (int n = 0; n < 16; ++n)
      *reinterpret_cast<float2*>(to + r * stride + n * 8 + (lane % 4) * 2) =
          make_float2(sums[n * 4 + 2 * i] * factor, sums[n * 4 + 2 * i + 1] * factor);
  }
}

namespace by_key {

constexpr int kStages = 4;
struct Terms {
  float lse[kStep];  // times log2 e; +infinity beyond the sequence
  float delta[kStep];
};
struct Layout {
  static constexpr int keys = 0, values = kBigTile, stages = 2 * kBigTile;  // a stage: queries, output gradients
  static constexpr int terms = stages + kStages * 2 * kSmallTile;
  static constexpr int keys_full = terms + kStages * static_cast<int>(sizeof(Terms)), full = keys_full + 8;
  static constexpr int free = full + 8 * kStages, bytes = free + 8 * kStages + 1024;
};

struct Block {
  int h, b, first_key, first_row, steps;
  __device__ explicit Block(const RatShape& s) {
    h = static_cast<int>(blockIdx.y);
    b = static_cast<int>(blockIdx.z);
    first_key = static_cast<int>(blockIdx.x) * kBlock;
    const int T = static_cast<int>(s.tokens);
    first_row = static_cast<int>(min(s.tokens, (int64_t{first_key} + 1) * s.chunk_len)) / kStep * kStep;
    steps = (T - first_row + kStep - 1) / kStep;
  }
  __device__ int row_of(int step) const { return first_row + (steps - 1 - step) * kStep; }
};

__device__ void produce(const Maps& maps, const ChunkAttentionBackwardArgs<bf16>& a, uint32_t shared, unsigned char* memory) {
  const RatShape& s = a.shape;
  const Block block(s);
  const int lane = threadIdx.x % 32, group = block.h % static_cast<int>(s.groups);
  Ring ring;
  if (threadIdx.x == 0) {
    barrier_expect(shared + Layout::keys_full, 2 * kBigTile);
    copy_key_tile(shared + Layout::keys, maps.keys, kBigHalf, block.first_key, block.h, block.b, shared + Layout::keys_full);
    copy_key_tile(shared + Layout::values, maps.values, kBigHalf, block.first_key, block.h, block.b, shared + Layout::keys_full);
    for (int step = 0; step < block.steps; ++step) {
      const uint32_t tile = shared + Layout::stages + ring.stage * 2 * kSmallTile, full = shared + Layout::full + 8 * ring.stage;
      barrier_wait(shared + Layout::free + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(full, 2 * kSmallTile);
      copy_token_tile(tile, maps.queries, kSmallHalf, group * P, block.row_of(step), block.b, full);
      copy_token_tile(tile + kSmallTile, maps.grads, kSmallHalf, block.h * P, block.row_of(step), block.b, full);
      ring.advance<kStages>();
    }
  } else if (threadIdx.x / 32 == 1) {
    const int64_t terms_at = (int64_t{block.b} * s.heads + block.h) * s.tokens;
    auto* terms = reinterpret_cast<Terms*>(memory + Layout::terms);
    for (int step = 0; step < block.steps; ++step) {
      float lse[2], delta[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int row = block.row_of(step) + lane + 32 * i;
        lse[i] = row < s.tokens ? a.lse[terms_at + row] * kLog2e : INFINITY;
        delta[i] = row < s.tokens ? a.delta[terms_at + row] : 0.0f;
      }
      barrier_wait(shared + Layout::free + 8 * ring.stage, ring.phase ^ 1);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        terms[ring.stage].lse[lane + 32 * i] = lse[i];
        terms[ring.stage].delta[lane + 32 * i] = delta[i];
      }
      barrier_arrive(shared + Layout::full + 8 * ring.stage);  // every lane, for what it stored
      ring.advance<kStages>();
    }
  }
}

__device__ void consume(const ChunkAttentionBackwardArgs<bf16>& a, uint32_t shared, const unsigned char* memory, int which) {
  const RatShape& s = a.shape;
  const Block block(s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, L = static_cast<int>(s.chunk_len);
  const int my_first_key = block.first_key + which * 64, key = my_first_key + warp * 16 + lane / 4;  // and 8 below
  const uint32_t keys = shared + Layout::keys + which * 64 * 128, values = shared + Layout::values + which * 64 * 128;
  const auto* terms = reinterpret_cast<const Terms*>(memory + Layout::terms);
  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_keys[64] = {}, grad_values[64] = {};
  Ring ring;
  barrier_wait(shared + Layout::keys_full, 0);
  for (int step = 0; step < block.steps; ++step) {
    const uint32_t queries = shared + Layout::stages + ring.stage * 2 * kSmallTile, grads = queries + kSmallTile;
    float scores[32], grad_weights[32];
    barrier_wait(shared + Layout::full + 8 * ring.stage, ring.phase);
    if ((block.row_of(step) + kStep - 1) / L <= my_first_key) {  // none of these rows sees a key of this warpgroup
      barrier_arrive(shared + Layout::free + 8 * ring.stage);
      ring.advance<kStages>();
      continue;
    }
    begin_products();
#pragma unroll
    for (int k = 0; k < P / 16; ++k) {
      const int big = (k / 4) * kBigHalf + (k % 4) * 32, small = (k / 4) * kSmallHalf + (k % 4) * 32;
      multiply_n64(scores, rows_operand(keys + big), rows_operand(queries + small), k != 0);
    }
    commit_products();
#pragma unroll
    for (int k = 0; k < P / 16; ++k) {
      const int big = (k / 4) * kBigHalf + (k % 4) * 32, small = (k / 4) * kSmallHalf + (k % 4) * 32;
      multiply_n64(grad_weights, rows_operand(values + big), rows_operand(grads + small), k != 0);
    }
    commit_products();
    wait_products<1>();
    hold(scores);
    const int row = block.row_of(step);
    const bool masked = row / L < my_first_key + 64;
    const float2* lse = reinterpret_cast<const float2*>(terms[ring.stage].lse) + lane % 4;
    const float2* delta = reinterpret_cast<const float2*>(terms[ring.stage].delta) + lane % 4;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 pair = lse[n * 4];
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& p = scores[n * 4 + 2 * i + e];
          p = exp2_fast(fmaf(p, scale_log2, e == 0 ? -pair.x : -pair.y));
          if (masked && key + 8 * i >= (row + n * 8 + (lane % 4) * 2 + e) / L) p = 0.0f;
        }
    }
    uint32_t weights[4][4], score_grads[4][4];
    as_operand(weights, scores);
    wait_products<0>();
    hold(grad_weights);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 pair = delta[n * 4];
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& ds = grad_weights[n * 4 + 2 * i + e];
          ds = scores[n * 4 + 2 * i + e] * (ds - (e == 0 ? pair.x : pair.y));
        }
    }
    as_operand(score_grads, grad_weights);
    begin_products();
    add_product(grad_values, weights, grads);
    add_product(grad_keys, score_grads, queries);
    commit_products();
    wait_products<0>();  // no registers are left to go on meanwhile; the other warpgroup keeps the tensor cores busy
    hold(grad_keys);
    hold(grad_values);
    barrier_arrive(shared + Layout::free + 8 * ring.stage);
    ring.advance<kStages>();
  }
  const int valid = static_cast<int>(s.keys()) - my_first_key;
  if (valid <= 0) return;
  write_rows(grad_keys, scale, a.grad_keys.at(block.b, block.h, my_first_key), a.grad_keys.row, valid);
  write_rows(grad_values, 1.0f, a.grad_values.at(block.b, block.h, my_first_key), a.grad_values.row, valid);
}

__global__ void __launch_bounds__(kThreads, 1) key_gradient_kernel(const __grid_constant__ Maps maps,
                                                                   const __grid_constant__ ChunkAttentionBackwardArgs<bf16> a) {
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  unsigned char* memory = raw + (shared - start);
  if (threadIdx.x == 0) {
    barrier_init(shared + Layout::keys_full, 1);
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(shared + Layout::full + 8 * stage, 1 + 32);  // the copies, and the lanes that bring the terms
      barrier_init(shared + Layout::free + 8 * stage, kConsumerWarps * 32);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();  // 168 * 384 registers are there: what one role gives, the others can take, not more
    produce(maps, a, shared, memory);
  } else {
    take_registers<232>();
    consume(a, shared, memory, static_cast<int>(threadIdx.x) / 128 - 1);
  }
}

}  // namespace by_key

namespace by_query {

constexpr int kStages = 3;
struct Layout {
  static constexpr int queries = 0, grads = kBigTile, stages = 3 * kBigTile;  // two tiles of gradients; a stage: keys, values
  static constexpr int queries_full = stages + kStages * 2 * kSmallTile;
  static constexpr int grads_full = queries_full + 8, grads_free = grads_full + 16;
  static constexpr int full = grads_free + 16, free = full + 8 * kStages, bytes = free + 8 * kStages + 1024;
};

struct Block {
  int group, b, first_row, most_keys, steps, heads;
  __device__ explicit Block(const RatShape& s) {
    group = static_cast<int>(blockIdx.y);
    b = static_cast<int>(blockIdx.z);
    first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlock;
    most_keys = static_cast<int>((min(int64_t{first_row} + kBlock, s.tokens) - 1) / s.chunk_len);
    steps = (most_keys + kStep - 1) / kStep;  // per head
    heads = static_cast<int>(s.heads / s.groups);
  }
};

__device__ void produce(const Maps& maps, const RatShape& s, uint32_t shared) {
  const Block block(s);
  if (block.steps == 0) return;
  Ring ring, grad_ring;
  barrier_expect(shared + Layout::queries_full, kBigTile);
  copy_token_tile(shared + Layout::queries, maps.queries, kBigHalf, block.group * P, block.first_row, block.b,
                  shared + Layout::queries_full);
  for (int index = 0; index < block.heads; ++index) {
    const int h = block.group + index * static_cast<int>(s.groups);
    const uint32_t grads_full = shared + Layout::grads_full + 8 * grad_ring.stage;
    barrier_wait(shared + Layout::grads_free + 8 * grad_ring.stage, grad_ring.phase ^ 1);
    barrier_expect(grads_full, kBigTile);
    copy_token_tile(shared + Layout::grads + grad_ring.stage * kBigTile, maps.grads, kBigHalf, h * P, block.first_row, block.b,
                    grads_full);
    grad_ring.advance<2>();
    for (int step = 0; step < block.steps; ++step) {
      const uint32_t tile = shared + Layout::stages + ring.stage * 2 * kSmallTile, full = shared + Layout::full + 8 * ring.stage;
      barrier_wait(shared + Layout::free + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(full, 2 * kSmallTile);
      copy_key_tile(tile, maps.keys, kSmallHalf, step * kStep, h, block.b, full);
      copy_key_tile(tile + kSmallTile, maps.values, kSmallHalf, step * kStep, h, block.b, full);
      ring.advance<kStages>();
    }
  }
}

// The 64 rows of this warpgroup as left operands.
__device__ __forceinline__ void load_operand(uint32_t (&to)[8][4], uint32_t tile, int which) {
  const int lane = threadIdx.x % 32, row = which * 64 + threadIdx.x / 32 % 4 * 16 + (lane & 15);
#pragma unroll
  for (int k = 0; k < 8; ++k) tiles::load_matrices(to[k], tile + tile_at<kBlock>(row, k * 2 + (lane >> 4)));
}

__device__ void consume(const ChunkAttentionBackwardArgs<bf16>& a, uint32_t shared, int which) {
  const RatShape& s = a.shape;
  const Block block(s);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, T = static_cast<int>(s.tokens), L = static_cast<int>(s.chunk_len);
  const int my_first_row = block.first_row + which * 64, my_row = my_first_row + warp * 16 + lane / 4;  // and 8 below
  const int limit[2] = {my_row / L, (my_row + 8) / L}, fewest_keys = my_first_row / L;
  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_queries[64] = {};
  uint32_t queries[8][4], grads[8][4], score_grads[4][4];
  Ring ring, grad_ring;
  int before = -1;
  if (block.steps > 0) {
    barrier_wait(shared + Layout::queries_full, 0);
    load_operand(queries, shared + Layout::queries, which);
  }
  for (int index = 0; index < block.heads && block.steps > 0; ++index) {
    float lse[2], delta[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = my_row + 8 * i;
      const int64_t at = (int64_t{block.b} * s.heads + block.group + index * s.groups) * T + row;
      lse[i] = row < T ? a.lse[at] * kLog2e : INFINITY;
      delta[i] = row < T ? a.delta[at] : 0.0f;
    }
    barrier_wait(shared + Layout::grads_full + 8 * grad_ring.stage, grad_ring.phase);
    load_operand(grads, shared + Layout::grads + grad_ring.stage * kBigTile, which);
    release(shared + Layout::grads_free + 8 * grad_ring.stage);
    grad_ring.advance<2>();
    for (int step = 0; step < block.steps; ++step) {
      const uint32_t keys = shared + Layout::stages + ring.stage * 2 * kSmallTile, values = keys + kSmallTile;
      float scores[32], grad_weights[32];
      barrier_wait(shared + Layout::full + 8 * ring.stage, ring.phase);
      begin_products();
#pragma unroll
      for (int k = 0; k < P / 16; ++k)
        multiply_n64<0>(scores, queries[k], rows_operand(keys + (k / 4) * kSmallHalf + (k % 4) * 32), k != 0);
      commit_products();
#pragma unroll
      for (int k = 0; k < P / 16; ++k)
        multiply_n64<0>(grad_weights, grads[k], rows_operand(values + (k / 4) * kSmallHalf + (k % 4) * 32), k != 0);
      commit_products();
      wait_products<1>();  // the scores, and the sums of the step before
      hold(scores);
      hold(grad_queries);
      if (before >= 0) release(shared + Layout::free + 8 * before);
      before = ring.stage;
      const int first_key = step * kStep;
      const bool masked = first_key + kStep > fewest_keys;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& p = scores[n * 4 + 2 * i + e];
            p = exp2_fast(fmaf(p, scale_log2, -lse[i]));
            if (masked && first_key + n * 8 + (lane % 4) * 2 + e >= limit[i]) p = 0.0f;
          }
      wait_products<0>();
      hold(grad_weights);
#pragma unroll
      for (int j = 0; j < 32; ++j) grad_weights[j] = scores[j] * (grad_weights[j] - delta[j / 2 % 2]);
      as_operand(score_grads, grad_weights);
      begin_products();
      add_product(grad_queries, score_grads, keys);
      commit_products();
      ring.advance<kStages>();
    }
  }
  wait_products<0>();
  hold(grad_queries);
  if (my_first_row >= T) return;
  write_rows(grad_queries, scale, a.grad_q_rot + (int64_t{block.b} * T + my_first_row) * s.group_width() + block.group * P,
             s.group_width(), T - my_first_row);
}

__global__ void __launch_bounds__(kThreads, 1) query_gradient_kernel(const __grid_constant__ Maps maps,
                                                                     const __grid_constant__ ChunkAttentionBackwardArgs<bf16> a) {
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    barrier_init(shared + Layout::queries_full, 1);
    for (int stage = 0; stage < 2; ++stage) {
      barrier_init(shared + Layout::grads_full + 8 * stage, 1);
      barrier_init(shared + Layout::grads_free + 8 * stage, kConsumerWarps);
    }
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(shared + Layout::full + 8 * stage, 1);
      barrier_init(shared + Layout::free + 8 * stage, kConsumerWarps);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0) produce(maps, a.shape, shared);
  } else {
    take_registers<240>();
    consume(a, shared, static_cast<int>(threadIdx.x) / 128 - 1);
  }
}

}  // namespace by_query

}  // namespace

Status wgmma_backward(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  constexpr const char* what = "chunk_attention_backward (wgmma): shared memory";
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(by_query::query_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            by_query::Layout::bytes), what));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(by_key::key_gradient_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            by_key::Layout::bytes), what));
  Maps maps;
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), s.group_width(), s, kBlock));
  RAT_CUDA_TRY(token_map(maps.grads, a.grad_out, s.channels(), s.channels(), s, kBlock));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kStep));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kStep));
  const auto groups = static_cast<unsigned>(s.groups), batch = static_cast<unsigned>(s.batch);
  const auto row_blocks = static_cast<unsigned>((s.tokens + kBlock - 1) / kBlock);
  by_query::query_gradient_kernel<<<dim3(row_blocks, groups, batch), kThreads, by_query::Layout::bytes, stream>>>(maps, a);
  RAT_CUDA_TRY(launched("chunk_attention_backward (wgmma, queries)"));
  if (s.keys() == 0) return {};
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), s.group_width(), s, kStep));
  RAT_CUDA_TRY(token_map(maps.grads, a.grad_out, s.channels(), s.channels(), s, kStep));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kBlock));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kBlock));
  const auto key_blocks = static_cast<unsigned>((s.keys() + kBlock - 1) / kBlock);
  by_key::key_gradient_kernel<<<dim3(key_blocks, static_cast<unsigned>(s.heads), batch), kThreads, by_key::Layout::bytes,
                                stream>>>(maps, a);
  return launched("chunk_attention_backward (wgmma, keys)");
}

}  // namespace rat::kernels::cuda::paths
