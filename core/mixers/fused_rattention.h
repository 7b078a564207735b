// Mixers whose whole layers a backend may fuse as RAttention: with a window, or linear attention alone.
#pragma once

#include "core/mixers/fused_mixer.h"
#include "kernels/rattention_layer/rattention_layer.h"

namespace rat {

// Their own weights are those of the norms, the window's first where there is one.
class FusedRattention : public FusedMixer {
 public:
  bool fuses(const MixerPass& pass) const override;
  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       float* y) override;
  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                        float* grad) override;
  Status prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       MixerState& state, float* y, bool residual) override;

 private:
  kernels::LayerStepShape step_shape(const MixerPass& pass) const override { return fused_shape(pass).step(); }
  StepWeights step_weights(const MixerPass& pass, const MixerWeights& weights) const override;
  virtual kernels::RattentionLayerShape fused_shape(const MixerPass& pass) const = 0;
};

}  // namespace rat
