// One RAT layer on the device: forward (training and prefill), backward and one decoding step, composed of the kernels of
// this folder. The caller owns every buffer; sizes are given by the functions below.
//
//   out = residual + W_out (sigmoid(z) * attend(scan(W_in rmsnorm(x))))
//
// Shapes: x, out, their gradients (N, D); in_proj (W, D), out_proj (D, D), row-major [out, in]; norm, gate_bias (D) and
//         all weight gradients float32.
#pragma once

#include <functional>

#include "kernels/cuda/chunk_attention.h"
#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/linear_decode.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {

template <class T>
struct RatWeights {
  const float* norm = nullptr;
  const T* in_proj = nullptr;
  const float* gate_bias = nullptr;
  const T* out_proj = nullptr;
};

struct RatWeightGradients {  // written, or added to
  float* norm = nullptr;
  float* in_proj = nullptr;
  float* gate_bias = nullptr;
  float* out_proj = nullptr;
};

// Between forward and backward. One allocation, cut by rat_buffers.
template <class T>
struct RatBuffers {
  T* normed = nullptr;  // (N, D)
  T* proj = nullptr;    // (N, W); backward turns it into its own gradient
  T* y = nullptr;       // (N, D); own values until the attention has read them
  T* q_rot = nullptr;   // (N, G*P)
  T* keys = nullptr;    // (B, H, full_chunks, P)
  T* values = nullptr;
  float* rstd = nullptr;       // (N)
  float* own_score = nullptr;  // (N, H)
  float* lse = nullptr;        // (B*H, T)
  // only for training
  T* grad_y = nullptr;           // (N, D), then the gradient of the attention's output
  float* delta = nullptr;        // (B*H, T)
  float* grad_q_rot = nullptr;   // (N, G*P)
  float* grad_keys = nullptr;    // (B, H, full_chunks, P)
  float* grad_values = nullptr;
  float* workspace = nullptr;
};

// Floats of the workspace of a backward pass.
template <class T>
int64_t rat_workspace(const RatShape& shape);

// Bytes of all buffers; with `memory` not null also sets the pointers (256-byte aligned).
template <class T>
std::size_t rat_buffers(const RatShape& shape, bool training, void* memory, RatBuffers<T>* buffers);

// X: type of the residual stream: x, residual and out. Gradients are T.
template <class T, class X = T>
struct RatLayerArgs {
  RatShape shape;
  RatWeights<T> weights;
  RatBuffers<T> buffers;
  const float2* rope = nullptr;  // (C, P/2) or null: no positions
  float epsilon = 1e-6f;
  AttentionPath path = AttentionPath::simple;
  const X* x = nullptr;
  const X* residual = nullptr;  // null: the mixer alone
  X* out = nullptr;
  // prefill for decoding: caches with their own capacity, and the running states. data null: buffers.keys/values.
  KeyRows<T> keys, values;
  float* state_k = nullptr;
  float* state_v = nullptr;
  bool training = false;
  std::function<void(const char*)> after_stage;  // called after each launch with its name, to time the stages
};

template <class T, class X = T>
struct RatLayerBackwardArgs {
  RatLayerArgs<T, X> forward;
  const T* grad_out = nullptr;
  T* grad_x = nullptr;             // may be grad_out or buffers.normed
  bool residual_gradient = false;  // adds grad_out to grad_x
  bool add_gradients = false;      // of the weights
  RatWeightGradients gradients;
};

// C: type of the cache, as RatDecodeArgs'.
template <class T, class X = T, class C = T>
struct LayerStepArgs {
  RatDecodeArgs<T, C> decode;  // proj and y are set by the step
  RatWeights<T> weights;
  float epsilon = 1e-6f;
  const LinearDecodeArgs* linear = nullptr;  // RAttention, or linear attention alone, in bf16: what follows decode; proj, near
                                             // and y are set by the step
  int32_t* counter = nullptr;  // decode.position, where the step counts its token
  const X* x = nullptr;  // (B, D)
  const X* residual = nullptr;
  T* normed = nullptr;   // (B, D)
  T* proj = nullptr;     // (B, W)
  T* y = nullptr;        // (B, D)
  X* out = nullptr;      // (B, D), may be x and residual
};

template <class T, class X = T>
Status rat_layer(const RatLayerArgs<T, X>& args, Gemm& gemm, cudaStream_t stream);
template <class T, class X = T>
Status rat_layer_backward(const RatLayerBackwardArgs<T, X>& args, Gemm& gemm, cudaStream_t stream);
template <class T, class X = T, class C = T>
Status layer_step(const LayerStepArgs<T, X, C>& args, Gemm& gemm, cudaStream_t stream);

}  // namespace rat::kernels::cuda
