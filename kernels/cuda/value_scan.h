// The recurrence of an RNN layer between its projections, over whole sequences:
//
//   gate = sigmoid(g + bias);  v~[t] = gate v~[t-1] + (1 - gate) v[t], from 0;  y[t] = sigmoid(z) v~[t]
//
// Source: Wei et al., RAT, arXiv:2507.04416 (chunks as long as the sequence, whose softmax has one key). In segments
// side by side, as kernels/cuda/token_scan.h has it.
// Shapes: proj (N, 3D), columns z | v | g, rows without gaps; bias (D) float32; states, y (N, D). D a multiple of 8.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

struct ValueScanArgs {
  int64_t batch = 0, tokens = 0, channels = 0;
  const __nv_bfloat16* proj = nullptr;
  const float* bias = nullptr;
  __nv_bfloat16 *states = nullptr, *y = nullptr;
  float* workspace = nullptr;   // value_scan_workspace floats
  float* last_state = nullptr;  // (B, D): v~ after the last token; null: nowhere
};

// grad_z = grad_y v~ sigmoid(z) (1 - sigmoid(z));  c[t] = grad_y[t] sigmoid(z[t]) + gate[t+1] c[t+1];  grad_v = (1 -
// gate) c grad_g = (v~[t-1] - v) c gate (1 - gate), with the states as forward left them;  grad_bias += sum over rows
// of grad_g
struct ValueScanBackwardArgs {
  ValueScanArgs forward;  // y is not used
  const __nv_bfloat16* grad_y = nullptr;
  __nv_bfloat16* grad_proj = nullptr;  // (N, 3D)
  float* grad_bias = nullptr;          // (D), added to
};

int64_t value_scan_workspace(int64_t batch, int64_t tokens, int64_t channels);
Status value_scan(const ValueScanArgs& args, cudaStream_t stream);
Status value_scan_backward(const ValueScanBackwardArgs& args, cudaStream_t stream);

// One token of every sequence: proj (B, 3D), state (B, D) float32, y (B, D). Where *position - ahead is 0 it starts
// from 0.
struct ValueStepArgs {
  int64_t batch = 0, channels = 0;
  const __nv_bfloat16* proj = nullptr;
  const float* bias = nullptr;
  float* state = nullptr;
  const int32_t* position = nullptr;
  int32_t ahead = 0;
  __nv_bfloat16* y = nullptr;
};
Status value_step(const ValueStepArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
