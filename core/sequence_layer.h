// One sequence layer: y = out_proj( mixer( in_proj( rms_norm(x) ) ) ), without the residual.
#pragma once

#include <memory>

#include "core/mixer.h"
#include "core/model.h"

namespace rat {

class SequenceLayer {
 public:
  // `parameters`: in the order of sequence_layer_weights. They outlive the layer.
  SequenceLayer(const ModelConfig& config, const LayerConfig& layer, std::span<Parameter> parameters,
                const kernels::Backend& backend);

  // A training step of such a pass runs as one fused half of a block.
  bool fuses(const MixerPass& pass) const { return mixer_->fuses(pass); }
  // x, y (B, T, D). With `residual`, y = x + layer(x), and y may be x.
  Status forward(const MixerPass& pass, const float* x, float* y, bool residual);
  // After forward with the same pass and x. Adds to the weights' gradients. With `residual`, grad_x already holds the
  // gradient of the sum (and may be grad_y): the branch's is added.
  Status backward(const MixerPass& pass, const float* x, const float* grad_y, float* grad_x, bool residual);

  std::unique_ptr<MixerState> start(int64_t batch) const { return mixer_->start(batch); }
  // Forward over fresh sequences, which also loads their state.
  Status prefill(const MixerPass& pass, const float* x, MixerState& state, float* y, bool residual);
  // Before each step: the host's part of it.
  Status prepare_step(const MixerPass& pass, int64_t position, MixerState& state) {
    return mixer_->prepare_step(pass, position, state);
  }
  // Whether a step starts the same work as the one before, so that it may be a replay of it.
  bool repeats_steps(const MixerPass& pass) const { return mixer_->fuses_generation(pass); }
  // One token of every sequence: x, y (B, D).
  Status step(const MixerPass& pass, int64_t position, const float* x, MixerState& state, float* y, bool residual);

  // Takes over other settings of a layer with the same weights.
  void set_layer(const ModelConfig& config, const LayerConfig& layer);

  const MixerType& type() const { return *type_; }
  Mixer& mixer() { return *mixer_; }

 private:
  Status forward_unfused(const MixerPass& pass, const float* x, float* y, bool residual);
  // That op by op, whose cache is f32, is as the pass asks.
  Status check_cache(const MixerPass& pass) const;
  Status project_out(const MixerPass& pass, int64_t rows, const float* mixed, const float* x, float* y, bool residual);

  int64_t D_, N_, P_;
  const MixerType* type_;
  std::unique_ptr<Mixer> mixer_;
  Parameter *in_proj_, *out_proj_, *norm_;
  MixerWeights extra_;
};

}  // namespace rat
