// Attention of every token over the end states of earlier chunks and its own running state, with the output gate in the
// epilogue; or over the tokens up to itself.
//
//   score[t,j] = q_rot[t] . keys[j] / sqrt P  for j < t / L;   score[t,own] = own_score[t]
//   p = softmax over both;  out[t] = sum_j p[t,j] values[j] + p[t,own] own_v[t];  lse[t] = log sum exp score
//   y[t] = sigmoid(z[t]) out[t]
//
// Source: Wei et al., RAT, arXiv:2507.04416 (inter-chunk attention); Dao 2023 (online softmax, backward from lse and
// delta). Every key row serves L query rows; strict causality over chunks is the limit j < t / L of each row.
// With shape.offset 1 there is neither own key nor gate: causal attention over tokens, whole or over a window,
//   y[t] = sum_j p[t,j] values[j]  for max(0, t - window) <= j <= t
// whose queries, keys and values may lie in the projected rows themselves.
// Dilated (shape.dilated()), it is the first again, over the keys before a window, and what attention over the window gave
// stands for the own key: own_score (B*H, T) is its lse, own_v its y. The softmax over both is then the joint one.
//
// Shapes: see kernels/cuda/shape.h; q_rot (N, G*P); own_score (N, H); own_v, y (N, D); z (N, D) with a row stride;
//         lse (B*H, T) natural logarithm.
// Cost:   key tiles that no row of a tile sees are neither read nor multiplied: linear in T with a window.
// Paths:  `simple` one warp per query, any supported head size, f32 or bf16: the reference on the device.
//         `mma` tensor cores (mma.sync, Ampere and later), bf16, head size 64 or 128.
//         `wgmma` tensor cores of Hopper (sm_90a), bf16, head size 64 or 128.
// Refused before any launch: a path that does not take the dtype, the head size or the device; see path_problem. Own keys
//         and gates with offset 1, or their absence without it; a window or offset with chunks.
// Deterministic: what is added up in global memory (`wgmma`, gradients of queries) is added in one order.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

enum class AttentionPath { simple, mma, wgmma };

template <class T>
struct ChunkAttentionArgs {
  RatShape shape;
  const T* q_rot = nullptr;
  KeyRows<const T> keys, values;  // at least shape.keys() rows
  const float* own_score = nullptr;
  const T* own_v = nullptr;  // may be y
  const T* z = nullptr;
  int64_t z_stride = 0;
  T* y = nullptr;
  float* lse = nullptr;  // null: not kept (inference)
  int64_t q_stride = 0;  // of q_rot's rows; 0: G*P

  RAT_HD int64_t query_stride() const { return q_stride != 0 ? q_stride : shape.group_width(); }
};

// y *= sigmoid(z), for attention over tokens, whose kernels have no gate. Columns a multiple of 8.
struct OutputGateArgs {
  RatShape shape;
  __nv_bfloat16* y = nullptr;  // (N, D)
  const __nv_bfloat16* z = nullptr;
  int64_t z_stride = 0;
};
Status output_gate(const OutputGateArgs& args, cudaStream_t stream);

// From the gradient of y: grad_out = grad_y sigmoid(z);  grad_z = grad_y y (1 - sigmoid(z));
// delta[t,h] = sum over the head of grad_y y. grad_out may be grad_y, grad_z may be z. z null: only delta is written.
template <class T>
struct OutputGateBackwardArgs {
  RatShape shape;
  const T* grad_y = nullptr;
  const T* y = nullptr;
  const T* z = nullptr;
  int64_t z_stride = 0;
  T* grad_out = nullptr;
  T* grad_z = nullptr;
  int64_t grad_z_stride = 0;
  float* delta = nullptr;  // (B*H, T)
};

// Where attention over tokens leaves its gradients: rounded, and with the rotation of queries and keys undone.
template <class T>
struct TokenGradients {
  KeyRows<T> queries, keys, values;
  const float2* rope = nullptr;  // (T, P/2), from rope_table; null: no positions
};

// With p = exp(score - lse) and ds = p (grad_out . values - delta) / sqrt P:
//   grad_values[j] = sum_t p grad_out;  grad_keys[j] = sum_t ds q_rot;  grad_q_rot[t] = sum over heads, j of ds keys[j]
// The own key's part is chunk_scan_backward's. Rows [0, shape.keys()) of grad_keys and grad_values are written, and all
// of grad_q_rot; with shape.offset 1 the same go to token_gradients instead, and on the wgmma path grad_q_rot is memory that
// the gradients of the queries are summed in.
template <class T>
struct ChunkAttentionBackwardArgs {
  RatShape shape;
  const T* q_rot = nullptr;
  KeyRows<const T> keys, values;
  const T* grad_out = nullptr;
  const float* lse = nullptr;
  const float* delta = nullptr;
  float* grad_q_rot = nullptr;
  KeyRows<float> grad_keys, grad_values;
  int64_t q_stride = 0;  // of q_rot's rows; 0: G*P
  TokenGradients<T> token_gradients = {};
  int* turns = nullptr;  // chunk_attention_turns(shape) of them, but for offset 1 without the wgmma path

  RAT_HD int64_t query_stride() const { return q_stride != 0 ? q_stride : shape.group_width(); }
};

// How many counts the backward pass keeps, in memory that holds nothing: of the blocks that have added to the gradients of
// 64 query rows of a group, and of those that have begun.
inline int64_t chunk_attention_turns(const RatShape& s) { return s.batch * s.groups * ((s.tokens + 63) / 64) + 1; }

// Floats of grad_q_rot over tokens: where the path sums in memory, (N, G*P).
inline int64_t token_gradient_sums(const RatShape& s, AttentionPath path) {
  return path == AttentionPath::wgmma ? s.rows() * s.group_width() : 0;
}

const char* path_name(AttentionPath path);
// "" or why this path cannot run on the current device.
template <class T>
std::string path_problem(AttentionPath path, int64_t head_size);
// The fastest path that can.
template <class T>
AttentionPath best_path(int64_t head_size);
// The same of the backward pass, which need not take the path that the forward pass took: over few tokens, heads of 64 keep
// to `mma`, whose blocks are smaller, so that more of them run at a time.
template <class T>
AttentionPath best_backward_path(const RatShape& shape);

template <class T>
Status chunk_attention(const ChunkAttentionArgs<T>& args, AttentionPath path, cudaStream_t stream);
template <class T>
Status output_gate_backward(const OutputGateBackwardArgs<T>& args, cudaStream_t stream);
template <class T>
Status chunk_attention_backward(const ChunkAttentionBackwardArgs<T>& args, AttentionPath path, cudaStream_t stream);

}  // namespace rat::kernels::cuda
