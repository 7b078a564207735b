// A whole RNN layer in one call, for backends that fuse it: what core/sequence_layer.cpp and core/mixers/rnn_mixer.cpp
// compose of single ops, with bf16 between them: for training and for prefill; kernels/layer_step goes on token by
// token.
//
//   y = x + W_out( sigmoid(z) scan(g, v) );  columns z | v | g of W_in rms_norm(x)
//
// Source: Wei et al., RAT, arXiv:2507.04416, whose limit of one chunk it is. Everything between the two f32 residual
// streams is bf16, sums and running states are f32.
// Shapes: x, y (B*T, D) f32 without gaps, their gradient a StreamGradient; in_proj (3D, D), out_proj (D, D) rounded by
//         round_weights; gate_bias (D); gradients of weights f32, added to.
// Trap:   `saved` carries what backward needs from one call to the other: rnn_layer_saved bytes of the backend's
//         memory.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

struct RnnLayerShape {
  int64_t batch = 0, tokens = 0, width = 0;  // D

  int64_t rows() const { return batch * tokens; }
  int64_t channels() const { return width; }
  LayerStepShape step() const { return {.batch = batch, .heads = 1, .head_size = width, .rnn = true}; }
};

struct RnnLayerArgs {
  RnnLayerShape shape;
  std::span<const float> norm, gate_bias;
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool residual = true;   // false: y without x
  LayerCache cache = {};  // prefill: the state after the last token goes there
};

struct RnnLayerBackwardArgs {
  RnnLayerArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_gate_bias, grad_in_proj, grad_out_proj;
};

// Whether the backend fuses a layer of this shape.
[[nodiscard]] bool fuses_rnn_layer(const RnnLayerShape& shape, const Exec& exec);
std::size_t rnn_layer_saved(const RnnLayerShape& shape, const Exec& exec);
[[nodiscard]] Status rnn_layer(const RnnLayerArgs& args, const Exec& exec);
[[nodiscard]] Status rnn_layer_backward(const RnnLayerBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
