// Mixers whose whole layers a backend may fuse as RAttention: with a window, or linear attention alone.
#pragma once

#include "core/mixer.h"
#include "kernels/rattention_layer/rattention_layer.h"

namespace rat {

// Their own weights are those of the norms, the window's first where there is one.
class FusedRattention : public Mixer {
 public:
  bool fuses(const MixerPass& pass) const override;
  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       float* y) override;
  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                        float* grad) override;
  // Their states are FusableStates. Not with a cache in fp8: of a constant size, it would save little.
  bool fuses_generation(const MixerPass& pass) const override;
  Status prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       MixerState& state, float* y, bool residual) override;
  Status prepare_step(const MixerPass& pass, int64_t position, MixerState& state) override;
  Status step_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                    MixerState& state, float* y, bool residual) override;

 private:
  virtual kernels::RattentionLayerShape fused_shape(const MixerPass& pass) const = 0;
};

}  // namespace rat
