// The end of a language model in one call, for backends that fuse it: norm, head and cross-entropy, and back, with bf16
// between them.
//
//   logits = rms_norm(x) W^T;  sums and gradient of the logits as cross_entropy has them
//
// Shapes: x (N, D) f32 without gaps, its gradient a StreamGradient; W (V, D) rounded by round_weights; targets (N);
//         gradients of weights f32, added to.
// Traps:  with grad_scale 0 nothing but the sums is computed. As in cross_entropy, a negative target is ignored and the
//         call waits for the sums; what comes after them is only started.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace rat::kernels {

struct LossHeadShape {
  int64_t rows = 0, channels = 0, vocab = 0;  // N, D, V
};

struct LossHeadArgs {
  LossHeadShape shape;
  std::span<const float> norm = {};
  const uint16_t* head = nullptr;
  Input x = {};
  std::span<const int32_t> targets = {};  // host memory
  CrossEntropySums* sums = nullptr;       // host memory, added to
  float grad_scale = 0;
  StreamGradient grad = {};  // out only
  std::span<float> grad_norm = {}, grad_head = {};
};

[[nodiscard]] bool fuses_loss_head(const LossHeadShape& shape, const Exec& exec);
[[nodiscard]] Status loss_head(const LossHeadArgs& args, const Exec& exec);

}  // namespace rat::kernels
