// Mixers whose whole layers a backend may compute: what all of them do alike when they generate (kernels/layer_step).
// Their states are FusableStates.
#pragma once

#include "core/mixer.h"
#include "core/mixers/fused_cache.h"

namespace rat {

class FusedMixer : public Mixer {
 public:
  // Not with a cache in fp8 where it would save little.
  bool fuses_generation(const MixerPass& pass) const override;
  Status prepare_step(const MixerPass& pass, int64_t position, MixerState& state) override;
  Status step_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                    MixerState& state, float* y, bool residual) override;

 private:
  virtual kernels::LayerStepShape step_shape(const MixerPass& pass) const = 0;
  virtual StepWeights step_weights(const MixerPass&, const MixerWeights&) const { return {}; }
};

}  // namespace rat
