// What the contracts of whole layers in one call have alike (kernels/rat_layer, attention_layer, rattention_layer,
// rnn_layer): what they check, before a backend that has them runs them.
#pragma once

#include <string>

#include "kernels/backend.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"
#include "kernels/layer_step/layer_step.h"

namespace rat::kernels {

template <class Shape>
bool is_fused(bool (*fuses)(const Shape&), const Shape& shape) {
  return fuses != nullptr && fuses(shape);
}

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

template <class Args>
Status run_fused_layer(Status (*Backend::*op)(const Args&), const char* name, const Args& args, bool is_fused,
                       const Exec& exec) {
  RAT_TRY(check_fused_layer(name, args, is_fused, exec));
  RAT_TRY(expect_shape(name, "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.position != nullptr) RAT_TRY(check_cache(name, args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(op, name, args);
}

// The gradient that the half above left, of (rows, channels).
inline Status check_handed_on(const char* op, const StreamGradient& grad, int64_t rows, int64_t channels,
                              const Exec& exec) {
  return check_gradient(op, grad, rows, channels, grad.is_rounded && exec.backend->hands_on_bf16);
}

template <class Args>
Status run_fused_layer_backward(Status (*Backend::*op)(const Args&), const char* name, const Args& args, bool is_fused,
                                const Exec& exec) {
  const auto& s = args.forward.shape;
  RAT_TRY(check_fused_layer(name, args.forward, is_fused, exec));
  RAT_TRY(check_handed_on(name, args.grad, s.rows(), s.channels(), exec));
  return exec.run(op, name, args);
}

}  // namespace rat::kernels
