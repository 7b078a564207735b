#include "kernels/rattention_layer/rattention_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rattention_layer(const RattentionLayerShape& shape, const Exec& exec) {
  return is_fused(exec.backend->fuses_rattention_layer, shape);
}

std::size_t rattention_layer_saved(const RattentionLayerShape& shape, const Exec& exec) {
  return exec.backend->rattention_layer_saved(shape);
}

Status rattention_layer(const RattentionLayerArgs& args, const Exec& exec) {
  return run_fused_layer(&Backend::rattention_layer, "rattention_layer", args, fuses_rattention_layer(args.shape, exec),
                         exec);
}

Status rattention_layer_backward(const RattentionLayerBackwardArgs& args, const Exec& exec) {
  const bool fused = fuses_rattention_layer(args.forward.shape, exec);
  return run_fused_layer_backward(&Backend::rattention_layer_backward, "rattention_layer_backward", args, fused, exec);
}

}  // namespace rat::kernels
