#include "kernels/rnn_layer/rnn_layer.h"

#include "kernels/fused_layer.h"

namespace rat::kernels {

bool fuses_rnn_layer(const RnnLayerShape& shape, const Exec& exec) {
  return is_fused(exec.backend->fuses_rnn_layer, shape);
}

std::size_t rnn_layer_saved(const RnnLayerShape& shape, const Exec& exec) {
  return exec.backend->rnn_layer_saved(shape);
}

Status rnn_layer(const RnnLayerArgs& args, const Exec& exec) {
  return run_fused_layer(&Backend::rnn_layer, "rnn_layer", args, fuses_rnn_layer(args.shape, exec), exec);
}

Status rnn_layer_backward(const RnnLayerBackwardArgs& args, const Exec& exec) {
  const bool fused = fuses_rnn_layer(args.forward.shape, exec);
  return run_fused_layer_backward(&Backend::rnn_layer_backward, "rnn_layer_backward", args, fused, exec);
}

}  // namespace rat::kernels
