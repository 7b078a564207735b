#include "kernels/rattention_layer/rattention_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rattention_layer(const RattentionLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rattention_layer != nullptr && exec.backend->fuses_rattention_layer(shape);
}

std::size_t rattention_layer_saved(const RattentionLayerShape& shape, const Exec& exec) {
  return exec.backend->rattention_layer_saved(shape);
}

Status rattention_layer(const RattentionLayerArgs& args, const Exec& exec) {
  RAT_TRY(check_fused_layer("rattention_layer", args, fuses_rattention_layer(args.shape, exec), exec));
  RAT_TRY(expect_shape("rattention_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.position != nullptr)
    RAT_TRY(check_cache("rattention_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::rattention_layer, "rattention_layer", args);
}

Status rattention_layer_backward(const RattentionLayerBackwardArgs& args, const Exec& exec) {
  const RattentionLayerShape& s = args.forward.shape;
  RAT_TRY(check_fused_layer("rattention_layer_backward", args.forward, fuses_rattention_layer(s, exec), exec));
  RAT_TRY(check_handed_on("rattention_layer_backward", args.grad, s.rows(), s.channels(), exec));
  return exec.run(&Backend::rattention_layer_backward, "rattention_layer_backward", args);
}

}  // namespace rat::kernels
