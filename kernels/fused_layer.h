// What the contracts of whole layers in one call check alike (kernels/rat_layer, attention_layer, rattention_layer,
// rnn_layer).
#pragma once

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"

namespace rat::kernels {

template <class Args>
Status check_fused_layer(const char* op, const Args& args, bool is_fused, const Exec& exec) {
  const auto& s = args.shape;
  if (!is_fused) {
    std::string heads;
    if constexpr (requires { s.head_size; }) heads = fmt::format("heads of {} in ", s.head_size);
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse {}{} channels", op, exec.backend->name, heads,
                s.channels());
  }
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr && args.saved != nullptr,
            "a fused layer has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, s.rows(), s.channels());
}

// The gradient that the half above left, of (rows, channels).
inline Status check_handed_on(const char* op, const StreamGradient& grad, int64_t rows, int64_t channels,
                              const Exec& exec) {
  return check_gradient(op, grad, rows, channels, grad.is_rounded && exec.backend->hands_on_bf16);
}

}  // namespace rat::kernels
