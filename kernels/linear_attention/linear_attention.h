// Causal linear attention with a softmax feature map, over the tokens up to `shift` before the query.
//
//   phi(x) = [softmax(x), softmax(-x)]                       per head: P values become 2 P features
//   out[t] = sum over i <= t - shift of (phi(q[t]) . phi(k[i])) v[i]
//
// Unnormalised and without positions. shift 0 is plain causal linear attention; shift W+1 leaves the tokens t-W .. t to
// a sliding window (the residual linear attention of RAttention).
// Source: Wang et al., RAttention, arXiv:2506.15545; chunkwise form as in Sun et al. 2023, arXiv:2307.08621.
// Shapes: q, out (B*T, D = H P); k, v (B*T, kv) with head h reading columns (h P) % kv.
// State:  sum of phi(k[i])^T v[i], (B, kv/P heads, 2 P, P): all that later queries need of the past, whatever its length.
// Trap:   q and k are used as they are: no 1/sqrt P, no RoPE. Tokens before `shift` see nothing and get zeros.
// Cost:   O(T) with tiles of 64 tokens; never T x T.
#pragma once

#include "kernels/backend.h"
#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct LinearAttentionArgs {
  int64_t tokens = 0;     // T
  int64_t heads = 0;      // H
  int64_t head_size = 0;  // P
  int64_t shift = 0;
  Input q, k, v;
  Output out;
  Dtype dtype = Dtype::f32;  // bf16: a GPU rounds what it multiplies, in heads of 64 and 128
};

struct LinearAttentionBackwardArgs {
  LinearAttentionArgs forward;    // out is not used
  Input grad_out;                 // (B*T, D)
  Output grad_q, grad_k, grad_v;  // added to
};

// For display: the share of token i in token t's output, phi(q[t]) . phi(k[i]) over its sum. weights (B*H*T, T), NaN
// where unseen. (The layer normalises its output, so shares are what counts.)
struct LinearWeightsArgs {
  LinearAttentionArgs forward;  // out is not used
  Output weights;
};

// state += the sum over each sequence's rows of k and v (B*n, kv): row b*n + i is of sequence b.
struct LinearAbsorbArgs {
  int64_t head_size = 0;
  Input k, v;
  Output state;  // (B * kv/P * 2 P, P)
};

// out = phi(q) state: one query of each sequence.
struct LinearReadArgs {
  int64_t head_size = 0;
  Input q;      // (B, D)
  Input state;  // (B * kv/P * 2 P, P)
  Output out;   // (B, D)
};

[[nodiscard]] Status linear_attention(const LinearAttentionArgs& args, const Exec& exec);
[[nodiscard]] Status linear_attention_backward(const LinearAttentionBackwardArgs& args, const Exec& exec);
[[nodiscard]] Status linear_weights(const LinearWeightsArgs& args, const Exec& exec);
[[nodiscard]] Status linear_absorb(const LinearAbsorbArgs& args, const Exec& exec);
[[nodiscard]] Status linear_read(const LinearReadArgs& args, const Exec& exec);

}  // namespace rat::kernels
