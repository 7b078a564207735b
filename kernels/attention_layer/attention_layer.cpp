#include "kernels/attention_layer/attention_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_attention_layer(const AttentionLayerShape& shape, const Exec& exec) {
  return is_fused(exec.backend->fuses_attention_layer, shape);
}

std::size_t attention_layer_saved(const AttentionLayerShape& shape, const Exec& exec) {
  return exec.backend->attention_layer_saved(shape);
}

Status attention_layer(const AttentionLayerArgs& args, const Exec& exec) {
  return run_fused_layer(&Backend::attention_layer, "attention_layer", args, fuses_attention_layer(args.shape, exec),
                         exec);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& args, const Exec& exec) {
  const bool fused = fuses_attention_layer(args.forward.shape, exec);
  return run_fused_layer_backward(&Backend::attention_layer_backward, "attention_layer_backward", args, fused, exec);
}

}  // namespace rat::kernels
