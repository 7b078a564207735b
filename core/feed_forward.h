// The feed-forward half of a block: y = x + fc2( gelu( fc1( rms_norm(x) ) ) ), exact GELU, no biases.
#pragma once

#include "core/mixer.h"
#include "core/model.h"
#include "kernels/feed_forward/feed_forward.h"

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
  bool fuses(const MixerPass& pass) const;
  kernels::FeedForwardArgs fused_args(const MixerPass& pass, const float* x, float* y) const;
  struct Hidden {  // rows of gelu's output and its gradient (F), of the normed input and its gradient (D)
    kernels::Output hidden, wide, normed, narrow;
  };
  Status hidden_gradients(const MixerPass& pass, const kernels::Input& x, const kernels::Input& grad, const Hidden& to);
  Status forward_whole(const MixerPass& pass, const float* x, float* y, bool keep);

  int64_t D_, F_;
  Parameter *fc1_, *fc2_, *norm_;
};

}  // namespace rat
