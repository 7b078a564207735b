// Linear attention on the GPU: the states of all tiles at once, their running sums, then each tile by itself.
#include <algorithm>

#include "kernels/cuda_ops.h"
#include "kernels/linear_attention/mma_cuda.h"
#include "kernels/linear_attention/tiles.cuh"

namespace rat::kernels::gpu {
namespace {

using namespace linear;

// The first tokens of each sequence, which see nothing.
__global__ void zero_first(Output out, int64_t tokens, int64_t first) {
  const int64_t row = blockIdx.x / first * tokens + blockIdx.x % first;
  for (int64_t c = threadIdx.x; c < out.cols; c += blockDim.x) out.data[row * out.stride + c] = 0.0f;
}

struct Weights {
  Input q, k;
  Output weights;
  int64_t tokens, shift, tiles;
  int head_size, heads;
};

// phi(q) . phi(k) of one head for a tile of queries and one of keys, where any query sees any.
template <int Wide>
__global__ void __launch_bounds__(threads) weight_tiles(Weights a) {
  extern __shared__ __align__(16) float shared[];
  constexpr int pitch = feature_pitch<Wide>;
  const int64_t key = blockIdx.x % a.tiles * tile, query = blockIdx.x / a.tiles % a.tiles * tile;
  const int64_t sequence = blockIdx.x / a.tiles / a.tiles;  // and head
  if (key > query + tile - 1 - a.shift) return;
  const int64_t first = sequence / a.heads * a.tokens, column = sequence % a.heads * a.head_size;
  const int queries = static_cast<int>(min(static_cast<int64_t>(tile), a.tokens - query));
  const int keys = static_cast<int>(min(static_cast<int64_t>(tile), a.tokens - key));
  float *const q = shared, *const k = q + tile * pitch, *const cells = k + tile * pitch;
  load_features<Wide, 2>(q, pitch, a.q.data + (first + query) * a.q.stride + column, a.q.stride, queries, a.head_size);
  load_features<Wide, 2>(k, pitch, a.k.data + (first + key) * a.k.stride + column % a.k.cols, a.k.stride, keys,
                         a.head_size);
  __syncthreads();
  pair_products<2 * Wide>(q, k, pitch, Seen::all, cells);
  __syncthreads();
  float* const to = a.weights.data + (sequence * a.tokens + query) * a.weights.stride + key;
  for (int i = threadIdx.x; i < tile * tile; i += threads)
    if (i / tile < queries && i % tile < keys)
      to[i / tile * a.weights.stride + i % tile] = cells[i / tile * cell_pitch + i % tile];
}

// One row: shares of what is seen, NaN elsewhere.
__global__ void __launch_bounds__(threads) share_rows(Output weights, int64_t tokens, int64_t shift) {
  float* const row = weights.data + blockIdx.x * weights.stride;
  const int64_t seen = max(int64_t{0}, blockIdx.x % tokens - shift + 1);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < seen; i += threads) sum += static_cast<double>(row[i]);
  sum = block_sum<threads>(sum);
  for (int64_t i = threadIdx.x; i < tokens; i += threads)
    row[i] = i < seen ? static_cast<float>(static_cast<double>(row[i]) / sum) : __int_as_float(0x7fc00000);
}

// state += the sum over the tiles, in order; states are padded, the state is not.
__global__ void __launch_bounds__(threads) add_states(const float* states, int64_t tiles, int wide, int head_size,
                                                      Output state) {
  const int64_t row = blockIdx.x;  // of the state: (head, half, channel)
  const int64_t head = row / (2 * head_size), half = row / head_size % 2, channel = row % head_size;
  const int64_t size = int64_t{2} * wide * wide;
  for (int p = threadIdx.x; p < head_size; p += threads) {
    const float* from = states + head * tiles * size + (half * wide + channel) * wide + p;
    float sum = 0;
#pragma unroll 8
    for (int64_t i = 0; i < tiles; ++i) sum += from[i * size];
    state.data[row * state.stride + p] += sum;
  }
}

// phi of one head of one row, into shared memory: the first two warps have a half each.
__device__ void row_features(float* features, const float* row, int head_size) {
  const int lane = threadIdx.x % 32, half = threadIdx.x / 32;
  if (half < 2) {
    const float sign = half == 0 ? 1.0f : -1.0f;
    float largest = -INFINITY, sum = 0;
    for (int p = lane; p < head_size; p += 32) largest = fmaxf(largest, sign * row[p]);
    largest = cuda::largest_over_lanes(largest);
    for (int p = lane; p < head_size; p += 32)
      sum += features[half * head_size + p] = expf(sign * row[p] - largest);
    const float scale = 1.0f / warp_sum(sum);
    for (int p = lane; p < head_size; p += 32) features[half * head_size + p] *= scale;
  }
  __syncthreads();
}

// One row of each sequence: a block adds phi(k)^T v of one head to its state. Rounded as the tiles' sums are.
__global__ void __launch_bounds__(threads) add_row(Input k, Input v, Output state, int head_size) {
  __shared__ float features[256];
  const int64_t heads = k.cols / head_size, b = blockIdx.x / heads, at = blockIdx.x % heads * head_size;
  row_features(features, k.row(b) + at, head_size);
  const float* const value = v.row(b) + at;
  float* const to = state.row(blockIdx.x * int64_t{2} * head_size);
  for (int i = threadIdx.x; i < 2 * head_size * head_size; i += threads) {
    const int f = i / head_size, p = i % head_size;
    to[f * state.stride + p] = __fadd_rn(to[f * state.stride + p], __fmul_rn(features[f], value[p]));
  }
}

// One head of one sequence's query: phi(q) in shared memory, then each thread a slice of the features for one column.
__global__ void __launch_bounds__(threads) read_state(Input q, Input state, Output out, int head_size) {
  __shared__ float features[256], parts[threads];
  const int64_t heads = q.cols / head_size, b = blockIdx.x / heads, head = blockIdx.x % heads, at = head * head_size;
  const int64_t kv_heads = state.rows / (2 * head_size) / q.rows;
  const int64_t first = (b * kv_heads + head % kv_heads) * 2 * head_size;
  const int slices = threads / head_size;
  row_features(features, q.row(b) + at, head_size);
  const int p = threadIdx.x % head_size, slice = threadIdx.x / head_size;
  float sum = 0;
  if (slice < slices)
    for (int f = slice; f < 2 * head_size; f += slices)
      sum = fmaf(features[f], state.data[(first + f) * state.stride + p], sum);
  parts[threadIdx.x] = sum;
  __syncthreads();
  if (slice != 0) return;
  for (int i = 1; i < slices; ++i) sum += parts[i * head_size + p];
  out.row(b)[at + p] = sum;
}

template <int Wide>
Status attend_tiles(const LinearAttentionArgs& a, const Plan& plan) {
  const Side queries{a.q, {}, a.shift}, keys{a.k, a.v, 0};
  auto states = summed_states<Wide, false>("linear_attention", plan.with_units(plan.groups, 1), keys);
  if (!states) return states.error();
  return launch("linear_attention", attend<Wide, false>, plan.blocks(), attend_shared<Wide>, plan, queries, keys,
                static_cast<const float*>(*states), a.out);
}

}  // namespace

Status linear_attention(const LinearAttentionArgs& args) {
  const Plan plan(args);
  if (const int64_t unseeing = std::min(args.shift, args.tokens); unseeing > 0) {
    zero_first<<<static_cast<unsigned>(plan.batch * unseeing), 128, 0, stream()>>>(args.out, args.tokens, unseeing);
    RAT_TRY(launched("linear_attention"));
  }
  if (plan.length == 0) return ok();
  if (takes_tensor_cores(args)) return attend_on_tensor_cores<float>(call_of(args), args.out);
  return with_padded_head(args.head_size, [&](auto wide) { return attend_tiles<wide()>(args, plan); });
}

Status linear_weights(const LinearWeightsArgs& args) {
  const LinearAttentionArgs& f = args.forward;
  const Weights a{f.q, f.k, args.weights, f.tokens, f.shift, (f.tokens + tile - 1) / tile,
                  static_cast<int>(f.head_size), static_cast<int>(f.heads)};
  const int64_t sequences = f.q.rows / f.tokens * f.heads;
  RAT_TRY(with_padded_head(f.head_size, [&](auto wide) {
    return launch("linear_weights", weight_tiles<wide()>, sequences * a.tiles * a.tiles, attend_shared<wide()>, a);
  }));
  share_rows<<<static_cast<unsigned>(sequences * f.tokens), threads, 0, stream()>>>(args.weights, f.tokens, f.shift);
  return launched("linear_weights");
}

Status linear_absorb(const LinearAbsorbArgs& args) {
  if (args.k.rows == 0) return ok();
  const int64_t heads = args.k.cols / args.head_size, states_kept = args.state.rows / (2 * args.head_size);
  if (args.k.rows * heads == states_kept)
    return with_padded_head(args.head_size, [&](auto) {
      add_row<<<static_cast<unsigned>(states_kept), threads, 0, stream()>>>(args.k, args.v, args.state,
                                                                            static_cast<int>(args.head_size));
      return launched("linear_absorb");
    });
  LinearAttentionArgs all;  // sequences all of whose keys are summed
  all.tokens = args.k.rows / (states_kept / heads);
  all.heads = heads;
  all.head_size = args.head_size;
  all.q = all.k = args.k;
  const Plan plan(all);
  return with_padded_head(args.head_size, [&](auto wide) -> Status {
    auto states = scratch<float>(0, plan.batch * plan.groups * plan.tiles * state_size<wide()>);
    if (!states) return states.error();
    RAT_TRY((sum_tiles<wide()>("linear_absorb", plan, Side{args.k, args.v, 0}, *states)));
    add_states<<<static_cast<unsigned>(args.state.rows), threads, 0, stream()>>>(*states, plan.tiles, wide(),
                                                                                 plan.head_size, args.state);
    return launched("linear_absorb");
  });
}

Status linear_read(const LinearReadArgs& args) {
  return with_padded_head(args.head_size, [&](auto) {
    read_state<<<static_cast<unsigned>(args.q.rows * (args.q.cols / args.head_size)), threads, 0, stream()>>>(
        args.q, args.state, args.out, static_cast<int>(args.head_size));
    return launched("linear_read");
  });
}

}  // namespace rat::kernels::gpu
