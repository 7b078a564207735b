// A whole RAT layer in one call, for backends that fuse it: what core/sequence_layer.cpp and core/mixers/rat_mixer.cpp
// compose of single ops, with bf16 between them: for training and for prefill; kernels/layer_step goes on from there.
//
//   y = x + W_out( sigmoid(z) * attend( scan( W_in rms_norm(x) ) ) )
//
// Source: Wei et al., RAT, arXiv:2507.04416. Everything between the two f32 residual streams is bf16, sums are f32.
// Shapes: x, y (B*T, D) f32 without gaps, their gradient a StreamGradient; weights in the layouts of core/weights.h, the two
//         matrices rounded by round_weights; gradients of weights f32, added to.
// Trap:   `saved` carries what backward needs from one call to the other: rat_layer_saved bytes of the backend's memory.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

struct RatLayerShape {
  int64_t batch = 0, tokens = 0, heads = 0, head_size = 0, groups = 0, chunk_len = 0;
  double rope_base = 0;  // 0: no positions

  int64_t rows() const { return batch * tokens; }
  int64_t channels() const { return heads * head_size; }
  LayerStepShape step() const { return {batch, heads, head_size, groups, chunk_len, -1, rope_base}; }
};

struct RatLayerArgs {
  RatLayerShape shape;
  std::span<const float> norm, gate_bias;
  const uint16_t *in_proj = nullptr, *out_proj = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool residual = true;   // false: y without x
  LayerCache cache = {};  // prefill: an empty one is filled, and nothing is kept for backward
};

struct RatLayerBackwardArgs {
  RatLayerArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_gate_bias, grad_in_proj, grad_out_proj;
};

// Whether the backend fuses a layer of this shape.
[[nodiscard]] bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec);
std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec);
[[nodiscard]] Status rat_layer(const RatLayerArgs& args, const Exec& exec);
[[nodiscard]] Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
