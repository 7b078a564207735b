#include "kernels/cuda/column_sums.cuh"
#include "kernels/cuda_ops.h"
#include "kernels/gating/gating.h"

namespace rat::kernels::gpu {
namespace {

// One thread per element; x runs over columns of up to 2^31 blocks of rows.
struct Grid {
  dim3 blocks, threads;
  Grid(int64_t rows, int64_t cols)
      : blocks(static_cast<unsigned>((rows + 3) / 4), static_cast<unsigned>((cols + 63) / 64)), threads(64, 4) {}
};

__device__ bool element(int64_t rows, int64_t cols, int64_t& i, int64_t& j) {
  i = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  j = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  return i < rows && j < cols;
}

__global__ void sigmoid_kernel(Output x, const float* bias) {
  int64_t i, j;
  if (!element(x.rows, x.cols, i, j)) return;
  float& value = x.row(i)[j];
  value = 1.0f / (1.0f + expf(-(value + (bias != nullptr ? bias[j] : 0.0f))));
}

__global__ void output_gate_kernel(Input gate, Input y, Output mixed) {
  int64_t i, j;
  if (element(mixed.rows, mixed.cols, i, j)) mixed.row(i)[j] = gate.row(i)[j] * y.row(i)[j];
}

__global__ void output_gate_backward_kernel(OutputGateBackwardArgs a) {
  int64_t i, j;
  if (!element(a.gate.rows, a.gate.cols, i, j)) return;
  const float gate = a.gate.row(i)[j], y = a.y.row(i)[j], grad = a.grad_mixed.row(i)[j];
  a.grad_y.row(i)[j] = gate * grad;
  a.grad_gate.row(i)[j] = grad * y * gate * (1.0f - gate);
}

__global__ void gate_gradient_kernel(Input gate, Output grad, int64_t rows_per_part, float* parts) {
  const int64_t j = int64_t{blockIdx.y} * blockDim.x + threadIdx.x;
  if (j >= gate.cols) return;
  const int64_t begin = blockIdx.x * rows_per_part, end = min(begin + rows_per_part, gate.rows);
  float sum = 0;
  for (int64_t i = begin; i < end; ++i) {
    const float g = gate.row(i)[j];
    const float value = grad.row(i)[j] * g * (1.0f - g);
    grad.row(i)[j] = value;
    sum += value;
  }
  parts[blockIdx.x * gate.cols + j] = sum;
}

}  // namespace

Status sigmoid(const SigmoidArgs& args) {
  const Grid grid(args.x.rows, args.x.cols);
  sigmoid_kernel<<<grid.blocks, grid.threads, 0, stream()>>>(args.x, args.bias.empty() ? nullptr : args.bias.data());
  return launched("sigmoid");
}

Status output_gate(const OutputGateArgs& args) {
  const Grid grid(args.mixed.rows, args.mixed.cols);
  output_gate_kernel<<<grid.blocks, grid.threads, 0, stream()>>>(args.gate, args.y, args.mixed);
  return launched("output_gate");
}

Status output_gate_backward(const OutputGateBackwardArgs& args) {
  const Grid grid(args.gate.rows, args.gate.cols);
  output_gate_backward_kernel<<<grid.blocks, grid.threads, 0, stream()>>>(args);
  return launched("output_gate_backward");
}

Status gate_gradient(const GateGradientArgs& args) {
  const auto cut = ColumnParts::of(args.gate.rows);
  RAT_ASSIGN(float* const parts, scratch<float>(0, cut.parts * args.gate.cols));
  gate_gradient_kernel<<<cut.grid(args.gate.cols), column_threads, 0, stream()>>>(args.gate, args.grad,
                                                                                 cut.rows_per_part, parts);
  RAT_TRY(launched("gate_gradient"));
  return join_parts(parts, cut.parts, args.gate.cols, args.grad_bias.data());
}

}  // namespace rat::kernels::gpu
