#include "core/mixers/fused_attention.h"

#include "core/model.h"
#include "core/op_times.h"

namespace rat {

bool FusedAttention::fuses(const MixerPass& pass) const {
  return pass.fused_weights != nullptr && kernels::fuses_attention_layer(fused_shape(pass), pass.exec);
}

kernels::AttentionLayerArgs FusedAttention::fused_args(const MixerPass& pass, const LayerWeights& layer, const float* x,
                                                       float* y) const {
  const kernels::AttentionLayerShape shape = fused_shape(pass);
  const std::size_t bytes = kernels::attention_layer_saved(shape, pass.exec);
  const int64_t rows = shape.rows(), D = shape.channels();
  return {.shape = shape,
          .norm = layer.norm->value,
          .in_proj = pass.fused_weights->of(layer.in_proj->value),
          .out_proj = pass.fused_weights->of(layer.out_proj->value),
          .x = kernels::Input(x, rows, D),
          .y = kernels::Output(y, rows, D),
          .saved = (*pass.saved)[saved_projected].ensure(static_cast<int64_t>(bytes / sizeof(float)) + 1)};
}

Status FusedAttention::forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights&,
                                     const float* x, float* y) {
  const OpTimer timer(pass.times, Op::attention);
  return kernels::attention_layer(fused_args(pass, layer, x, y), pass.exec);
}

Status FusedAttention::backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights&,
                                      const float* x, float* grad) {
  const OpTimer timer(pass.times, Op::attention);
  const kernels::AttentionLayerShape shape = fused_shape(pass);
  return kernels::attention_layer_backward({.forward = fused_args(pass, layer, x, nullptr),
                                            .grad = pass.rounded_gradient->of({grad, shape.rows(), shape.channels()}),
                                            .grad_norm = layer.norm->grad,
                                            .grad_in_proj = layer.in_proj->grad,
                                            .grad_out_proj = layer.out_proj->grad},
                                           pass.exec);
}

Status FusedAttention::prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights&,
                                     const float* x, MixerState& state, float* y, bool residual) {
  const OpTimer timer(pass.times, Op::attention);
  return static_cast<FusableState&>(state).prefill(pass, fused_shape(pass).step(),
                                                   [&](const kernels::LayerCache& cache) {
                                                     kernels::AttentionLayerArgs args = fused_args(pass, layer, x, y);
                                                     args.residual = residual;
                                                     args.cache = cache;
                                                     return kernels::attention_layer(args, pass.exec);
                                                   });
}

}  // namespace rat
