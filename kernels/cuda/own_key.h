// Attention of every token to its own key: what a window of 0 tokens sees of dilated attention
// (kernels/cuda/dilated_keys.h).
//
//   score[t] = q[t] . k[t] / sqrt P;  its weight among all that t sees: p = exp(score - lse)
//   grad_v = p grad_out;  grad_q = d k, grad_k = d q, rotated back, with d = p (grad_out . v - delta) / sqrt P
//
// Shapes: a shape of attention over tokens, heads of 64 or 128; q: rows with a stride; keys, values, grad_out (N, D),
// queries and keys rotated alike; scores, lse, delta (B*H, T). float32 arithmetic, rounded once.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/chunk_attention.h"

namespace rat::kernels::cuda {

struct OwnKeyArgs {
  RatShape shape;
  const __nv_bfloat16* q = nullptr;
  int64_t q_stride = 0;
  const __nv_bfloat16 *keys = nullptr, *values = nullptr;
  float* score = nullptr;  // forward
};

struct OwnKeyBackwardArgs {
  OwnKeyArgs forward;
  const __nv_bfloat16* grad_out = nullptr;
  const float *lse = nullptr, *delta = nullptr;
  TokenGradients<__nv_bfloat16> gradients;  // written
};

// Refused before any launch: head sizes other than 64 and 128.
Status own_key(const OwnKeyArgs& args, cudaStream_t stream);
Status own_key_backward(const OwnKeyBackwardArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
