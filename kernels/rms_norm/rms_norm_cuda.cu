// One warp per row.
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda_ops.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat::kernels::gpu {
namespace {

constexpr int rows_per_block = 8;

__device__ int64_t warp_row() { return int64_t{blockIdx.x} * rows_per_block + threadIdx.y; }

constexpr int together = 8;  // values of a lane on their way at once: a row waits for memory 2 cols / 256 times

__global__ void forward(Input x, const float* weight, Output y, float eps) {
  const int64_t i = warp_row();
  if (i >= x.rows) return;
  const float* from = x.row(i);
  float squares = 0, values[together];
  const auto for_each = [&](int64_t first, const auto& body) {
#pragma unroll
    for (int n = 0; n < together; ++n)
      if (const int64_t j = first + 32 * n; j < x.cols) body(n, j);
  };
  for (int64_t first = threadIdx.x; first < x.cols; first += 32 * together) {
    for_each(first, [&](int n, int64_t j) { values[n] = from[j]; });
    for_each(first, [&](int n, int64_t) { squares += values[n] * values[n]; });
  }
  const float r = rsqrtf(warp_sum(squares) / static_cast<float>(x.cols) + eps);
  for (int64_t first = threadIdx.x; first < x.cols; first += 32 * together) {
    float weights[together];
    for_each(first, [&](int n, int64_t j) { values[n] = from[j], weights[n] = weight[j]; });
    for_each(first, [&](int n, int64_t j) { y.row(i)[j] = values[n] * r * weights[n]; });
  }
}

__global__ void backward(RmsNormBackwardArgs a, float* roots) {
  const int64_t i = warp_row();
  if (i >= a.x.rows) return;
  const float *x = a.x.row(i), *g = a.grad_y.row(i), *weight = a.weight.data();
  float squares = 0, dot = 0;
  for (int64_t j = threadIdx.x; j < a.x.cols; j += 32) {
    squares += x[j] * x[j];
    dot += weight[j] * g[j] * x[j];
  }
  const auto n = static_cast<float>(a.x.cols);
  const float r = rsqrtf(warp_sum(squares) / n + a.eps), mean = warp_sum(dot) / n;
  if (threadIdx.x == 0) roots[i] = r;
  float* to = a.grad_x.row(i);
  for (int64_t j = threadIdx.x; j < a.x.cols; j += 32) {
    const float value = r * (weight[j] * g[j] - x[j] * r * r * mean);
    to[j] = a.add_grad_x ? to[j] + value : value;
  }
}

__global__ void weight_gradient(Input x, Input grad_y, const float* roots, int64_t rows_per_part, float* parts) {
  const int64_t j = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (j >= x.cols) return;
  const int64_t begin = blockIdx.x * rows_per_part, end = min(begin + rows_per_part, x.rows);
  float sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += grad_y.row(i)[j] * x.row(i)[j] * roots[i];
  parts[blockIdx.x * x.cols + j] = sum;
}

}  // namespace

Status rms_norm(const RmsNormArgs& args) {
  forward<<<blocks_for(args.x.rows, rows_per_block), dim3(32, rows_per_block), 0, stream()>>>(
      args.x, args.weight.data(), args.y, args.eps);
  return launched("rms_norm");
}

Status rms_norm_backward(const RmsNormBackwardArgs& args) {
  const auto cut = ColumnParts::of(args.x.rows);
  RAT_ASSIGN(float* const roots, scratch<float>(0, args.x.rows));
  RAT_ASSIGN(float* const parts, scratch<float>(1, cut.parts * args.x.cols));
  backward<<<blocks_for(args.x.rows, rows_per_block), dim3(32, rows_per_block), 0, stream()>>>(args, roots);
  RAT_TRY(launched("rms_norm_backward"));
  weight_gradient<<<cut.grid(args.x.cols), column_threads, 0, stream()>>>(args.x, args.grad_y, roots,
                                                                         cut.rows_per_part, parts);
  RAT_TRY(launched("rms_norm_backward"));
  return join_parts(parts, cut.parts, args.x.cols, args.grad_weight.data());
}

}  // namespace rat::kernels::gpu
