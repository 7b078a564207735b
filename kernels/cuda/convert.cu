#include "kernels/cuda/convert.h"

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/gelu.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ int64_t first_of_thread() { return (int64_t{blockIdx.x} * kThreads + threadIdx.x) * 8; }

__global__ void to_bf16_kernel(const float* x, bf16* out, int64_t count) {
  const int64_t at = first_of_thread();
  if (at >= count) return;
  float values[8];
  load<8>(x + at, values);
  store<8>(out + at, values);
}

// Two loads in flight per thread: one alone leaves a quarter of the bandwidth.
__global__ void gelu_kernel(bf16* x, bf16* y, int64_t count) {
  constexpr int64_t step = kThreads * 8;
  const int64_t at = int64_t{blockIdx.x} * 2 * step + threadIdx.x * 8;
  Pack<bf16, 8> packs[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    if (at + i * step < count) packs[i] = load<8>(x + at + i * step);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (at + i * step >= count) return;
    float values[8], slopes[8];
    unpack(packs[i], values);
#pragma unroll
    for (int j = 0; j < 8; ++j) slopes[j] = gelu_and_slope(values[j]);
    store<8>(x + at + i * step, slopes);
    store<8>(y + at + i * step, values);
  }
}

__global__ void gelu_backward_kernel(const bf16* slope, bf16* grad, int64_t count) {
  const int64_t at = first_of_thread();
  if (at >= count) return;
  float slopes[8], grads[8];
  load<8>(slope + at, slopes);
  load<8>(grad + at, grads);
#pragma unroll
  for (int i = 0; i < 8; ++i) grads[i] *= slopes[i];
  store<8>(grad + at, grads);
}

Status check_count(const char* op, int64_t count) {
  if (count < 8 || count % 8 != 0)
    return refuse("%s: %lld elements; a multiple of 8 is needed", op, static_cast<long long>(count));
  return {};
}

unsigned blocks(int64_t count) { return static_cast<unsigned>((count / 8 + kThreads - 1) / kThreads); }

}  // namespace

Status to_bf16(const float* x, bf16* out, int64_t count, cudaStream_t stream) {
  RAT_CUDA_TRY(check_count("to_bf16", count));
  to_bf16_kernel<<<blocks(count), kThreads, 0, stream>>>(x, out, count);
  return launched("to_bf16");
}

Status gelu(bf16* x, bf16* y, int64_t count, cudaStream_t stream) {
  RAT_CUDA_TRY(check_count("gelu", count));
  gelu_kernel<<<(blocks(count) + 1) / 2, kThreads, 0, stream>>>(x, y, count);
  return launched("gelu");
}

Status gelu_backward(const bf16* slope, bf16* grad, int64_t count, cudaStream_t stream) {
  RAT_CUDA_TRY(check_count("gelu_backward", count));
  gelu_backward_kernel<<<blocks(count), kThreads, 0, stream>>>(slope, grad, count);
  return launched("gelu_backward");
}

}  // namespace rat::kernels::cuda
