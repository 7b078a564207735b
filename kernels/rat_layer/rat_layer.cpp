#include "kernels/rat_layer/rat_layer.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const RatLayerArgs& args, const Exec& exec) {
  if (!fuses_rat_layer(args.shape, exec))
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse heads of {} in {} channels", op,
                exec.backend->name, args.shape.head_size, args.shape.channels());
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr && args.saved != nullptr,
            "a fused layer has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, args.shape.rows(), args.shape.channels());
}

}  // namespace

bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rat_layer != nullptr && exec.backend->fuses_rat_layer(shape);
}

std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->rat_layer_saved(shape);
}

Status rat_layer(const RatLayerArgs& args, const Exec& exec) {
  RAT_TRY(check("rat_layer", args, exec));
  RAT_TRY(expect_shape("rat_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.capacity > 0) RAT_TRY(check_cache("rat_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::rat_layer, "rat_layer", args);
}

Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec) {
  RAT_TRY(check("rat_layer_backward", args.forward, exec));
  const RatLayerShape& s = args.forward.shape;
  const bool bf16_alone = args.grad.is_rounded && exec.backend->hands_on_bf16;
  RAT_TRY(check_gradient("rat_layer_backward", args.grad, s.rows(), s.channels(), bf16_alone));
  return exec.run(&Backend::rat_layer_backward, "rat_layer_backward", args);
}

}  // namespace rat::kernels
