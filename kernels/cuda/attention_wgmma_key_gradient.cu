// Backward attention over tokens for Hopper, the gradients of keys and values: a block holds 128 keys of a head and walks the
// row tiles that see them, all blocks of a head from the last row downwards, so that they read the same rows at the same
// time. No atomics, every result is written once.
#include "kernels/cuda/wgmma_backward.cuh"

namespace rat::kernels::cuda::paths {
namespace {

namespace by_key {

template <int P>
constexpr int kStages = 512 / P;  // the same bytes in flight for either head size
template <int P>
struct Layout {
  static constexpr int keys = 0, values = kBigTile<P>, stages = 2 * kBigTile<P>;  // a stage: queries, output gradients
  static constexpr int terms = stages + kStages<P> * 2 * kSmallTile<P>;
  static constexpr int keys_full = terms + kStages<P> * static_cast<int>(sizeof(Terms)), full = keys_full + 8;
  static constexpr int free = full + 8 * kStages<P>, bytes = free + 8 * kStages<P> + 1024;
};

struct Block {
  TokensSoFar seen;
  int h, b, group, first_key, first_row, steps;
  __device__ explicit Block(const RatShape& s) : seen(s) {
    h = static_cast<int>(blockIdx.y);
    group = h % static_cast<int>(s.groups);
    b = static_cast<int>(blockIdx.z);
    first_key = static_cast<int>(blockIdx.x) * kBlock;
    const int last_key = min(first_key + kBlock, static_cast<int>(s.keys())) - 1;
    first_row = seen.first_token(first_key) / kStep * kStep;
    steps = (seen.end_token(last_key) - first_row + kStep - 1) / kStep;
  }
  __device__ int row_of(int step) const { return first_row + (steps - 1 - step) * kStep; }
};

template <int P>
__device__ void consume(const ChunkAttentionBackwardArgs<bf16>& a, uint32_t shared, const unsigned char* memory,
                        int which) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  const Block block(s);
  const TokensSoFar& seen = block.seen;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int my_first_key = block.first_key + which * 64, key = my_first_key + warp * 16 + lane / 4;  // and 8 below
  const uint32_t keys = shared + Offsets::keys + which * 64 * 128, values = shared + Offsets::values + which * 64 * 128;
  const auto* terms = reinterpret_cast<const Terms*>(memory + Offsets::terms);
  const float scale = rsqrtf(static_cast<float>(P)), scale_log2 = scale * kLog2e;
  float grad_keys[P / 2] = {}, grad_values[P / 2] = {};
  Ring ring;
  barrier_wait(shared + Offsets::keys_full, 0);
  for (int step = 0; step < block.steps; ++step) {
    const uint32_t queries = shared + Offsets::stages + ring.stage * 2 * kSmallTile<P>, grads = queries + kSmallTile<P>;
    float scores[32], grad_weights[32];
    const int row = block.row_of(step);
    barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);
    if (sees_none(seen, row, row + kStep - 1, my_first_key, 64)) {
      barrier_arrive(shared + Offsets::free + 8 * ring.stage);
      ring.advance<kStages<P>>();
      continue;
    }
    begin_scores<P>(scores, grad_weights, keys, values, queries, grads);
    const bool masked = !sees_all(seen, row, row + kStep - 1, my_first_key, 64);
    const float2* lse = reinterpret_cast<const float2*>(terms[ring.stage].lse) + lane % 4;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const float2 pair = lse[n * 4];
#pragma unroll
      for (int e = 0; e < 2; ++e)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& p = scores[n * 4 + 2 * i + e];
          p = exp2_fast(fmaf(p, scale_log2, e == 0 ? -pair.x : -pair.y));
          if (masked && !seen.sees(seen.end(row + n * 8 + (lane % 4) * 2 + e), key + 8 * i)) p = 0.0f;
        }
    }
    uint32_t weights[4][4], score_grads[4][4];
    as_operand(weights, scores);
    wait_products<0>();
    hold(grad_weights);
    finish_scores(grad_weights, scores, terms[ring.stage].delta);
    as_operand(score_grads, grad_weights);
    begin_products();
    add_product(grad_values, weights, grads);
    add_product(grad_keys, score_grads, queries);
    commit_products();
    wait_products<0>();  // no registers are left to go on meanwhile; the other warpgroup keeps the tensor cores busy
    hold(grad_keys);
    hold(grad_values);
    barrier_arrive(shared + Offsets::free + 8 * ring.stage);
    ring.advance<kStages<P>>();
  }
  const int valid = static_cast<int>(s.keys()) - my_first_key;
  if (valid <= 0) return;
  const TokenGradients<bf16>& to = a.token_gradients;
  write_tokens<P>(by_columns(grad_keys), scale, to.keys, block.b, block.h, my_first_key, warp * 16, valid, to.rope);
  write_tokens<P>(by_columns(grad_values), 1.0f, to.values, block.b, block.h, my_first_key, warp * 16, valid, nullptr);
}

template <int P>
__global__ void __launch_bounds__(kThreads, 1) key_gradient_kernel(const __grid_constant__ Maps maps,
                                                                   const __grid_constant__ ChunkAttentionBackwardArgs<bf16> a) {
  using Offsets = Layout<P>;
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  unsigned char* memory = raw + (shared - start);
  if (threadIdx.x == 0) {
    barrier_init(shared + Offsets::keys_full, 1);
    for (int stage = 0; stage < kStages<P>; ++stage) {
      barrier_init(shared + Offsets::full + 8 * stage, 1 + 32);  // the copies, and the lanes that bring the terms
      barrier_init(shared + Offsets::free + 8 * stage, kConsumerWarps * 32);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<40>();  // 168 * 384 registers are there: what one role gives, the others can take, not more
    const Block block(a.shape);
    if (threadIdx.x == 0) copy_tiles<P, Offsets, kStages<P>>(maps, block, shared);
    else if (threadIdx.x / 32 == 1) bring_terms<Offsets, kStages<P>>(a, block, shared, memory);
  } else {
    take_registers<232>();
    consume<P>(a, shared, memory, static_cast<int>(threadIdx.x) / 128 - 1);
  }
}

template <int P>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  if (s.keys() == 0) return {};
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(key_gradient_kernel<P>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Offsets::bytes),
                       "chunk_attention_backward (wgmma, keys): shared memory"));
  Maps maps;
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), a.query_stride(), s, kStep));
  RAT_CUDA_TRY(token_map(maps.grads, a.grad_out, s.channels(), s.channels(), s, kStep));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kBlock));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kBlock));
  const dim3 grid(static_cast<unsigned>((s.keys() + kBlock - 1) / kBlock), static_cast<unsigned>(s.heads),
                  static_cast<unsigned>(s.batch));
  key_gradient_kernel<P><<<grid, kThreads, Offsets::bytes, stream>>>(maps, a);
  return launched("chunk_attention_backward (wgmma, keys)");
}

}  // namespace by_key

}  // namespace

Status wgmma_key_gradient(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? by_key::launch<64>(a, stream) : by_key::launch<128>(a, stream);
}

}  // namespace rat::kernels::cuda::paths
