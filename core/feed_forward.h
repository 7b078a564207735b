// The feed-forward half of a block: y = x + fc2( gelu( fc1( rms_norm(x) ) ) ), exact GELU, no biases.
#pragma once

#include "core/mixer.h"
#include "core/model.h"

namespace rat {

class FeedForward {
 public:
  // `parameters`: fc1, fc2, ln. They outlive this.
  FeedForward(const ModelConfig& config, std::span<Parameter> parameters);

  // x, y (B, T, D); y may be x. `keep`: store what backward needs in pass.saved.
  Status forward(const MixerPass& pass, const float* x, float* y, bool keep);
  // In place: grad is the gradient of y, and becomes that of x.
  Status backward(const MixerPass& pass, const float* x, float* grad);

 private:
  Status forward_few(const MixerPass& pass, const float* x, float* y);

  int64_t D_, F_;
  Parameter *fc1_, *fc2_, *norm_;
};

}  // namespace rat
