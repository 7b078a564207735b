// Attention of every token over the end states of earlier chunks and its own running state, with the output gate in the
// epilogue.
//
//   score[t,j] = q_rot[t] . keys[j] / sqrt P  for j < t / L;   score[t,own] = own_score[t]
//   p = softmax over both;  out[t] = sum_j p[t,j] values[j] + p[t,own] own_v[t];  lse[t] = log sum exp score
//   y[t] = sigmoid(z[t]) out[t]
//
// Source: Wei et al., RAT, arXiv:2507.04416 (inter-chunk attention); Dao 2023 (online softmax, backward from lse and
// delta). Every key row serves L query rows; strict causality over chunks is the limit j < t / L of each row.
// Shapes: see kernels/cuda/shape.h; q_rot (N, G*P); own_score (N, H); own_v, y (N, D); z (N, D) with a row stride;
//         lse (B*H, T) natural logarithm.
// Paths:  `simple` one warp per query, any supported head size, f32 or bf16: the reference on the device.
//         `mma` tensor cores (mma.sync, Ampere and later), bf16, head size 64 or 128.
//         `wgmma` tensor cores of Hopper (sm_90a), bf16, head size 128.
// Refused before any launch: a path that does not take the dtype, the head size or the device; see path_problem.
// Deterministic: no atomics on any path.
#pragma once

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

enum class AttentionPath { simple, mma, wgmma };

template <class T>
struct ChunkAttentionArgs {
  RatShape shape;
  const T* q_rot = nullptr;
  KeyRows<const T> keys, values;  // at least shape.keys() rows
  const float* own_score = nullptr;
  const T* own_v = nullptr;
  const T* z = nullptr;
  int64_t z_stride = 0;
  T* y = nullptr;
  float* lse = nullptr;  // null: not kept (inference)
};

// From the gradient of y: grad_out = grad_y sigmoid(z);  grad_z = grad_y y (1 - sigmoid(z));
// delta[t,h] = sum over the head of grad_y y. grad_out may be grad_y, grad_z may be z.
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

// With p = exp(score - lse) and ds = p (grad_out . values - delta) / sqrt P:
//   grad_values[j] = sum_t p grad_out;  grad_keys[j] = sum_t ds q_rot;  grad_q_rot[t] = sum over heads, j of ds keys[j]
// The own key's part is chunk_scan_backward's. Rows [0, shape.keys()) of grad_keys and grad_values are written, and all
// of grad_q_rot.
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
};

const char* path_name(AttentionPath path);
// "" or why this path cannot run on the current device.
template <class T>
std::string path_problem(AttentionPath path, int64_t head_size);
// The fastest path that can.
template <class T>
AttentionPath best_path(int64_t head_size);

template <class T>
Status chunk_attention(const ChunkAttentionArgs<T>& args, AttentionPath path, cudaStream_t stream);
template <class T>
Status output_gate_backward(const OutputGateBackwardArgs<T>& args, cudaStream_t stream);
template <class T>
Status chunk_attention_backward(const ChunkAttentionBackwardArgs<T>& args, AttentionPath path, cudaStream_t stream);

}  // namespace rat::kernels::cuda
