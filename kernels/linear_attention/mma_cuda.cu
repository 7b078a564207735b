// The walk of tiles.cuh with products of mma.sync: features, values and gradients are rounded once for a call, where they
// are not bf16 already, then a block has a tile (mma_parts.cuh).
#include <algorithm>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/capability.h"
#include "kernels/layer_step/layer_step_cuda.h"
#include "kernels/linear_attention/mma_cuda.h"
#include "kernels/linear_attention/mma_parts.cuh"

namespace rat::kernels::gpu::linear {
namespace tensor_cores {
namespace {

template <int N>
__device__ __forceinline__ void read(const float* from, float (&to)[N]) {
  if (reinterpret_cast<uintptr_t>(from) % (4 * N) == 0) return cuda::load<N>(from, to);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = from[i];
}

template <int N>
__device__ __forceinline__ void read(const bf16* from, float (&to)[N]) {
  cuda::load<N>(from, to);
}

// What is read of one input: rounded as it is, or phi of its heads: softmax(x), then softmax(-x). A lane has 8 channels.
template <class T>
struct Rounding {
  Rows<const T> x;
  bf16* to;
  bool features;
};
template <class T>
struct Roundings {
  Rounding<T> inputs[4];
  int count;
};
template <int P, class T>
__global__ void __launch_bounds__(threads) round_inputs(const __grid_constant__ Roundings<T> all) {
  constexpr int each = 8, lanes = P / each;
  const Rounding<T>& one = all.inputs[blockIdx.y];
  const int64_t heads = one.x.cols / P, item = int64_t{blockIdx.x} * (threads / lanes) + threadIdx.x / lanes;
  const bool exists = item < one.x.rows * heads;  // all lanes take part in what follows
  const int channel = threadIdx.x % lanes * each;
  float x[each] = {};
  if (exists) read(one.x.row(item / heads) + item % heads * P + channel, x);
  if (!one.features) {
    if (exists) cuda::store<each>(one.to + item * P + channel, x);
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sign = half == 0 ? 1.0f : -1.0f;
    float largest = sign * x[0], sum = 0.0f, y[each];
#pragma unroll
    for (int j = 1; j < each; ++j) largest = fmaxf(largest, sign * x[j]);
    largest = cuda::largest_over_lanes<lanes>(largest);
#pragma unroll
    for (int j = 0; j < each; ++j) sum += y[j] = tiles::exp2_fast((sign * x[j] - largest) * tiles::kLog2e);
    const float scale = 1.0f / cuda::sum_over_lanes<lanes>(sum);
#pragma unroll
    for (int j = 0; j < each; ++j) y[j] *= scale;
    if (exists) cuda::store<each>(one.to + (item * 2 + half) * P + channel, y);
  }
}

template <int P>
__device__ bf16* state_of(const Plan& plan, const Place& place, bf16* states) {
  return states + ((place.batch * plan.groups + place.unit % plan.groups) * plan.tiles + place.tile_index) * 2 * P * P;
}

// For each sequence and group, the sum over its unit's heads of phi(features)^T values of each tile. A block has 128 of
// the features.
constexpr int state_features = 128;
template <class S>
constexpr int state_blocks = 2 * S::P / state_features;
template <class S>
constexpr int state_bytes = S::bytes(state_features) + S::bytes(S::P);
template <class S>
__global__ void __launch_bounds__(S::block, S::P == 64 ? 3 : 2) tile_states(Plan plan, PackedSide side, bf16* states) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int P = S::P, F = state_features, M = F / 16 / S::warps;
  const uint32_t left_tile = tiles::shared_address(shared), right_tile = left_tile + S::bytes(F);
  const Place place(plan, blockIdx.x / state_blocks<S>);
  const int part = blockIdx.x % state_blocks<S>, lane = threadIdx.x % 32, first = threadIdx.x / 32 * M * 16;
  float sums[M][P / 8][4] = {};
  for (int member = 0; member < plan.members; ++member) {
    const int head = place.unit + member * plan.units;
    if (member > 0) __syncthreads();
    copy_rows<S, S::tile, F>(left_tile, side.features.rows_of(plan, place, side.shift, head, 2 * P) + part * F,
                             side.features.stride, place.rows);
    copy_rows<S, S::tile, P>(right_tile, side.values.rows_of(plan, place, side.shift, head, P), side.values.stride,
                             place.rows);
    await_copies();
#pragma unroll 2
    for (int k = 0; k < S::tile / 16; ++k) {
      uint32_t left[M][4];
#pragma unroll
      for (int m = 0; m < M; ++m)  // tokens are rows in memory, and columns of this operand
        tiles::load_matrices_transposed(left[m],
                                        left_tile + tiles::piece_at<F>(k * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                                       (first + m * 16) / 8 + ((lane >> 3) & 1)));
#pragma unroll
      for (int n = 0; n < P / 8; n += 2) {
        uint32_t right[4];
        tiles::load_matrices_transposed(
            right, right_tile + tiles::piece_at<P>(k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3), n + (lane >> 4)));
#pragma unroll
        for (int m = 0; m < M; ++m) {
          tiles::mma(sums[m][n], left[m], right[0], right[1]);
          tiles::mma(sums[m][n + 1], left[m], right[2], right[3]);
        }
      }
    }
  }
  bf16* const state = state_of<P>(plan, place, states) + part * F * P;
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        const float pair[2] = {sums[m][n][i], sums[m][n][i + 1]};
        cuda::store<2>(state + (first + m * 16 + lane / 4 + i / 2 * 8) * P + column_of(n, 0), pair);
      }
}

// The state of each tile becomes the sum over all earlier (or later) tiles of its sequence, added in f32. A thread has
// eight elements.
template <bool Later>
__global__ void __launch_bounds__(threads) running_sums(bf16* states, int64_t sequences, int64_t tiles, int64_t size) {
  constexpr int each = 8, ahead = 8;  // loads in flight
  const int64_t index = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * each;
  if (index >= sequences * size) return;
  bf16* const state = states + index / size * tiles * size + index % size;
  float sum[each] = {};
  for (int64_t begin = 0; begin < tiles; begin += ahead) {
    cuda::Pack<bf16, each> own[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i)
      if (begin + i < tiles) own[i] = cuda::load<each>(state + (Later ? tiles - 1 - begin - i : begin + i) * size);
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      if (begin + i >= tiles) break;
      cuda::store<each>(state + (Later ? tiles - 1 - begin - i : begin + i) * size, sum);
      float more[each];
      cuda::unpack(own[i], more);
#pragma unroll
      for (int j = 0; j < each; ++j) sum[j] += more[j];
    }
  }
}

// As attend of tiles.cuh. Wide: the state comes while the tile itself is multiplied; else it takes the place of the tile's
// features and values.
template <class S, bool Later, class T>
__global__ void __launch_bounds__(S::block, S::P == 64 || !S::wide ? 2 : 1)
    attend(Plan plan, PackedSide rows, PackedSide columns, const bf16* states, Rows<T> out) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int P = S::P;
  const uint32_t own_tile = tiles::shared_address(shared), other_tile = own_tile + S::bytes(2 * P);
  const uint32_t value_tile = other_tile + S::bytes(2 * P);
  const uint32_t state_tile = S::wide ? value_tile + S::bytes(P) : other_tile;
  const Place place(plan, blockIdx.x);
  const auto copy_state = [&] {
    copy_rows<S, 2 * P, P>(state_tile, state_of<P>(plan, place, const_cast<bf16*>(states)), P, 2 * P);
  };
  copy_rows<S, S::tile, 2 * P>(own_tile, rows.features.rows_of(plan, place, rows.shift, place.unit, 2 * P),
                               rows.features.stride, place.rows);
  float sums[1][P / 8][4] = {};
  for (int member = 0; member < plan.members; ++member) {
    const int head = place.unit + member * plan.units;
    copy_rows<S, S::tile, 2 * P>(other_tile, columns.features.rows_of(plan, place, columns.shift, head, 2 * P),
                                 columns.features.stride, place.rows);
    copy_rows<S, S::tile, P>(value_tile, columns.values.rows_of(plan, place, columns.shift, head, P),
                             columns.values.stride, place.rows);
    if (S::wide && member == 0) {
      tiles::commit_copies();
      copy_state();
      await_copies<1>();
    } else {
      await_copies();
    }
    add_seen<S, 2 * P, Later>(sums, own_tile, other_tile, value_tile);
    if (!S::wide || member + 1 < plan.members) __syncthreads();
  }
  if (!S::wide) copy_state();
  await_copies();
  multiply_rows<2 * P, P>(sums, own_tile, state_tile);
  // A warp's own features lie where it puts its sums, and nobody else needs them.
  put_rows<P, Later>(sums[0], reinterpret_cast<float*>(shared), plan, place, rows.shift, out);
}
template <class S>
constexpr int attend_bytes = S::bytes(2 * S::P) + (S::wide ? S::bytes(3 * S::P) + 4 * S::P * S::P
                                                           : std::max(S::bytes(3 * S::P), 4 * S::P * S::P));

// As feature_gradient of tiles.cuh, one half of the features after the other. Where there is room for both, the second comes
// while the first is multiplied.
template <class S>
constexpr int half_bytes = S::bytes(2 * S::P) + 2 * S::P * S::P;  // own features, the tile's, the state
template <class S>
constexpr bool both_halves = S::wide && S::P == 64;
template <class S, bool Later, class T>
__global__ void __launch_bounds__(S::block, S::P == 64 || !S::wide ? 2 : 1)
    feature_gradient(Plan plan, PackedSide rows, PackedSide columns, const bf16* states, Rows<T> gradient) {
  extern __shared__ __align__(128) unsigned char shared[];
  constexpr int P = S::P;
  constexpr bool both = both_halves<S>;
  const uint32_t own_tile = tiles::shared_address(shared), value_tile = own_tile + S::bytes(P);
  const auto own_features_of = [&](int half) { return value_tile + S::bytes(P) + (both ? half : 0) * half_bytes<S>; };
  const auto features_of = [&](int half) { return own_features_of(half) + S::bytes(P); };
  const auto state_tile_of = [&](int half) { return features_of(half) + S::bytes(P); };
  const Place place(plan, blockIdx.x);
  const auto copy_half = [&](int half, int head) {
    copy_rows<S, S::tile, P>(features_of(half),
                             columns.features.rows_of(plan, place, columns.shift, head, 2 * P) + half * P,
                             columns.features.stride, place.rows);
  };
  const auto copy_own_half = [&](int half) {
    copy_rows<S, P, P>(state_tile_of(half), state_of<P>(plan, place, const_cast<bf16*>(states)) + half * P * P, P, P);
    copy_rows<S, S::tile, P>(own_features_of(half),
                             rows.features.rows_of(plan, place, rows.shift, place.unit, 2 * P) + half * P,
                             rows.features.stride, place.rows);
  };
  const bool alone = plan.members == 1;
  copy_rows<S, S::tile, P>(own_tile, rows.values.rows_of(plan, place, rows.shift, place.unit, P), rows.values.stride,
                           place.rows);
  float total[P / 8][4] = {};
#pragma unroll 1
  for (int half = 0; half < 2; ++half) {
    const bool here = half == 1 && both && alone;  // came with the first half
    if (half == 0 || !both) copy_own_half(half);
    float grad[1][P / 8][4] = {};
    for (int member = 0; member < plan.members; ++member) {
      const int head = place.unit + member * plan.units;
      if (half == 0 || !alone)
        copy_rows<S, S::tile, P>(value_tile, columns.values.rows_of(plan, place, columns.shift, head, P),
                                 columns.values.stride, place.rows);
      if (!here) copy_half(half, head);
      if (both && half == 0 && member == 0) {
        tiles::commit_copies();
        copy_own_half(1);
        if (alone) copy_half(1, head);
        await_copies<1>();
      } else {
        await_copies();
      }
      add_seen<S, P, Later>(grad, own_tile, value_tile, features_of(half));
      if (member + 1 < plan.members) __syncthreads();
    }
    tiles::multiply_transposed<1, P / 8, P>(grad, own_tile, threadIdx.x / 32 * warp_rows, state_tile_of(half));
    add_through_softmax<P>(total, grad[0], own_features_of(half), half == 0 ? 1.0f : -1.0f);
    if (half == 1 || !both || !alone) __syncthreads();
  }
  put_rows<P, true>(total, reinterpret_cast<float*>(shared), plan, place, rows.shift, gradient);
}
template <class S>
constexpr int gradient_bytes = S::bytes(2 * S::P) + (both_halves<S> ? 2 : 1) * half_bytes<S>;

// What a block asks for at most.
template <class S>
constexpr int most_bytes = std::max({state_bytes<S>, attend_bytes<S>, gradient_bytes<S>});
static_assert(most_bytes<Sizes<64, false>> <= 99 * 1024 && most_bytes<Sizes<128, false>> <= 99 * 1024);

// run(Sizes) with the widest that the device has room for.
template <class Run>
auto with_sizes(int64_t head_size, const Run& run) {
  static const int room = cuda::shared_memory_of_block();
  const auto of = [&](auto wide, auto narrow) { return most_bytes<decltype(wide)> <= room ? run(wide) : run(narrow); };
  return head_size == 64 ? of(Sizes<64, true>(), Sizes<64, false>()) : of(Sizes<128, true>(), Sizes<128, false>());
}

template <class S, class Kernel, class... Args>
Status start(const char* op, Kernel* kernel, int64_t blocks, int bytes, const Args&... args) {
  if (blocks > INT_MAX)
    return Error{ErrorCode::unsupported,
                 "linear attention on the GPU: the batch has too many tiles; use a smaller batch"};
  RAT_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), op));
  kernel<<<static_cast<unsigned>(blocks), S::block, static_cast<unsigned>(bytes), stream()>>>(args...);
  return launched(op);
}

// What a call multiplies: features, and what is not bf16, in scratch block 1.
struct Inputs {
  PackedSide queries, keys;

  template <int P, class T>
  static Result<Inputs> of(const char* op, const Call<T>& a, const Rows<const T>& grad_out) {
    constexpr bool is_rounded = std::is_same_v<T, bf16>;
    std::size_t bytes = 0;
    Roundings<T> all{{{a.q, nullptr, true}, {a.k, nullptr, true}, {a.v, nullptr, false}, {grad_out, nullptr, false}},
                     is_rounded                 ? 2
                     : grad_out.data == nullptr ? 3
                                                : 4};
    const auto cut = [&](void* block) {
      Cutter cutter(block);
      for (int i = 0; i < all.count; ++i) {
        Rounding<T>& one = all.inputs[i];
        one.to = cutter.take<bf16>(one.x.rows * one.x.cols * (one.features ? 2 : 1));
      }
      bytes = cutter.used();
    };
    cut(nullptr);
    RAT_ASSIGN(void* const block, scratch_bytes(1, bytes));
    cut(block);
    const int64_t most = a.q.rows * a.q.cols / P;  // heads of rows; keys and values have as many or fewer
    round_inputs<P, T>
        <<<dim3(blocks_for(most, threads / (P / 8)), static_cast<unsigned>(all.count)), threads, 0, stream()>>>(all);
    RAT_TRY(launched(op));
    const auto packed = [&](int i) {
      const Rounding<T>& one = all.inputs[i];
      const int64_t width = one.x.cols * (one.features ? 2 : 1);
      if constexpr (is_rounded)
        if (i >= all.count) return Packed{one.x.data, width, one.x.stride};
      return Packed{one.to, width, width};
    };
    return Inputs{{packed(0), packed(3), a.shift}, {packed(1), packed(2), 0}};
  }
};

// In scratch block 0: for each tile the sum of phi(features)^T values over all earlier (or later) ones.
template <class S, bool Later>
Result<const bf16*> states_between(const char* op, const Plan& plan, const PackedSide& side) {
  constexpr int64_t size = 2 * S::P * S::P;
  const int64_t sequences = plan.batch * plan.groups;
  RAT_ASSIGN(bf16* const states, scratch<bf16>(0, sequences * plan.tiles * size));
  RAT_TRY(start<S>(op, tile_states<S>, state_blocks<S> * plan.blocks(), state_bytes<S>, plan, side, states));
  running_sums<Later>
      <<<blocks_for(sequences * size / 8, threads), threads, 0, stream()>>>(states, sequences, plan.tiles, size);
  RAT_TRY(launched(op));
  return static_cast<const bf16*>(states);
}

template <class S, class T>
Status forward(const Call<T>& a, const Rows<T>& out) {
  constexpr const char* op = "linear_attention";
  const Plan plan(a, S::tile);
  RAT_ASSIGN(const Inputs in, (Inputs::of<S::P, T>(op, a, {})));
  RAT_ASSIGN(const bf16* const states, (states_between<S, false>(op, plan.with_units(plan.groups, 1), in.keys)));
  return start<S>(op, attend<S, false, T>, plan.blocks(), attend_bytes<S>, plan, in.queries, in.keys, states, out);
}

template <class S, class T>
Status backward(const Call<T>& a, const Gradients<T>& grad) {
  constexpr const char* op = "linear_attention_backward";
  const Plan plan(a, S::tile);
  RAT_ASSIGN(const Inputs in, (Inputs::of<S::P, T>(op, a, grad.out)));
  RAT_ASSIGN(const bf16* const earlier, (states_between<S, false>(op, plan.with_units(plan.groups, 1), in.keys)));
  RAT_TRY(start<S>(op, feature_gradient<S, false, T>, plan.blocks(), gradient_bytes<S>, plan, in.queries, in.keys,
                   earlier, grad.q));
  const Plan shared_keys = plan.with_units(plan.groups, plan.heads / plan.groups);
  RAT_ASSIGN(const bf16* const later, (states_between<S, true>(op, shared_keys, in.queries)));
  RAT_TRY(start<S>(op, feature_gradient<S, true, T>, shared_keys.blocks(), gradient_bytes<S>, shared_keys, in.keys,
                   in.queries, later, grad.k));
  return start<S>(op, attend<S, true, T>, shared_keys.blocks(), attend_bytes<S>, shared_keys, in.keys, in.queries,
                  later, grad.v);
}

}  // namespace
}  // namespace tensor_cores

bool takes_tensor_cores(const LinearAttentionArgs& a) { return a.dtype == Dtype::bf16 && on_tensor_cores(a.head_size); }

template <class T>
Status attend_on_tensor_cores(const Call<T>& a, const Rows<T>& out) {
  return tensor_cores::with_sizes(a.head_size, [&](auto sizes) { return tensor_cores::forward<decltype(sizes)>(a, out); });
}

template <class T>
Status gradients_on_tensor_cores(const Call<T>& a, const Gradients<T>& grad) {
  return tensor_cores::with_sizes(a.head_size, [&](auto sizes) { return tensor_cores::backward<decltype(sizes)>(a, grad); });
}

template Status attend_on_tensor_cores(const Call<float>&, const Rows<float>&);
template Status attend_on_tensor_cores(const Call<__nv_bfloat16>&, const Rows<__nv_bfloat16>&);
template Status gradients_on_tensor_cores(const Call<float>&, const Gradients<float>&);
template Status gradients_on_tensor_cores(const Call<__nv_bfloat16>&, const Gradients<__nv_bfloat16>&);

}  // namespace rat::kernels::gpu::linear
