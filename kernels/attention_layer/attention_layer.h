// A whole layer of softmax attention over tokens in one call, for backends that fuse it: what core/sequence_layer.cpp
// and core/mixers/attention_mixer.cpp compose of single ops, with bf16 between them: for training and for prefill;
// kernels/layer_step goes on token by token.
//
//   y = x + W_out attend( W_in rms_norm(x) );  token t attends to tokens t-W .. t, or 0 .. t
//
// Recurrent (RAT+, core/mixers/ratplus_mixer.cpp): keys and values are states that a gate carries over the whole sequence,
// and an output gate follows:
//
//   y = x + W_out( sigmoid(o) attend( q, R scan(g, k), scan(g, v) ) )
//
// Then attention may be dilated: beside its window (at least 0), a token sees every D-th token and the first S of what was
// before it.
//
// Source: Vaswani et al. 2017; Beltagy et al. 2020 (window); Su et al. 2021 (rotary positions); Wei and Gulcehre, RAT+,
// arXiv:2602.18196. Everything between the two f32 residual streams is bf16, sums are f32.
// Shapes: x, y (B*T, D) f32 without gaps, their gradient a StreamGradient; in_proj (D + 2 KV, D), rows value | query | key,
//         head h with keys and values of head h % kv_heads, or, recurrent, (5D, D), rows o | q | k | v | g, and out_proj
//         (D, D) rounded by round_weights; gradients of weights f32, added to.
// Trap:   `saved` carries what backward needs from one call to the other: attention_layer_saved bytes of the backend's
//         memory.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

struct AttentionLayerShape {
  int64_t batch = 0, tokens = 0, heads = 0, head_size = 0;
  int64_t window = -1;   // W; below 0: everything earlier
  double rope_base = 0;  // 0: no positions
  bool recurrent = false;
  int64_t dilation = 0, initial = 0;  // D and S, recurrent; D = 0: not dilated
  int64_t kv_heads = 0;  // that keys and values have, not recurrent; 0: one for each head

  int64_t rows() const { return batch * tokens; }
  int64_t channels() const { return heads * head_size; }
  int64_t key_width() const { return (kv_heads > 0 ? kv_heads : heads) * head_size; }  // KV
  int64_t width() const { return recurrent ? 5 * channels() : channels() + 2 * key_width(); }
  // Keys and values are projected rows.
  bool in_place() const { return !recurrent && key_width() == channels(); }
  LayerStepShape step() const {
    return {.batch = batch,
            .heads = heads,
            .head_size = head_size,
            .window = window,
            .rope_base = rope_base,
            .recurrent = recurrent,
            .dilation = dilation,
            .initial = initial,
            .kv_heads = kv_heads};
  }
};

struct AttentionLayerArgs {
  AttentionLayerShape shape;
  std::span<const float> norm;
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool residual = true;   // false: y without x
  LayerCache cache = {};  // prefill: an empty one is filled
};

struct AttentionLayerBackwardArgs {
  AttentionLayerArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_in_proj, grad_out_proj;
};

// Whether the backend fuses a layer of this shape.
[[nodiscard]] bool fuses_attention_layer(const AttentionLayerShape& shape, const Exec& exec);
std::size_t attention_layer_saved(const AttentionLayerShape& shape, const Exec& exec);
[[nodiscard]] Status attention_layer(const AttentionLayerArgs& args, const Exec& exec);
[[nodiscard]] Status attention_layer_backward(const AttentionLayerBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
