// Norms of heads: 4 to 32 lanes have one head of one row. Backward: a group of lanes walks rows of one head and keeps
// its share of the weights' gradient in registers; the shares are then summed in order.
#include <algorithm>

#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/head_norm/head_norm.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;
constexpr int64_t largest_head = 1024;  // of backward, which keeps a head in registers

// The sum over the `Lanes` neighbouring lanes of a group, whose other groups may be elsewhere.
template <int Lanes>
__device__ __forceinline__ float group_sum(float x) {
  const unsigned group = threadIdx.x % 32 / Lanes * Lanes;
  const unsigned mask = Lanes == 32 ? 0xffffffffu : ((1u << (Lanes % 32)) - 1u) << group;
#pragma unroll
  for (int step = Lanes / 2; step > 0; step >>= 1) x += __shfl_xor_sync(mask, x, step);
  return x;
}

struct HeadNorm {
  Input x;
  const float* weight;
  Output y;
  int64_t head_size, heads;
  float eps;
  bool add;
};

template <int Lanes>
__global__ void __launch_bounds__(threads) norm_heads(HeadNorm a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (threads / Lanes) + threadIdx.x / Lanes;
  const int64_t row = index / a.heads, at = index % a.heads * a.head_size;
  if (row >= a.x.rows) return;
  const float* x = a.x.data + row * a.x.stride + at;
  float* y = a.y.data + row * a.y.stride + at;
  const int lane = threadIdx.x % Lanes, n = static_cast<int>(a.head_size);
  float squares = 0;
  for (int p = lane; p < n; p += Lanes) squares = fmaf(x[p], x[p], squares);
  const float r = 1.0f / sqrtf(group_sum<Lanes>(squares) / static_cast<float>(n) + a.eps);
  for (int p = lane; p < n; p += Lanes) {
    const float scaled = __fmul_rn(__fmul_rn(x[p], r), a.weight[at + p]);
    y[p] = a.add ? y[p] + scaled : scaled;
  }
}

struct HeadNormGradient {
  Input x;
  const float* weight;
  Input grad_y;
  Output grad_x;
  float* shares;  // (slices, columns)
  int64_t head_size, heads, slices;
  float eps;
};

// A group has the rows slice, slice + slices, ... of one head, `Each` values a lane.
template <int Lanes, int Each>
__global__ void __launch_bounds__(threads) norm_heads_backward(HeadNormGradient a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * (threads / Lanes) + threadIdx.x / Lanes;
  const int64_t slice = index / a.heads, at = index % a.heads * a.head_size;
  if (slice >= a.slices) return;
  const int lane = threadIdx.x % Lanes, n = static_cast<int>(a.head_size);
  const float inverse_size = 1.0f / static_cast<float>(n);
  float share[Each] = {};
  for (int64_t row = slice; row < a.x.rows; row += a.slices) {
    const float* x = a.x.data + row * a.x.stride + at;
    const float* g = a.grad_y.data + row * a.grad_y.stride + at;
    float value[Each], to[Each], squares = 0, along = 0;
#pragma unroll
    for (int j = 0; j < Each; ++j) {
      const int p = lane + j * Lanes;
      value[j] = p < n ? x[p] : 0.0f;
      to[j] = p < n ? g[p] : 0.0f;
      squares = fmaf(value[j], value[j], squares);
      along = fmaf(to[j] * (p < n ? a.weight[at + p] : 0.0f), value[j], along);
    }
    const float r = 1.0f / sqrtf(group_sum<Lanes>(squares) * inverse_size + a.eps);
    const float pull = group_sum<Lanes>(along) * inverse_size * r * r;
    float* grad_x = a.grad_x.data + row * a.grad_x.stride + at;
#pragma unroll
    for (int j = 0; j < Each; ++j) {
      const int p = lane + j * Lanes;
      if (p < n) grad_x[p] = fmaf(-value[j], pull, to[j] * a.weight[at + p]) * r;
      share[j] += to[j] * value[j] * r;
    }
  }
#pragma unroll
  for (int j = 0; j < Each; ++j)
    if (const int p = lane + j * Lanes; p < n) a.shares[slice * a.x.cols + at + p] = share[j];
}

// sums[c] += the sum over rows of shares[row][c].
__global__ void __launch_bounds__(threads) add_shares(const float* shares, int64_t rows, int64_t cols, float* sums) {
  constexpr int parts = threads / 32;
  __shared__ float partial[parts][32];
  const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
  const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (c < cols)
    for (int64_t row = part; row < rows; row += parts) sum += shares[row * cols + c];
  partial[part][lane] = sum;
  __syncthreads();
  if (part != 0 || c >= cols) return;
#pragma unroll
  for (int i = 1; i < parts; ++i) sum += partial[i][lane];
  sums[c] += sum;
}

template <int Lanes>
Status launch(const HeadNorm& a) {
  norm_heads<Lanes><<<blocks_for(a.x.rows * a.heads, threads / Lanes), threads, 0, stream()>>>(a);
  return launched("head_norm");
}

template <int Lanes, int Each>
Status launch(const HeadNormGradient& a) {
  norm_heads_backward<Lanes, Each><<<blocks_for(a.slices * a.heads, threads / Lanes), threads, 0, stream()>>>(a);
  return launched("head_norm_backward");
}

Status launch_backward(const HeadNormGradient& a) {
  const int64_t n = a.head_size;
  if (n <= 4) return launch<4, 1>(a);
  if (n <= 8) return launch<8, 1>(a);
  if (n <= 16) return launch<16, 1>(a);
  if (n <= 32) return launch<32, 1>(a);
  if (n <= 64) return launch<32, 2>(a);
  if (n <= 128) return launch<32, 4>(a);
  if (n <= 256) return launch<32, 8>(a);
  return launch<32, 32>(a);
}

}  // namespace

Status head_norm(const HeadNormArgs& args) {
  if (args.x.rows == 0) return ok();
  const int64_t heads = args.x.cols / args.head_size;
  const HeadNorm a{args.x, args.weight.data(), args.y, args.head_size, heads, args.eps, args.add};
  if (a.head_size <= 4) return launch<4>(a);
  if (a.head_size <= 8) return launch<8>(a);
  if (a.head_size <= 16) return launch<16>(a);
  return launch<32>(a);
}

Status head_norm_backward(const HeadNormBackwardArgs& args) {
  if (args.head_size > largest_head)
    return Error{ErrorCode::unsupported,
                 "head_norm_backward on the GPU takes heads of up to 1,024 values; choose the device cpu"};
  const int64_t rows = args.x.rows, cols = args.x.cols;
  if (rows == 0) return ok();
  const int64_t slices = std::min<int64_t>(512, (rows + 7) / 8);
  auto shares = scratch<float>(0, slices * cols);
  if (!shares) return shares.error();
  RAT_TRY(launch_backward({args.x, args.weight.data(), args.grad_y, args.grad_x, *shares, args.head_size,
                           cols / args.head_size, slices, args.eps}));
  add_shares<<<blocks_for(cols, 32), threads, 0, stream()>>>(*shares, slices, cols, args.grad_weight.data());
  return launched("head_norm_backward");
}

}  // namespace rat::kernels::gpu
