#include "kernels/rattention_layer/rattention_layer.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const RattentionLayerArgs& args, const Exec& exec) {
  if (!fuses_rattention_layer(args.shape, exec))
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse heads of {} in {} channels", op,
                exec.backend->name, args.shape.head_size, args.shape.channels());
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr && args.saved != nullptr,
            "a fused layer has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, args.shape.rows(), args.shape.channels());
}

}  // namespace

bool fuses_rattention_layer(const RattentionLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rattention_layer != nullptr && exec.backend->fuses_rattention_layer(shape);
}

std::size_t rattention_layer_saved(const RattentionLayerShape& shape, const Exec& exec) {
  return exec.backend->rattention_layer_saved(shape);
}

Status rattention_layer(const RattentionLayerArgs& args, const Exec& exec) {
  RAT_TRY(check("rattention_layer", args, exec));
  RAT_TRY(expect_shape("rattention_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  return exec.run(&Backend::rattention_layer, "rattention_layer", args);
}

Status rattention_layer_backward(const RattentionLayerBackwardArgs& args, const Exec& exec) {
  RAT_TRY(check("rattention_layer_backward", args.forward, exec));
  const RattentionLayerShape& s = args.forward.shape;
  const bool bf16_alone = args.grad.is_rounded && exec.backend->hands_on_bf16;
  RAT_TRY(check_gradient("rattention_layer_backward", args.grad, s.rows(), s.channels(), bf16_alone));
  return exec.run(&Backend::rattention_layer_backward, "rattention_layer_backward", args);
}

}  // namespace rat::kernels
