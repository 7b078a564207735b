// Backward attention over tokens for Hopper, the gradient of the queries: a block holds 128 rows and walks their keys, so that
// the sum stays in registers. (It can walk several heads of a group for one sum; over tokens every head is a group of its own.)
// It repeats the scores of the key kernel, 7 products instead of 5, and in return adds up nothing in global memory.
#include "kernels/cuda/wgmma_backward.cuh"

namespace rat::kernels::cuda::paths {
namespace {

namespace by_query {

template <int P>
constexpr int kStages = 384 / P;  // the same bytes in flight for either head size
template <int P>
struct Layout {
  static constexpr int queries = 0, grads = kBigTile<P>;  // two tiles of gradients
  static constexpr int stages = 3 * kBigTile<P>;          // a stage: keys, values
  static constexpr int queries_full = stages + kStages<P> * 2 * kSmallTile<P>;
  static constexpr int grads_full = queries_full + 8, grads_free = grads_full + 16;
  static constexpr int full = grads_free + 16, free = full + 8 * kStages<P>, bytes = free + 8 * kStages<P> + 1024;
};

struct Block {
  TokensSoFar seen;
  int group, b, first_row, first_key, steps, heads;
  __device__ explicit Block(const RatShape& s) : seen(s) {
    group = static_cast<int>(blockIdx.y);
    b = static_cast<int>(blockIdx.z);
    first_row = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlock;
    first_key = seen.begin(first_row) / kStep * kStep;
    const int last_row = min(first_row + kBlock, seen.tokens) - 1;
    steps = (seen.end(last_row) - first_key + kStep - 1) / kStep;  // per head
    heads = static_cast<int>(s.heads / s.groups);
  }
};

template <int P>
__device__ void produce(const Maps& maps, const RatShape& s, uint32_t shared) {
  using Offsets = Layout<P>;
  const Block block(s);
  if (block.steps == 0) return;
  Ring ring, grad_ring;
  barrier_expect(shared + Offsets::queries_full, kBigTile<P>);
  copy_token_tile<P>(shared + Offsets::queries, maps.queries, kBigHalf, block.group * P, block.first_row, block.b,
                     shared + Offsets::queries_full);
  for (int index = 0; index < block.heads; ++index) {
    const int h = block.group + index * static_cast<int>(s.groups);
    const uint32_t grads_full = shared + Offsets::grads_full + 8 * grad_ring.stage;
    barrier_wait(shared + Offsets::grads_free + 8 * grad_ring.stage, grad_ring.phase ^ 1);
    barrier_expect(grads_full, kBigTile<P>);
    copy_token_tile<P>(shared + Offsets::grads + grad_ring.stage * kBigTile<P>, maps.grads, kBigHalf, h * P,
                       block.first_row, block.b, grads_full);
    grad_ring.advance<2>();
    for (int step = 0; step < block.steps; ++step) {
      const uint32_t tile = shared + Offsets::stages + ring.stage * 2 * kSmallTile<P>;
      const uint32_t full = shared + Offsets::full + 8 * ring.stage;
      barrier_wait(shared + Offsets::free + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(full, 2 * kSmallTile<P>);
      copy_key_tile<P>(tile, maps.keys, kSmallHalf, block.first_key + step * kStep, h, block.b, full);
      copy_key_tile<P>(tile + kSmallTile<P>, maps.values, kSmallHalf, block.first_key + step * kStep, h, block.b, full);
      ring.advance<kStages<P>>();
    }
  }
}

// The 64 rows of this warpgroup as left operands.
template <int K>
__device__ __forceinline__ void load_operand(uint32_t (&to)[K][4], uint32_t tile, int which) {
  const int lane = threadIdx.x % 32, row = which * 64 + threadIdx.x / 32 % 4 * 16 + (lane & 15);
#pragma unroll
  for (int k = 0; k < K; ++k) tiles::load_matrices(to[k], tile + tile_at<kBlock>(row, k * 2 + (lane >> 4)));
}

template <int P>
__device__ void consume(const ChunkAttentionBackwardArgs<bf16>& a, uint32_t shared, int which) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  const Block block(s);
  const TokensSoFar& seen = block.seen;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, T = static_cast<int>(s.tokens);
  const int my_first_row = block.first_row + which * 64, my_row = my_first_row + warp * 16 + lane / 4;  // and 8 below
  const int limit[2] = {seen.end(my_row), seen.end(my_row + 8)};
  const int fewest_keys = seen.end(my_first_row), latest_begin = seen.begin(my_first_row + 63);
  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_queries[P / 2] = {};
  uint32_t queries[P / 16][4], grads[P / 16][4], score_grads[4][4];
  // Heads of 64 leave both operands in shared memory: held in registers over the steps, ptxas 13.0 takes these for the
  // score gradients after the first step. The tensor cores still wait for the products, not for the memory.
  constexpr bool in_registers = P == 128;
  const uint32_t my_rows = which * 64 * 128;
  Ring ring, grad_ring;
  int before = -1;
  if (block.steps > 0) {
    barrier_wait(shared + Offsets::queries_full, 0);
    if constexpr (in_registers) load_operand(queries, shared + Offsets::queries, which);
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
    barrier_wait(shared + Offsets::grads_full + 8 * grad_ring.stage, grad_ring.phase);
    const uint32_t grads_tile = shared + Offsets::grads + grad_ring.stage * kBigTile<P>;
    const uint32_t grads_free = shared + Offsets::grads_free + 8 * grad_ring.stage;
    if constexpr (in_registers) {
      load_operand(grads, grads_tile, which);
      release(grads_free);
    }
    grad_ring.advance<2>();
    for (int step = 0; step < block.steps; ++step) {
      const uint32_t keys = shared + Offsets::stages + ring.stage * 2 * kSmallTile<P>, values = keys + kSmallTile<P>;
      float scores[32], grad_weights[32];
      barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);
      begin_products();
#pragma unroll
      for (int k = 0; k < P / 16; ++k) {
        const uint64_t right = rows_operand(keys + (k / 4) * kSmallHalf + (k % 4) * 32);
        if constexpr (in_registers) multiply_n64<0>(scores, queries[k], right, k != 0);
        else multiply_n64(scores, rows_operand(shared + Offsets::queries + my_rows + k * 32), right, k != 0);
      }
      commit_products();
#pragma unroll
      for (int k = 0; k < P / 16; ++k) {
        const uint64_t right = rows_operand(values + (k / 4) * kSmallHalf + (k % 4) * 32);
        if constexpr (in_registers) multiply_n64<0>(grad_weights, grads[k], right, k != 0);
        else multiply_n64(grad_weights, rows_operand(grads_tile + my_rows + k * 32), right, k != 0);
      }
      commit_products();
      wait_products<1>();  // the scores, and the sums of the step before
      hold(scores);
      hold(grad_queries);
      if (before >= 0) release(shared + Offsets::free + 8 * before);
      before = ring.stage;
      const int first_key = block.first_key + step * kStep;
      const bool masked = first_key + kStep > fewest_keys || first_key < latest_begin;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            float& p = scores[n * 4 + 2 * i + e];
            p = exp2_fast(fmaf(p, scale_log2, -lse[i]));
            if (masked && !seen.sees(limit[i], first_key + n * 8 + (lane % 4) * 2 + e)) p = 0.0f;
          }
      wait_products<0>();
      hold(grad_weights);
#pragma unroll
      for (int j = 0; j < 32; ++j) grad_weights[j] = scores[j] * (grad_weights[j] - delta[j / 2 % 2]);
      as_operand(score_grads, grad_weights);
      begin_products();
      add_product(grad_queries, score_grads, keys);
      commit_products();
      ring.advance<kStages<P>>();
    }
    if constexpr (!in_registers) release(grads_free);  // every step has waited for its product with them
  }
  wait_products<0>();
  hold(grad_queries);
  if (my_first_row >= T) return;
  const TokenGradients<bf16>& to = a.token_gradients;
  write_tokens<P>(by_columns(grad_queries), scale, to.queries, block.b, block.group, my_first_row, warp * 16, T - my_first_row,
                  to.rope);
}

template <int P>
__global__ void __launch_bounds__(kThreads, 1) query_gradient_kernel(const __grid_constant__ Maps maps,
                                                                     const __grid_constant__ ChunkAttentionBackwardArgs<bf16> a) {
  using Offsets = Layout<P>;
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    barrier_init(shared + Offsets::queries_full, 1);
    for (int stage = 0; stage < 2; ++stage) {
      barrier_init(shared + Offsets::grads_full + 8 * stage, 1);
      barrier_init(shared + Offsets::grads_free + 8 * stage, kConsumerWarps);
    }
    for (int stage = 0; stage < kStages<P>; ++stage) {
      barrier_init(shared + Offsets::full + 8 * stage, 1);
      barrier_init(shared + Offsets::free + 8 * stage, kConsumerWarps);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<P>(maps, a.shape, shared);
  } else {
    take_registers<240>();
    consume<P>(a, shared, static_cast<int>(threadIdx.x) / 128 - 1);
  }
}

template <int P>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(query_gradient_kernel<P>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Offsets::bytes),
                       "chunk_attention_backward (wgmma, queries): shared memory"));
  Maps maps;
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), a.query_stride(), s, kBlock));
  RAT_CUDA_TRY(token_map(maps.grads, a.grad_out, s.channels(), s.channels(), s, kBlock));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kStep));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kStep));
  const dim3 grid(static_cast<unsigned>((s.tokens + kBlock - 1) / kBlock), static_cast<unsigned>(s.groups),
                  static_cast<unsigned>(s.batch));
  query_gradient_kernel<P><<<grid, kThreads, Offsets::bytes, stream>>>(maps, a);
  return launched("chunk_attention_backward (wgmma, queries)");
}

}  // namespace by_query

}  // namespace

Status wgmma_query_gradient(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? by_query::launch<64>(a, stream) : by_query::launch<128>(a, stream);
}

}  // namespace rat::kernels::cuda::paths
