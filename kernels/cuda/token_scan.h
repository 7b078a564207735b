// The recurrence of RAT+ over whole sequences, between the projection and attention over tokens:
//
//   gate = sigmoid(g);  k~[t] = gate k~[t-1] + (1 - gate) k[t], from 0;  v~ likewise
//   keys[t] = R(t) k~[t];  values[t] = v~[t];  q[t] becomes R(t) q[t] where it lies
//
// Source: Wei and Gulcehre, RAT+, arXiv:2602.18196. Shapes: a shape of attention over tokens (kernels/cuda/shape.h);
// proj (N, 5D) with a row stride, columns o | q | k | v | g; keys, values (N, D); rope (T, P/2) from rope_table, null:
// no positions. Heads of a multiple of 4 channels. A sequence is cut into segments, which are walked side by side
// twice: for what each makes of a state, and, once those were joined in order, from the state that each starts with.
// Results do not depend on timing. The gate is not taken from the tanh unit as that of chunk_scan: over a whole
// sequence 1 - gate counts, however small.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

struct TokenScanArgs {
  RatShape shape;
  __nv_bfloat16* proj = nullptr;
  int64_t proj_stride = 0;
  const float2* rope = nullptr;
  __nv_bfloat16 *keys = nullptr, *values = nullptr;
  float* workspace = nullptr;  // token_scan_workspace(shape) floats
  float *state_k = nullptr, *state_v = nullptr;  // (B, D): k~ and v~ after the last token; null: nowhere
};

// From the gradients of k~ and v~, with the states as forward left them (rounded, keys rotated):
//   c[t] = grad[t] + gate[t+1] c[t+1];  grad_k = (1 - gate) c_k;  grad_v = (1 - gate) c_v
//   grad_g = ((k~[t-1] - k) c_k + (v~[t-1] - v) c_v) gate (1 - gate)
struct TokenScanBackwardArgs {
  TokenScanArgs forward;                                             // proj is only read
  const __nv_bfloat16 *grad_keys = nullptr, *grad_values = nullptr;  // (N, D), of k~ before its rotation, and of v~
  __nv_bfloat16* grad_proj = nullptr;                                // columns k | v | g are written
  int64_t grad_proj_stride = 0;
};

int64_t token_scan_workspace(const RatShape& shape);
Status token_scan(const TokenScanArgs& args, cudaStream_t stream);
Status token_scan_backward(const TokenScanBackwardArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
