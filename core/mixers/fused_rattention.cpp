#include "core/mixers/fused_rattention.h"

#include "core/model.h"
#include "core/op_times.h"

namespace rat {
namespace {

StepWeights norms_of(const kernels::RattentionLayerShape& shape, const MixerWeights& weights) {
  if (!shape.has_window()) return {.gate_bias = {}, .near_norm = {}, .far_norm = weights.value[0]};
  return {.gate_bias = {}, .near_norm = weights.value[0], .far_norm = weights.value[1]};
}

kernels::RattentionLayerArgs args_of(const kernels::RattentionLayerShape& shape, const MixerPass& pass,
                                     const LayerWeights& layer, const MixerWeights& weights, const float* x, float* y) {
  const std::size_t bytes = kernels::rattention_layer_saved(shape, pass.exec);
  const int64_t rows = shape.rows(), D = shape.channels();
  return {.shape = shape,
          .norm = layer.norm->value,
          .near_norm = norms_of(shape, weights).near_norm,
          .far_norm = norms_of(shape, weights).far_norm,
          .in_proj = pass.fused_weights->of(layer.in_proj->value),
          .out_proj = pass.fused_weights->of(layer.out_proj->value),
          .x = kernels::Input(x, rows, D),
          .y = kernels::Output(y, rows, D),
          .saved = (*pass.saved)[saved_projected].ensure(static_cast<int64_t>(bytes / sizeof(float)) + 1)};
}

}  // namespace

bool FusedRattention::fuses(const MixerPass& pass) const {
  return pass.fused_weights != nullptr && kernels::fuses_rattention_layer(fused_shape(pass), pass.exec);
}

Status FusedRattention::forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                      const float* x, float* y) {
  const OpTimer timer(pass.times, Op::attention);
  return kernels::rattention_layer(args_of(fused_shape(pass), pass, layer, weights, x, y), pass.exec);
}

Status FusedRattention::backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                       const float* x, float* grad) {
  const OpTimer timer(pass.times, Op::attention);
  const kernels::RattentionLayerShape shape = fused_shape(pass);
  return kernels::rattention_layer_backward(
      {.forward = args_of(shape, pass, layer, weights, x, nullptr),
       .grad = pass.rounded_gradient->of({grad, shape.rows(), shape.channels()}),
       .grad_norm = layer.norm->grad,
       .grad_near_norm = shape.has_window() ? weights.grad[0] : std::span<float>(),
       .grad_far_norm = weights.grad[shape.has_window() ? 1 : 0],
       .grad_in_proj = layer.in_proj->grad,
       .grad_out_proj = layer.out_proj->grad},
      pass.exec);
}

Status FusedRattention::prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                      const float* x, MixerState& state, float* y, bool residual) {
  const OpTimer timer(pass.times, Op::attention);
  const kernels::RattentionLayerShape shape = fused_shape(pass);
  return static_cast<FusableState&>(state).prefill(pass, shape.step(), [&](const kernels::LayerCache& cache) {
    kernels::RattentionLayerArgs args = args_of(shape, pass, layer, weights, x, y);
    args.residual = residual;
    args.cache = cache;
    return kernels::rattention_layer(args, pass.exec);
  });
}

StepWeights FusedRattention::step_weights(const MixerPass& pass, const MixerWeights& weights) const {
  return norms_of(fused_shape(pass), weights);
}

}  // namespace rat
