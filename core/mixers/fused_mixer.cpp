#include "core/mixers/fused_mixer.h"

namespace rat {

bool FusedMixer::fuses_generation(const MixerPass& pass) const {
  return fuses(pass) && (pass.cache_dtype != kernels::CacheDtype::fp8 || step_shape(pass).takes_fp8());
}

Status FusedMixer::prepare_step(const MixerPass& pass, int64_t position, MixerState& state) {
  return static_cast<FusableState&>(state).prepare(pass, position, fuses_generation(pass), step_shape(pass));
}

Status FusedMixer::step_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                              const float* x, MixerState& state, float* y, bool residual) {
  return static_cast<FusableState&>(state).step(pass, layer, step_weights(pass, weights), x, y, residual);
}

}  // namespace rat
