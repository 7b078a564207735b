#include "kernels/rat_layer/rat_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rat_layer != nullptr && exec.backend->fuses_rat_layer(shape);
}

std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->rat_layer_saved(shape);
}

Status rat_layer(const RatLayerArgs& args, const Exec& exec) {
  RAT_TRY(check_fused_layer("rat_layer", args, fuses_rat_layer(args.shape, exec), exec));
  RAT_TRY(expect_shape("rat_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.capacity > 0) RAT_TRY(check_cache("rat_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::rat_layer, "rat_layer", args);
}

Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec) {
  const RatLayerShape& s = args.forward.shape;
  RAT_TRY(check_fused_layer("rat_layer_backward", args.forward, fuses_rat_layer(s, exec), exec));
  RAT_TRY(check_handed_on("rat_layer_backward", args.grad, s.rows(), s.channels(), exec));
  return exec.run(&Backend::rat_layer_backward, "rat_layer_backward", args);
}

}  // namespace rat::kernels
