// A whole layer of RAttention, or of linear attention alone, in one call, for backends that fuse it: what
// core/sequence_layer.cpp and core/mixers/rattention_mixer.cpp (linear_mixer.cpp) compose of single ops, with bf16
// between them: for training and for prefill; kernels/layer_step goes on token by token.
//
//   y = x + W_out( n( attend(R q, R k, v) ) w_near + n( linear(q, k, v) ) w_far );  n: kernels/head_norm
//
// Token t attends to tokens t-W .. t with rotary positions; the linear attention (kernels/linear_attention) has all
// before them, without positions. Linear attention alone has no first term, and sees everything up to the token itself.
// Source: Wang et al., RAttention, arXiv:2506.15545. Everything between the two f32 residual streams is bf16, sums are
// f32. Shapes: x, y (B*T, D) f32 without gaps, their gradient a StreamGradient; in_proj (D + 2 KV, D), rows value |
// query | key,
//         head h with keys and values of head h % kv_heads, and out_proj (D, D) rounded by round_weights; near_norm,
//         far_norm (D); gradients of weights f32, added to.
// Trap:   `saved` carries what backward needs from one call to the other: rattention_layer_saved bytes of the backend's
//         memory.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

struct RattentionLayerShape {
  int64_t batch = 0, tokens = 0, heads = 0, head_size = 0, kv_heads = 0;
  int64_t window = -1;   // W; below 0: linear attention alone
  double rope_base = 0;  // 0: no positions

  int64_t rows() const { return batch * tokens; }
  int64_t channels() const { return heads * head_size; }
  int64_t key_width() const { return kv_heads * head_size; }  // KV
  int64_t width() const { return channels() + 2 * key_width(); }
  bool has_window() const { return window >= 0; }
  int64_t shift() const { return window + 1; }  // of the linear attention
  LayerStepShape step() const {
    return {.batch = batch,
            .heads = heads,
            .head_size = head_size,
            .window = window,
            .rope_base = rope_base,
            .kv_heads = kv_heads,
            .linear = true};
  }
};

struct RattentionLayerArgs {
  RattentionLayerShape shape;
  std::span<const float> norm, near_norm, far_norm;  // near_norm: with a window
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool residual = true;   // false: y without x
  LayerCache cache = {};  // prefill: an empty one is filled, its sums with all tokens but the last W
};

struct RattentionLayerBackwardArgs {
  RattentionLayerArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_near_norm, grad_far_norm, grad_in_proj, grad_out_proj;
};

// Whether the backend fuses a layer of this shape.
[[nodiscard]] bool fuses_rattention_layer(const RattentionLayerShape& shape, const Exec& exec);
std::size_t rattention_layer_saved(const RattentionLayerShape& shape, const Exec& exec);
[[nodiscard]] Status rattention_layer(const RattentionLayerArgs& args, const Exec& exec);
[[nodiscard]] Status rattention_layer_backward(const RattentionLayerBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
