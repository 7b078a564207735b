// RMSNorm over rows.
//
//   y[n] = x[n] * rstd[n] * weight,  rstd[n] = 1 / sqrt(mean(x[n]^2) + epsilon)
//   backward: u = grad_y * weight;  grad_x = rstd * (u - x * rstd^2 * mean(u * x)) + residual;
//             grad_weight = sum over rows of grad_y * x * rstd
//
// Source: Zhang & Sennrich 2019. Shapes: x, y, grads (rows, D), contiguous; weight, grad_weight (D) float32; rstd (rows).
// Refused before any launch: D not a multiple of 8, or above 8192.
// Deterministic: the sum over rows is cut by shape and added in order.
// grad_x may be grad_y or residual itself (each row is read whole before it is written).
#pragma once

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

// X: type of the residual stream; T: of what products read and write, y and all gradients.
template <class T, class X = T>
struct RmsNormArgs {
  const X* x = nullptr;
  const float* weight = nullptr;
  T* y = nullptr;
  float* rstd = nullptr;  // null: not kept (inference)
  int64_t rows = 0, channels = 0;
  float epsilon = 1e-6f;
  // Of the first kernel of a decoding step:
  bool early = false;          // kernels/cuda/early_launch.cuh
  int32_t* counter = nullptr;  // one is added to it
};

template <class T, class X = T>
struct RmsNormBackwardArgs {
  const X* x = nullptr;
  const float* weight = nullptr;
  const float* rstd = nullptr;
  const T* grad_y = nullptr;
  const T* residual = nullptr;  // null: none
  T* grad_x = nullptr;
  float* grad_weight = nullptr;
  float* workspace = nullptr;  // rms_norm_workspace(rows, channels) floats
  int64_t rows = 0, channels = 0;
  bool add_grad_weight = false;  // add to grad_weight rather than write it
};

int64_t rms_norm_workspace(int64_t rows, int64_t channels);

template <class T, class X = T>
Status rms_norm(const RmsNormArgs<T, X>& args, cudaStream_t stream);
template <class T, class X = T>
Status rms_norm_backward(const RmsNormBackwardArgs<T, X>& args, cudaStream_t stream);

// sums[c] (+)= sum over rows of values[row][c], in row order within fixed blocks; values (rows, cols) float32.
// workspace: column_sums_workspace(rows, cols) floats.
int64_t column_sums_workspace(int64_t rows, int64_t cols);
Status column_sums(const float* values, int64_t rows, int64_t cols, float* workspace, float* sums, cudaStream_t stream,
                   bool add = false);

}  // namespace rat::kernels::cuda
