#include "kernels/cuda/head_norms.h"

#include <algorithm>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256, N = 8;  // channels of a thread: P / 8 neighbouring lanes have a head

// Groups of lanes that share the rows of a head in backward, for all heads together, by shape alone.
int64_t slices_of(const RatShape& s) {
  constexpr int64_t threads = int64_t{1} << 18;
  return std::clamp<int64_t>(threads / (s.channels() / N), 1, s.rows());
}

template <int Lanes>
__device__ __forceinline__ float factor_of(const float (&x)[N], float epsilon) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < N; ++i) squares = fmaf(x[i], x[i], squares);
  return rsqrtf(sum_over_lanes<Lanes>(squares) / static_cast<float>(Lanes * N) + epsilon);
}

template <int Lanes>
__global__ void __launch_bounds__(kThreads) head_norms_kernel(HeadNormsArgs a, int64_t pieces) {
  const int64_t piece = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool exists = piece < pieces;
  const int64_t at = exists ? piece * N : 0;
  const int64_t column = at % a.shape.channels();
  float y[N] = {};
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    if (a.x[part] == nullptr) break;
    float x[N], weight[N];
    load<N>(a.x[part] + at, x);
    load<N>(a.weight[part] + column, weight);
    const float r = factor_of<Lanes>(x, a.epsilon);
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] = fmaf(x[i] * r, weight[i], y[i]);
  }
  if (exists) store<N>(a.y + at, y);
}

// A group of lanes has rows slice, slice + slices, ... of one head, and keeps its share of the weights' gradients.
template <int Lanes>
__global__ void __launch_bounds__(kThreads) head_norms_backward_kernel(HeadNormsBackwardArgs a, int64_t slices) {
  const HeadNormsArgs& f = a.forward;
  const RatShape& s = f.shape;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x, D = s.channels();
  const int64_t column = thread * N % D, slice = thread * N / D, h = column / s.head_size;
  float weight[2][N], share[2][N] = {};
#pragma unroll
  for (int part = 0; part < 2; ++part)
    if (f.x[part] != nullptr) load<N>(f.weight[part] + column, weight[part]);
  const int64_t steps = (s.rows() + slices - 1) / slices;  // the same for all lanes of a warp
  for (int64_t step = 0; step < steps; ++step) {
    const int64_t row = slice + step * slices;
    const bool exists = slice < slices && row < s.rows();
    const int64_t at = exists ? row * D + column : column;
    float grad[N];
    load<N>(a.grad_y + at, grad);
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      if (f.x[part] == nullptr) break;
      float x[N], grad_x[N], along = 0.0f, delta = 0.0f;
      load<N>(f.x[part] + at, x);
      const float r = factor_of<Lanes>(x, f.epsilon);
#pragma unroll
      for (int i = 0; i < N; ++i) along = fmaf(grad[i] * weight[part][i], x[i], along);
      const float pull = sum_over_lanes<Lanes>(along) / static_cast<float>(Lanes * N) * r * r;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        grad_x[i] = r * fmaf(-x[i], pull, grad[i] * weight[part][i]);
        delta = fmaf(grad_x[i], x[i], delta);
        if (exists) share[part][i] = fmaf(grad[i] * x[i], r, share[part][i]);
      }
      if (exists) store<N>(a.grad_x[part] + at, grad_x);
      if (part > 0 || a.delta == nullptr) continue;
      delta = sum_over_lanes<Lanes>(delta);
      if (exists && threadIdx.x % Lanes == 0)
        a.delta[(row / s.tokens * s.heads + h) * s.tokens + row % s.tokens] = delta;
    }
  }
  if (slice >= slices) return;
#pragma unroll
  for (int part = 0; part < 2; ++part)
    if (f.x[part] != nullptr) store<N>(a.workspace + (part * slices + slice) * D + column, share[part]);
}

Status check(const char* op, const HeadNormsArgs& a) {
  RAT_CUDA_TRY(check_shape(op, a.shape));
  if (a.shape.head_size == 64 || a.shape.head_size == 128) return {};
  return refuse("%s: heads of %lld; it takes heads of 64 and 128", op, static_cast<long long>(a.shape.head_size));
}

unsigned blocks_of(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

int64_t head_norms_workspace(const RatShape& s) {
  return 2 * slices_of(s) * s.channels() + column_sums_workspace(slices_of(s), s.channels());
}

Status head_norms(const HeadNormsArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("head_norms", a));
  const int64_t pieces = a.shape.rows() * a.shape.channels() / N;
  const auto kernel = a.shape.head_size == 64 ? head_norms_kernel<8> : head_norms_kernel<16>;
  kernel<<<blocks_of(pieces), kThreads, 0, stream>>>(a, pieces);
  return launched("head_norms");
}

Status head_norms_backward(const HeadNormsBackwardArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("head_norms_backward", a.forward));
  const RatShape& s = a.forward.shape;
  const int64_t slices = slices_of(s), D = s.channels();
  const auto kernel = s.head_size == 64 ? head_norms_backward_kernel<8> : head_norms_backward_kernel<16>;
  kernel<<<blocks_of(slices * D / N), kThreads, 0, stream>>>(a, slices);
  RAT_CUDA_TRY(launched("head_norms_backward"));
  for (int part = 0; part < 2 && a.forward.x[part] != nullptr; ++part)
    RAT_CUDA_TRY(column_sums(a.workspace + part * slices * D, slices, D, a.workspace + 2 * slices * D,
                             a.grad_weight[part], stream, true));
  return {};
}

}  // namespace rat::kernels::cuda
