// What mixers with attention over tokens share: in what precision they multiply, one head's weights, the way back. Their
// projected rows are v | q | k, of widths KV, D and KV.
#pragma once

#include "core/mixer.h"
#include "kernels/range_attention/range_attention.h"

namespace rat {

// Softmax amplifies errors of scores: their products are the careful ones.
inline void set_products(const MixerPass& pass, kernels::RangeAttentionArgs& args) {
  if (pass.dtype != kernels::Dtype::bf16) return;
  args.score_dtype = pass.exec.backend->careful(pass.dtype);
  args.dtype = pass.dtype;
}

// weights (batch, tokens, tokens) of one head.
inline Status token_weights_of_head(const MixerPass& pass, kernels::RangeAttentionArgs args, int64_t head, float* weights) {
  const int64_t P = args.shape.head_size, first = head * P, shared_first = first % args.shape.kv_columns();
  args.shape.heads = 1;
  args.shape.kv_width = P;
  args.q = args.q.columns(first, P);
  args.k.data += shared_first;
  args.v.data += shared_first;
  return kernels::attention_weights({.forward = args, .weights = {weights, pass.tokens, pass.tokens}}, pass.exec);
}

// Writes grad_projected (batch * tokens, KV + D + KV): of rotated queries and keys where they were rotated.
inline Status token_attention_backward(const MixerPass& pass, const kernels::RangeAttentionArgs& forward,
                                       const kernels::Input& grad_out, float* grad_projected) {
  const int64_t D = forward.shape.channels(), KV = forward.shape.kv_columns(), width = D + 2 * KV;
  const kernels::Output grad(grad_projected, pass.rows(), width);
  RAT_TRY(kernels::zero({.x = grad}, pass.exec));
  const auto sequences = [&](int64_t column) {
    return kernels::Sequences<float>{grad_projected + column, width, pass.tokens * width};
  };
  return kernels::range_attention_backward({.forward = forward,
                                            .grad_out = grad_out,
                                            .grad_q = grad.columns(KV, D),
                                            .grad_k = sequences(KV + D),
                                            .grad_v = sequences(0),
                                            .grad_own_q = {},
                                            .grad_own_k = {},
                                            .grad_own_v = {}},
                                           pass.exec);
}

}  // namespace rat
