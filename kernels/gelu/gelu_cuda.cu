#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/gelu/gelu.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;

__device__ float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678118654752f)); }

__global__ void gelu_kernel(Input x, Output y) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x, i = at / x.cols, j = at % x.cols;
  if (i >= x.rows) return;
  const float value = x.row(i)[j];
  y.row(i)[j] = value * normal_cdf(value);
}

__global__ void gelu_backward_kernel(GeluBackwardArgs a) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x, i = at / a.x.cols, j = at % a.x.cols;
  if (i >= a.x.rows) return;
  const float x = a.x.row(i)[j], cdf = normal_cdf(x);
  const float density = 0.39894228040143268f * expf(-0.5f * x * x);
  float& grad = a.grad.row(i)[j];
  grad *= cdf + x * density;
  a.y.row(i)[j] = x * cdf;
}

}  // namespace

Status gelu(const GeluArgs& args) {
  gelu_kernel<<<blocks_for(args.x.rows * args.x.cols, threads), threads, 0, stream()>>>(args.x, args.y);
  return launched("gelu");
}

Status gelu_backward(const GeluBackwardArgs& args) {
  gelu_backward_kernel<<<blocks_for(args.x.rows * args.x.cols, threads), threads, 0, stream()>>>(args);
  return launched("gelu_backward");
}

}  // namespace rat::kernels::gpu
