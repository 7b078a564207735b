#include "kernels/attention_layer/attention_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_attention_layer(const AttentionLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_attention_layer != nullptr && exec.backend->fuses_attention_layer(shape);
}

std::size_t attention_layer_saved(const AttentionLayerShape& shape, const Exec& exec) {
  return exec.backend->attention_layer_saved(shape);
}

Status attention_layer(const AttentionLayerArgs& args, const Exec& exec) {
  RAT_TRY(check_fused_layer("attention_layer", args, fuses_attention_layer(args.shape, exec), exec));
  RAT_TRY(expect_shape("attention_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.capacity > 0)
    RAT_TRY(check_cache("attention_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::attention_layer, "attention_layer", args);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& args, const Exec& exec) {
  const AttentionLayerShape& s = args.forward.shape;
  RAT_TRY(check_fused_layer("attention_layer_backward", args.forward, fuses_attention_layer(s, exec), exec));
  RAT_TRY(check_handed_on("attention_layer_backward", args.grad, s.rows(), s.channels(), exec));
  return exec.run(&Backend::attention_layer_backward, "attention_layer_backward", args);
}

}  // namespace rat::kernels
