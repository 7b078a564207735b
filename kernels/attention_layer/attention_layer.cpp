#include "kernels/attention_layer/attention_layer.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const AttentionLayerArgs& args, const Exec& exec) {
  if (!fuses_attention_layer(args.shape, exec))
    return fail(ErrorCode::unsupported, "{}: the {} backend does not fuse heads of {} in {} channels", op,
                exec.backend->name, args.shape.head_size, args.shape.channels());
  RAT_CHECK(args.in_proj != nullptr && args.out_proj != nullptr && args.saved != nullptr,
            "a fused layer has rounded weights and memory for what it saves");
  return expect_shape(op, "x", args.x, args.shape.rows(), args.shape.channels());
}

}  // namespace

bool fuses_attention_layer(const AttentionLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_attention_layer != nullptr && exec.backend->fuses_attention_layer(shape);
}

std::size_t attention_layer_saved(const AttentionLayerShape& shape, const Exec& exec) {
  return exec.backend->attention_layer_saved(shape);
}

Status attention_layer(const AttentionLayerArgs& args, const Exec& exec) {
  RAT_TRY(check("attention_layer", args, exec));
  RAT_TRY(expect_shape("attention_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.capacity > 0 && !args.shape.generates())
    return fail(ErrorCode::unsupported,
                "attention_layer: a layer that is recurrent, or whose heads share keys, fills no cache; prefill it op by op");
  if (args.cache.capacity > 0)
    RAT_TRY(check_cache("attention_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::attention_layer, "attention_layer", args);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& args, const Exec& exec) {
  RAT_TRY(check("attention_layer_backward", args.forward, exec));
  const AttentionLayerShape& s = args.forward.shape;
  const bool bf16_alone = args.grad.is_rounded && exec.backend->hands_on_bf16;
  RAT_TRY(check_gradient("attention_layer_backward", args.grad, s.rows(), s.channels(), bf16_alone));
  return exec.run(&Backend::attention_layer_backward, "attention_layer_backward", args);
}

}  // namespace rat::kernels
