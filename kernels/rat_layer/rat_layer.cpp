#include "kernels/rat_layer/rat_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rat_layer(const RatLayerShape& shape, const Exec& exec) {
  return is_fused(exec.backend->fuses_rat_layer, shape);
}

std::size_t rat_layer_saved(const RatLayerShape& shape, const Exec& exec) {
  return exec.backend->rat_layer_saved(shape);
}

Status rat_layer(const RatLayerArgs& args, const Exec& exec) {
  return run_fused_layer(&Backend::rat_layer, "rat_layer", args, fuses_rat_layer(args.shape, exec), exec);
}

Status rat_layer_backward(const RatLayerBackwardArgs& args, const Exec& exec) {
  const bool fused = fuses_rat_layer(args.forward.shape, exec);
  return run_fused_layer_backward(&Backend::rat_layer_backward, "rat_layer_backward", args, fused, exec);
}

}  // namespace rat::kernels
