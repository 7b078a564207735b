// The feed-forward half of a block in one call, for backends that fuse it: what core/feed_forward.cpp composes of single
// ops, with bf16 between them.
//
//   y = x + W_2 gelu( W_1 rms_norm(x) ),  exact GELU
//
// Shapes: x, y (N, D) f32 without gaps, their gradient a StreamGradient; W_1 (F, D) and W_2 (D, F) rounded by
//         round_weights; gradients of weights f32, added to. `saved`: feed_forward_saved bytes of the backend's memory,
//         from forward to backward, where forward was to keep.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"

namespace rat::kernels {

struct FeedForwardShape {
  int64_t rows = 0, channels = 0, hidden = 0;  // N, D, F
};

struct FeedForwardArgs {
  FeedForwardShape shape;
  std::span<const float> norm;
  const uint16_t *fc1 = nullptr, *fc2 = nullptr;
  Input x;
  Output y;
  void* saved = nullptr;
  bool keep = true;  // for backward, in `saved`
};

struct FeedForwardBackwardArgs {
  FeedForwardArgs forward;
  StreamGradient grad;
  std::span<float> grad_norm, grad_fc1, grad_fc2;
};

// Whether the backend fuses this shape.
[[nodiscard]] bool fuses_feed_forward(const FeedForwardShape& shape, const Exec& exec);
std::size_t feed_forward_saved(const FeedForwardShape& shape, const Exec& exec);
[[nodiscard]] Status feed_forward(const FeedForwardArgs& args, const Exec& exec);
[[nodiscard]] Status feed_forward_backward(const FeedForwardBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
