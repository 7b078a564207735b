// One layer of softmax attention over tokens on the device, in bf16 between f32 residual streams: forward, for training
// and prefill, and backward, composed of the kernels of this folder. The caller owns every buffer. A decode step is
// layer_step of kernels/cuda/rat_layer.h.
//
//   out = x + W_out attend(W_in rmsnorm(x)), columns of W_in rmsnorm(x): value (KV) | query (D) | key (KV)
//
// KV is D, or less where heads share keys and values: these are repeated for every head (kernels/cuda/shared_heads.h).
// Recurrent (RAT+): keys and values are running states of kernels/cuda/token_scan.h, and an output gate follows:
//   out = x + W_out (sigmoid(o) attend(...)), columns: o | query | key | value | forget gate, D each
// Its attention may be dilated: to a window, then to what is before it (kernels/cuda/dilated_keys.h), each by a pass of the
// same kernels; the second takes what the first gave for an own key, and its gradients are added to the first one's.
//
// Shapes: x, out, their gradients (N, D) float32; in_proj (W, D), out_proj (D, D), row-major [out, in] bf16; norm
//         (D) and all weight gradients float32.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/gemm.h"

namespace rat::kernels::cuda {

struct AttentionWeights {
  const float* norm = nullptr;
  const __nv_bfloat16 *in_proj = nullptr, *out_proj = nullptr;
};

struct AttentionWeightGradients {  // added to
  float *norm = nullptr, *in_proj = nullptr, *out_proj = nullptr;
};

struct AttentionBuffers {
  // from forward to backward
  __nv_bfloat16* normed = nullptr;  // (N, D); backward turns it into its own gradient
  __nv_bfloat16* proj = nullptr;    // (N, W); queries rotated, and keys where they are not states
  __nv_bfloat16* y = nullptr;       // (N, D)
  // (N, D) where the projected rows do not have them: states, keys rotated, or those of shared heads
  __nv_bfloat16 *keys = nullptr, *values = nullptr;
  float* rstd = nullptr;            // (N)
  float* lse = nullptr;             // (B*H, T)
  // of backward alone
  __nv_bfloat16* grad_y = nullptr;     // (N, D)
  __nv_bfloat16* grad_proj = nullptr;  // (N, W)
  __nv_bfloat16 *grad_keys = nullptr, *grad_values = nullptr;  // (N, D), of `keys` and `values`
  float* delta = nullptr;              // (B*H, T)
  float* grad_queries = nullptr;       // token_gradient_sums of the backward path; dilated (N, D)
  float* workspace = nullptr;  // attention_layer_workspace floats; forward needs it too where recurrent
};

struct DilatedBuffers {  // K = shape.keys(); used by each of the two calls alone
  RatShape shape;  // of before_window
  __nv_bfloat16 *keys = nullptr, *values = nullptr;   // (B, K, D)
  float* window_lse = nullptr;                        // (B*H, T), forward alone
  float *grad_keys = nullptr, *grad_values = nullptr;  // (B, K, D), backward alone
};

struct AttentionLayerArgs {
  RatShape shape;  // of attention_shape
  bool recurrent = false;
  DilatedBuffers dilated;  // of a recurrent layer; a shape without it: no dilation
  int64_t kv_heads = 0;  // that keys and values have, not recurrent; 0: one for each head
  AttentionWeights weights;
  AttentionBuffers buffers;
  const float2* rope = nullptr;  // (T, P/2) or null: no positions
  float epsilon = 1e-6f;
  AttentionPath path = AttentionPath::simple;
  const float* x = nullptr;
  const float* residual = nullptr;  // null: the mixer alone
  float* out = nullptr;             // may be x and residual
  float *state_k = nullptr, *state_v = nullptr;  // recurrent, prefill: (B, D), the states after the last token

  int64_t key_width() const { return (kv_heads > 0 ? kv_heads : shape.heads) * shape.head_size; }  // KV
  int64_t width() const { return recurrent ? 5 * shape.channels() : shape.channels() + 2 * key_width(); }  // W
  // Where a projected row, or its gradient, has its query and, not recurrent, its key; the value comes first.
  int64_t query_column() const { return recurrent ? shape.channels() : key_width(); }
  int64_t key_column() const { return key_width() + shape.channels(); }
  bool in_place() const { return !recurrent && key_width() == shape.channels(); }  // keys and values are projected rows
};

struct AttentionLayerBackwardArgs {
  AttentionLayerArgs forward;
  __nv_bfloat16* grad = nullptr;  // (N, D) in: of out; out: of x, through the layer and the residual
  AttentionWeightGradients gradients;
};

// D columns of rows `stride` elements apart as heads of all tokens.
template <class T>
KeyRows<T> heads_of(T* rows, const RatShape& s, int64_t stride) {
  return {rows, s.tokens * stride, s.head_size, stride};
}

// window below 0: every earlier token.
RatShape attention_shape(int64_t batch, int64_t tokens, int64_t heads, int64_t head_size, int64_t window);

int64_t attention_layer_workspace(const RatShape& shape, bool recurrent);
Status attention_layer(const AttentionLayerArgs& args, Gemm& gemm, cudaStream_t stream);
Status attention_layer_backward(const AttentionLayerBackwardArgs& args, Gemm& gemm, cudaStream_t stream);

}  // namespace rat::kernels::cuda
