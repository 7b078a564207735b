// Softmax attention in which query token t sees up to three strided ranges of keys, and optionally a key of its own.
//
//   score[t,j] = q[t] . k[j] / sqrt P      for the keys j of every segment with begin(t) <= j < end(t)
//   score[t,*] = own_q[t] . own_k[t] / sqrt P      (only with own_k: the query's own running state)
//   out[t]     = sum_j p[t,j] v[j] + p[t,*] own_v[t],  p = softmax over the seen scores;  lse[t] = log sum exp(score)
//
// One idea, four mixers. One segment: attention end = t+1; sliding window begin = max(0, t-W), end = t+1; RAT end =
// t / L over chunk-end states, plus the own running state, scored with the unrotated query: query and own key carry the
// same RoPE angle, which cancels. RAT+ with dilation D adds two to a window of W: every D-th token before the window,
// and the first S tokens (KeyRange::dilated, KeyRange::initial).
// Source: Wei et al., RAT, arXiv:2507.04416 (inter-chunk attention), and RAT+, arXiv:2602.18196 (dilation); Dao 2023
//         for tiles with a running maximum and the backward pass from the lse.
// Shapes: q, own_q (B*T, W) with head h reading columns (h P) % W (groups of heads share queries); k, v: K rows per
//         sequence of kv_width columns, head h reading (h P) % kv_width; own_k, own_v, out (B*T, D); lse (B*H, T).
//         Queries or keys may be shared, not both.
// Traps:  1/sqrt P is applied here. The softmax is joint over all segments and the own key, so no key may be in two.
// Memory: never T x T: tiles of scores, and for backward at most 16 partial gradients of keys and values.
#pragma once

#include <algorithm>
#include <array>

#include "kernels/backend.h"
#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct KeyRange {
  int64_t chunk_len = 1;  // keys are the ends of chunks of this many tokens
  int64_t offset = 1;     // 1: a token sees the key that it completes itself; 0: only earlier ones; -W: before a window
  int64_t window = -1;    // at least 0: only keys from token t - window on (chunk_len 1)
  int64_t first = 0;      // no key before this one
  int64_t limit = -1;     // at least 0: no key from this one on

  constexpr int64_t begin(int64_t t) const { return std::min(end(t), std::max(first, window < 0 ? 0 : t - window)); }
  constexpr int64_t end(int64_t t) const {
    const int64_t seen = t + offset < 0 ? 0 : (t + offset) / chunk_len;
    return limit < 0 ? seen : std::min(seen, limit);
  }

  // Of the tokens before t - window: every dilation-th from the initial ones on (key i is token (i + 1) dilation - 1),
  // and the first `initial` (key i is token i).
  static KeyRange dilated(int64_t dilation, int64_t window, int64_t initial) {
    return {.chunk_len = dilation, .offset = -window, .window = -1, .first = initial / dilation, .limit = -1};
  }
  static KeyRange before_window(int64_t window, int64_t initial) {
    return {.chunk_len = 1, .offset = -window, .window = -1, .first = 0, .limit = initial};
  }
};

// Row i of sequence b of a (B, rows, cols) tensor with any strides.
template <class T>
struct Sequences {
  T* data = nullptr;
  int64_t stride = 0;           // from row to row
  int64_t sequence_stride = 0;  // from sequence to sequence
  constexpr T* row(int64_t b, int64_t i) const { return data + b * sequence_stride + i * stride; }
};

struct AttentionShape {
  int64_t batch = 0;      // B
  int64_t tokens = 0;     // T
  int64_t heads = 0;      // H
  int64_t head_size = 0;  // P
  int64_t keys = 0;       // K rows per sequence; end(T-1) <= K
  KeyRange range;
  int64_t kv_width = 0;  // columns of k and v; 0: D, every head its own

  constexpr int64_t channels() const { return heads * head_size; }
  constexpr int64_t kv_columns() const { return kv_width > 0 ? kv_width : channels(); }
};

// Further keys of the same queries. Key i is column first_column + i * column_step of the displayed weights.
struct KeySegment {
  int64_t keys = 0;
  KeyRange range;
  Sequences<const float> k, v;
  int64_t first_column = 0, column_step = 1;
};

struct RangeAttentionArgs {
  AttentionShape shape;
  Input q;
  Sequences<const float> k, v;
  Input own_q, own_k, own_v;  // own_k.data null: no own key
  Output out;
  Output lse;
  std::array<KeySegment, 2> more = {};
  int64_t more_count = 0;
  // Of the products with keys and values that are not own: on the CPU where it multiplies many of them at a time; on a GPU
  // bf16 also rounds what is multiplied, in heads of 64 and 128 over tokens, whole or a window.
  Dtype score_dtype = Dtype::f32, dtype = Dtype::f32;

  int64_t segments() const { return 1 + more_count; }
  // Segment 0 is shape.range over k and v.
  KeySegment segment(int64_t i) const {
    return i == 0 ? KeySegment{shape.keys, shape.range, k, v, 0, 1} : more[static_cast<std::size_t>(i - 1)];
  }
};

struct KeyGradients {
  Sequences<float> k, v;
};

struct RangeAttentionBackwardArgs {
  RangeAttentionArgs forward;       // out and lse as forward wrote them
  Input grad_out;                   // (B*T, D)
  Output grad_q;                    // (B*T, W) written
  Sequences<float> grad_k, grad_v;  // added to
  Output grad_own_q;                // (B*T, W) written
  Output grad_own_k, grad_own_v;    // (B*T, D) written, before grad_k and grad_v are added to: they may overlap
  std::array<KeyGradients, 2> more = {};  // of forward.more, added to; all segments may overlap

  KeyGradients segment(int64_t i) const {
    return i == 0 ? KeyGradients{grad_k, grad_v} : more[static_cast<std::size_t>(i - 1)];
  }
};

// The softmax weights themselves, for display. weights (B*H*T, K [+ 1 with an own key]); unseen cells are NaN. With
// further segments, K is the number of columns that they name.
struct AttentionWeightsArgs {
  RangeAttentionArgs forward;  // out and lse are not used
  Output weights;
};

// One query of each of B sequences against n keys of its own (all seen) and optionally an own key: q, own_q (B, W);
// own_k, own_v, out (B, D).
struct AttendOneArgs {
  int64_t heads = 0;
  Input q;
  Input k, v;  // (n*B, kv_width): row j*B + b is key j of sequence b; n may be 0 with an own key
  Input own_q, own_k, own_v;
  Output out;
};

[[nodiscard]] Status range_attention(const RangeAttentionArgs& args, const Exec& exec);
[[nodiscard]] Status range_attention_backward(const RangeAttentionBackwardArgs& args, const Exec& exec);
[[nodiscard]] Status attention_weights(const AttentionWeightsArgs& args, const Exec& exec);
[[nodiscard]] Status attend_one(const AttendOneArgs& args, const Exec& exec);

}  // namespace rat::kernels
