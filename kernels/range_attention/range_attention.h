// Softmax attention in which query token t sees one contiguous range of keys, and optionally a key of its own.
//
//   score[t,j] = q[t] . k[j] / sqrt P      for begin(t) <= j < end(t)
//   score[t,*] = own_q[t] . own_k[t] / sqrt P      (only with own_k: the query's own running state)
//   out[t]     = sum_j p[t,j] v[j] + p[t,*] own_v[t],  p = softmax over the seen scores;  lse[t] = log sum exp(score)
//
// One idea, three mixers: attention end = t+1; sliding window begin = max(0, t-W), end = t+1; RAT end = t / L over
// chunk-end states, plus the own running state, scored with the unrotated query: query and own key carry the same RoPE
// angle, which cancels.
// Source: Wei et al., RAT, arXiv:2507.04416 (inter-chunk attention); Dao 2023 for the backward pass from the lse.
// Shapes: q, own_q (B*T, W) with head h reading columns (h P) % W (groups of heads share queries); k, v: K rows per
//         sequence of D = H P columns; own_k, own_v, out (B*T, D); lse (B*H, T).
// Trap:   1/sqrt P is applied here. The softmax is joint over the range and the own key.
// Memory: never T x T: a block of query rows at a time.
#pragma once

#include <algorithm>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct KeyRange {
  int64_t chunk_len = 1;  // keys are the ends of chunks of this many tokens
  int64_t offset = 1;     // 1: a token sees the key that it completes itself; 0: only earlier ones
  int64_t window = -1;    // at least 0: only keys from token t - window on (chunk_len 1)

  int64_t begin(int64_t t) const { return window < 0 ? 0 : std::max<int64_t>(0, t - window); }
  int64_t end(int64_t t) const { return (t + offset) / chunk_len; }
};

// Row i of sequence b of a (B, rows, cols) tensor with any strides.
template <class T>
struct Sequences {
  T* data = nullptr;
  int64_t stride = 0;           // from row to row
  int64_t sequence_stride = 0;  // from sequence to sequence
  T* row(int64_t b, int64_t i) const { return data + b * sequence_stride + i * stride; }
};

struct AttentionShape {
  int64_t batch = 0;      // B
  int64_t tokens = 0;     // T
  int64_t heads = 0;      // H
  int64_t head_size = 0;  // P
  int64_t keys = 0;       // K rows per sequence; end(T-1) <= K
  KeyRange range;

  int64_t channels() const { return heads * head_size; }
};

struct RangeAttentionArgs {
  AttentionShape shape;
  Input q;
  Sequences<const float> k, v;
  Input own_q, own_k, own_v;  // own_k.data null: no own key
  Output out;
  Output lse;
};

struct RangeAttentionBackwardArgs {
  RangeAttentionArgs forward;       // out and lse as forward wrote them
  Input grad_out;                   // (B*T, D)
  Output grad_q;                    // (B*T, W) written
  Sequences<float> grad_k, grad_v;  // added to
  Output grad_own_q;                // (B*T, W) written
  Output grad_own_k, grad_own_v;    // (B*T, D) written, before grad_k and grad_v are added to: they may overlap
};

// The softmax weights themselves, for display. weights (B*H*T, K [+ 1 with an own key]); unseen cells are NaN.
struct AttentionWeightsArgs {
  RangeAttentionArgs forward;  // out and lse are not used
  Output weights;
};

// One query against n keys (all seen) and optionally an own key: q, own_q (1, W); own_k, own_v, out (1, D).
struct AttendOneArgs {
  int64_t heads = 0;
  Input q;
  Input k, v;  // (n, D), n may be 0 with an own key
  Input own_q, own_k, own_v;
  Output out;
};

[[nodiscard]] Status range_attention(const RangeAttentionArgs& args, const Exec& exec);
[[nodiscard]] Status range_attention_backward(const RangeAttentionBackwardArgs& args, const Exec& exec);
[[nodiscard]] Status attention_weights(const AttentionWeightsArgs& args, const Exec& exec);
[[nodiscard]] Status attend_one(const AttendOneArgs& args, const Exec& exec);

}  // namespace rat::kernels
