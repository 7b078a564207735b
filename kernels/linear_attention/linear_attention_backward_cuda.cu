// Gradients of linear attention. Of the queries through the states of earlier keys; of keys and values through the
// states of later queries, which are sums over the heads that share them.
#include "kernels/cuda_ops.h"
#include "kernels/linear_attention/mma_cuda.h"
#include "kernels/linear_attention/tiles.cuh"

namespace rat::kernels::gpu {
namespace {

using namespace linear;

// to[p][f] = state[f][first + p] for the 2 Wide features and Slice channels. A thread turns 4 x 4 at a time; 8 lanes
// write 128 bytes of a row, and read 64 of each row with the 3 other groups of 8.
template <int Wide, int Slice>
__device__ void load_transposed(float* to, const float* state, int first) {
  for (int i = threadIdx.x; i < 2 * Wide / 4 * (Slice / 4); i += threads) {
    const int f = (i % 8 + i / 32 % (Wide / 16) * 8) * 4, p = (i / 8 % 4 + i / (2 * Wide) * 4) * 4;
    float rows[4][4];
#pragma unroll
    for (int r = 0; r < 4; ++r) cuda::load<4>(state + (f + r) * Wide + first + p, rows[r]);
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float column[4] = {rows[0][c], rows[1][c], rows[2][c], rows[3][c]};
      cuda::store<4>(to + (p + c) * (2 * Wide) + f, column);
    }
  }
}

// Over the 16 threads that have a row.
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
  for (int step = 8; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// to += the gradient through phi, given that of the features: for softmax(sign x), sign s (grad - s . grad).
template <int Wide>
__device__ void add_feature_gradient(const float (&grad)[4][Wide / 8], const float* features, float* to, int64_t stride,
                                     int rows, int head_size) {
  constexpr int each = Wide / 16;
  const int x = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = threadIdx.x / 16 + 16 * i;
    const float *const plus = features + row * feature_pitch<Wide>, *const minus = plus + Wide;
    float of_plus = 0.0f, of_minus = 0.0f;
#pragma unroll
    for (int j = 0; j < each; ++j) {
      of_plus = fmaf(plus[column_of<Wide>(j, x)], grad[i][j], of_plus);
      of_minus = fmaf(minus[column_of<Wide>(j, x)], grad[i][each + j], of_minus);
    }
    of_plus = row_sum(of_plus);
    of_minus = row_sum(of_minus);
#pragma unroll
    for (int j = 0; j < each; ++j) {
      const int column = column_of<Wide>(j, x);
      if (row < rows && column < head_size)
        to[row * stride + column] +=
            plus[column] * (grad[i][j] - of_plus) - minus[column] * (grad[i][each + j] - of_minus);
    }
  }
}

// gradient += that of the rows' features: (values_of_rows . values_of_columns, masked) times features_of_columns, plus
// values_of_rows times the transposed state. Rows are queries, columns keys; with Later the other way round.
template <int Wide, bool Later>
__global__ void __launch_bounds__(threads) feature_gradient(Plan plan, Side rows, Side columns, const float* states,
                                                            Output gradient) {
  extern __shared__ __align__(16) float shared[];
  constexpr int pitch = row_pitch<Wide>, wide_pitch = feature_pitch<Wide>, slice = Wide < 64 ? Wide : 64;
  static_assert(slice * 2 * Wide <= tile * wide_pitch);
  float *const row_values = shared, *const column_values = row_values + tile * pitch;
  float *const cells = column_values + tile * pitch, *const features = cells + tile * cell_pitch;
  const Place place(plan, blockIdx.x);
  load_rows<Wide>(row_values, pitch, place.rows_of(plan, rows.values, rows.shift, place.unit), rows.values.stride,
                  place.rows, plan.head_size);
  float acc[4][Wide / 8] = {};
  for (int member = 0; member < plan.members; ++member) {
    const int head = place.unit + member * plan.units;
    load_rows<Wide>(column_values, pitch, place.rows_of(plan, columns.values, columns.shift, head),
                    columns.values.stride, place.rows, plan.head_size);
    load_features<Wide, 2>(features, wide_pitch, place.rows_of(plan, columns.features, columns.shift, head),
                           columns.features.stride, place.rows, plan.head_size);
    __syncthreads();
    pair_products<Wide>(row_values, column_values, pitch, Later ? Seen::from_own : Seen::up_to_own, cells);
    __syncthreads();
    multiply<tile, Wide, 2>(cells, cell_pitch, features, wide_pitch, acc);
    __syncthreads();
  }
  const float* const state = place.state<Wide>(plan, states);
  for (int begin = 0; begin < Wide; begin += slice) {
    load_transposed<Wide, slice>(features, state, begin);
    __syncthreads();
    multiply<slice, Wide, 2>(row_values + begin, pitch, features, 2 * Wide, acc);
    __syncthreads();
  }
  load_features<Wide, 2>(features, wide_pitch, place.rows_of(plan, rows.features, rows.shift, place.unit),
                         rows.features.stride, place.rows, plan.head_size);
  __syncthreads();
  add_feature_gradient<Wide>(acc, features, place.rows_of(plan, gradient, rows.shift, place.unit), gradient.stride,
                             place.rows, plan.head_size);
}
template <int Wide>
constexpr int64_t gradient_shared = tile * (2 * row_pitch<Wide> + cell_pitch + feature_pitch<Wide>);

template <int Wide>
Status backward(const LinearAttentionBackwardArgs& args, const Plan& plan) {
  constexpr const char* op = "linear_attention_backward";
  const LinearAttentionArgs& a = args.forward;
  const Side queries{a.q, args.grad_out, a.shift}, keys{a.k, a.v, 0};
  auto earlier = summed_states<Wide, false>(op, plan.with_units(plan.groups, 1), keys);
  if (!earlier) return earlier.error();
  RAT_TRY(launch(op, feature_gradient<Wide, false>, plan.blocks(), gradient_shared<Wide>, plan, queries, keys,
                 static_cast<const float*>(*earlier), args.grad_q));
  const Plan shared_keys = plan.with_units(plan.groups, plan.heads / plan.groups);
  auto later = summed_states<Wide, true>(op, shared_keys, queries);
  if (!later) return later.error();
  RAT_TRY(launch(op, feature_gradient<Wide, true>, shared_keys.blocks(), gradient_shared<Wide>, shared_keys, keys,
                 queries, static_cast<const float*>(*later), args.grad_k));
  return launch(op, attend<Wide, true>, shared_keys.blocks(), attend_shared<Wide>, shared_keys, keys, queries,
                static_cast<const float*>(*later), args.grad_v);
}

}  // namespace

Status linear_attention_backward(const LinearAttentionBackwardArgs& args) {
  const Plan plan(args.forward);
  if (plan.length == 0) return ok();
  if (takes_tensor_cores(args.forward))
    return gradients_on_tensor_cores<float>(call_of(args.forward), {args.grad_out, args.grad_q, args.grad_k, args.grad_v});
  return with_padded_head(args.forward.head_size, [&](auto wide) { return backward<wide()>(args, plan); });
}

}  // namespace rat::kernels::gpu
