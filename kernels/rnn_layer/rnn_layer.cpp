#include "kernels/rnn_layer/rnn_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rnn_layer(const RnnLayerShape& shape, const Exec& exec) {
  return exec.backend->fuses_rnn_layer != nullptr && exec.backend->fuses_rnn_layer(shape);
}

std::size_t rnn_layer_saved(const RnnLayerShape& shape, const Exec& exec) {
  return exec.backend->rnn_layer_saved(shape);
}

Status rnn_layer(const RnnLayerArgs& args, const Exec& exec) {
  RAT_TRY(check_fused_layer("rnn_layer", args, fuses_rnn_layer(args.shape, exec), exec));
  RAT_TRY(expect_shape("rnn_layer", "y", args.y, args.shape.rows(), args.shape.channels()));
  if (args.cache.position != nullptr)
    RAT_TRY(check_cache("rnn_layer", args.shape.step(), args.cache, args.shape.tokens));
  return exec.run(&Backend::rnn_layer, "rnn_layer", args);
}

Status rnn_layer_backward(const RnnLayerBackwardArgs& args, const Exec& exec) {
  const RnnLayerShape& s = args.forward.shape;
  RAT_TRY(check_fused_layer("rnn_layer_backward", args.forward, fuses_rnn_layer(s, exec), exec));
  RAT_TRY(check_handed_on("rnn_layer_backward", args.grad, s.rows(), s.channels(), exec));
  return exec.run(&Backend::rnn_layer_backward, "rnn_layer_backward", args);
}

}  // namespace rat::kernels
