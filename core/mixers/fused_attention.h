// Mixers whose whole layers a backend may fuse as attention over tokens: of the tokens' own keys, or of running ones
// (RAT+).
#pragma once

#include "core/mixers/fused_mixer.h"
#include "kernels/attention_layer/attention_layer.h"

namespace rat {

class FusedAttention : public FusedMixer {
 public:
  bool fuses(const MixerPass& pass) const override;
  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       float* y) override;
  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                        float* grad) override;
  Status prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       MixerState& state, float* y, bool residual) override;

 private:
  // With the memory for what backward needs, in pass.saved.
  kernels::AttentionLayerArgs fused_args(const MixerPass& pass, const LayerWeights& layer, const float* x,
                                         float* y) const;
  kernels::LayerStepShape step_shape(const MixerPass& pass) const override { return fused_shape(pass).step(); }
  virtual kernels::AttentionLayerShape fused_shape(const MixerPass& pass) const = 0;
};

}  // namespace rat
