// The part of the RAT layer before the attention, in one pass over the projected tensor: gate, recurrence inside the
// chunk, own-key score, RoPE of the query and of the chunk-end key.
//
//   gate = sigmoid(g + gate_bias);  k~ = gate k~_prev + (1 - gate) k;  v~ likewise; both start at 0 in every chunk
//   own_v = v~;  own_score[h] = q . k~ / sqrt P  (query and own key carry the same RoPE angle, which cancels)
//   q_rot = R(c) q per group;  at the last token of a full chunk c: keys[c] = R(c) k~, values[c] = v~
//
// Source: Wei et al., RAT, arXiv:2507.04416. Shapes: see kernels/cuda/shape.h; own_v (N, D), own_score (N, H) float32,
// q_rot (N, G*P), keys and values hold at least full_chunks() rows per head, gate_bias (D) float32.
// rope: (C, P/2) of (cos, sin), from rope_table; null: no positions.
// A block walks the heads of one group of one chunk, so no parallel scan is needed: with resets every L tokens there are B*C*G
// of them.
// Refused before any launch: sizes that check_shape refuses; a row stride below the tensor's width.
#pragma once

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

template <class T>
struct ChunkScanArgs {
  RatShape shape;
  const T* proj = nullptr;
  int64_t proj_stride = 0;
  const float* gate_bias = nullptr;
  const float2* rope = nullptr;
  T* own_v = nullptr;
  float* own_score = nullptr;
  T* q_rot = nullptr;
  KeyRows<T> keys, values;
  float* state_k = nullptr;  // (B, D) running states after the last token, for decoding; null: not wanted
  float* state_v = nullptr;
};

// Everything that the layer's projected tensor receives except the output gate:
//   p = exp(own_score - lse);  ds = p (grad_out . v~ - delta) / sqrt P
//   carried_v[t] = p grad_out + gate[t+1] carried_v[t+1] (+ grad_values at a chunk end);  carried_k likewise with ds q
//   grad_v = (1 - gate) carried_v;  grad_k = sum over the heads of the group of (1 - gate) carried_k
//   grad_g = ((v~_prev - v) carried_v + (k~_prev - k) carried_k) gate (1 - gate)
//   grad_q = R(c)^-1 grad_q_rot + sum over heads of ds k~
// k~ and v~ are recomputed (dividing by the gate to walk backwards is unstable). grad_proj may be proj itself.
// Rows of grad_keys and grad_values from keys() on are not read.
template <class T>
struct ChunkScanBackwardArgs {
  RatShape shape;
  const T* proj = nullptr;
  int64_t proj_stride = 0;
  const float* gate_bias = nullptr;
  const float2* rope = nullptr;
  const float* own_score = nullptr;  // (N, H)
  const float* lse = nullptr;        // (B*H, T), natural logarithm, own key included
  const float* delta = nullptr;      // (B*H, T), rowsum(grad_out * attention output)
  const T* grad_out = nullptr;       // (N, D), gradient of the attention's output before the output gate
  const float* grad_q_rot = nullptr;  // (N, G*P)
  KeyRows<const float> grad_keys, grad_values;
  T* grad_proj = nullptr;  // columns v, g, q, k are written
  int64_t grad_proj_stride = 0;
  float* grad_gate_bias = nullptr;  // (D) written
  float* workspace = nullptr;       // chunk_scan_backward_workspace(shape) floats
  bool add_gate_bias = false;       // add to grad_gate_bias
};

template <class T>
int64_t chunk_scan_backward_workspace(const RatShape& shape);

template <class T>
Status chunk_scan(const ChunkScanArgs<T>& args, cudaStream_t stream);
template <class T>
Status chunk_scan_backward(const ChunkScanBackwardArgs<T>& args, cudaStream_t stream);

// table[c][i] = (cos, sin)(c * base^(-2i/P)) for c < chunks, computed in double. Su et al. 2021.
Status rope_table(float2* table, int64_t chunks, int64_t head_size, double base, cudaStream_t stream);

}  // namespace rat::kernels::cuda
