// RAT: a gated recurrence inside each chunk; queries attend to the end states of earlier chunks and to their own
// running state. Columns of `projected`: output gate z (D), value (D), forget gate (D), query (G P), key (G P).
#include "core/mixers/rat_mixer.h"

#include <algorithm>

#include "core/mixers/attention_products.h"
#include "core/mixers/mixers.h"
#include "core/model.h"
#include "core/op_times.h"
#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"

namespace rat {

Status RatMixer::forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) {
  const int64_t rows = pass.rows(), C = chunks(pass.tokens);
  Activations& saved = *pass.saved;
  const Output in(projected, rows, width());
  const Output z = in.columns(0, D_), v = in.columns(D_, D_), gate = in.columns(2 * D_, D_);
  const Output q = in.columns(3 * D_, W_), k = in.columns(3 * D_ + W_, W_);
  const Output k_states = states(saved[state_k].ensure(rows * D_), rows);
  const Output v_states = states(saved[state_v].ensure(rows * D_), rows);
  const auto* rotation = table(pass.tokens);
  const Output q_rotated(saved[rotated_q].ensure(rows * W_), rows, W_);
  {
    const OpTimer timer(pass.times, Op::scan);
    RAT_TRY(for_chunk_blocks(pass, [&](int64_t row, int64_t count, int64_t tokens, int64_t first) -> Status {
      const auto of = [&](const auto& view) { return view.row_range(row, count); };
      RAT_TRY(kernels::sigmoid({.x = of(z), .bias = {}}, pass.exec));
      RAT_TRY(kernels::sigmoid({.x = of(gate), .bias = weights.value[0]}, pass.exec));
      RAT_TRY(kernels::gated_scan({of(gate), of(k), of(k_states), tokens, L_}, pass.exec));
      RAT_TRY(kernels::gated_scan({of(gate), of(v), of(v_states), tokens, L_}, pass.exec));
      return kernels::rope(
          {.x = of(q), .y = of(q_rotated), .table = rotation, .tokens = tokens, .chunk_len = L_, .first = first},
          pass.exec);
    }));
  }
  const OpTimer timer(pass.times, Op::attention);
  float* end_keys = saved[end_k].ensure(pass.batch * C * D_);
  for (int64_t b = 0; b < pass.batch && C > 0; ++b)
    RAT_TRY(kernels::rope({.x = ends<const float>(k_states.data, pass, b, C),
                           .y = Output(end_keys + b * C * D_, C, D_),
                           .table = rotation,
                           .tokens = C},
                          pass.exec));
  saved[pre_gate].ensure(rows * D_);
  saved[log_sum].ensure(pass.batch * H_ * pass.tokens);
  const auto args = attention_args(pass, projected);
  RAT_TRY(kernels::range_attention(args, pass.exec));
  return kernels::output_gate({.gate = z, .y = args.out, .mixed = {mixed, rows, D_}}, pass.exec);
}

kernels::RangeAttentionArgs RatMixer::attention_args(const MixerPass& pass, const float* projected) const {
  Activations& saved = *pass.saved;
  const int64_t rows = pass.rows(), C = chunks(pass.tokens);
  kernels::RangeAttentionArgs args;
  args.shape = {pass.batch, pass.tokens, H_, P_, C, {.chunk_len = L_, .offset = 0, .window = -1}};
  args.q = Input(saved[rotated_q].data(), rows, W_);
  args.k = {saved[end_k].data(), D_, C * D_};
  args.v = {saved[state_v].data() + (L_ - 1) * D_, L_ * D_, pass.tokens * D_};
  args.own_q = Input(projected, rows, width()).columns(3 * D_, W_);
  args.own_k = Input(saved[state_k].data(), rows, D_);
  args.own_v = Input(saved[state_v].data(), rows, D_);
  args.out = Output(saved[pre_gate].data(), rows, D_);
  args.lse = Output(saved[log_sum].data(), pass.batch * H_, pass.tokens);
  set_products(pass, args);
  return args;
}

Status RatMixer::backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float*,
                          const float* grad_mixed, float* grad_projected) {
  const int64_t rows = pass.rows(), C = chunks(pass.tokens);
  Activations& saved = *pass.saved;
  Workspace& work = *pass.work;
  const Input in(projected, rows, width());
  const Output grad(grad_projected, rows, width());
  const Output to_y(work[grad_y].ensure(rows * D_), rows, D_);
  const Output to_k = states(work[grad_state_k].ensure(rows * D_), rows);
  const Output to_v = states(work[grad_state_v].ensure(rows * D_), rows);
  const Output to_q(work[grad_q].ensure(rows * W_), rows, W_);
  const Output q_grad = grad.columns(3 * D_, W_), gate_grad = grad.columns(2 * D_, D_);
  const auto* rotation = table(pass.tokens);
  float* to_ends = work[grad_end_k].ensure(pass.batch * C * D_);
  {
    const OpTimer timer(pass.times, Op::attention);
    RAT_TRY(kernels::output_gate_backward({.gate = in.columns(0, D_),
                                           .y = Input(saved[pre_gate].data(), rows, D_),
                                           .grad_mixed = Input(grad_mixed, rows, D_),
                                           .grad_y = to_y,
                                           .grad_gate = grad.columns(0, D_)},
                                          pass.exec));
    RAT_TRY(kernels::zero({.x = Output(to_ends, pass.batch * C, D_)}, pass.exec));
    // Gradients of values at chunk ends are added in place, on top of those of the own values.
    RAT_TRY(kernels::range_attention_backward({.forward = attention_args(pass, projected),
                                               .grad_out = to_y,
                                               .grad_q = to_q,
                                               .grad_k = {to_ends, D_, C * D_},
                                               .grad_v = {to_v.data + (L_ - 1) * D_, L_ * D_, pass.tokens * D_},
                                               .grad_own_q = q_grad,
                                               .grad_own_k = to_k,
                                               .grad_own_v = to_v},
                                              pass.exec));
    for (int64_t b = 0; b < pass.batch && C > 0; ++b)
      RAT_TRY(kernels::rope({.x = Input(to_ends + b * C * D_, C, D_),
                             .y = ends<float>(to_k.data, pass, b, C),
                             .table = rotation,
                             .tokens = C,
                             .inverse = true,
                             .add = true},
                            pass.exec));
  }
  const OpTimer timer(pass.times, Op::scan);
  const Input gate = in.columns(2 * D_, D_);
  const Input k_states(saved[state_k].data(), rows, D_), v_states(saved[state_v].data(), rows, D_);
  RAT_TRY(for_chunk_blocks(pass, [&](int64_t row, int64_t count, int64_t tokens, int64_t first) -> Status {
    const auto of = [&](const auto& view) { return view.row_range(row, count); };
    RAT_TRY(kernels::rope({.x = of(to_q),
                           .y = of(q_grad),
                           .table = rotation,
                           .tokens = tokens,
                           .chunk_len = L_,
                           .first = first,
                           .inverse = true,
                           .add = true},
                          pass.exec));
    kernels::GatedScanBackwardArgs scan{.gate = of(gate),
                                        .input = of(in.columns(D_, D_)),
                                        .state = of(v_states),
                                        .grad_state = of(to_v),
                                        .grad_input = of(grad.columns(D_, D_)),
                                        .grad_gate = of(gate_grad),
                                        .tokens = tokens,
                                        .chunk_len = L_};
    RAT_TRY(kernels::gated_scan_backward(scan, pass.exec));
    scan.input = of(in.columns(3 * D_ + W_, W_));
    scan.state = of(k_states);
    scan.grad_state = of(to_k);
    scan.grad_input = of(grad.columns(3 * D_ + W_, W_));
    scan.add_grad_gate = true;
    return kernels::gated_scan_backward(scan, pass.exec);
  }));
  return kernels::gate_gradient({.gate = gate, .grad = gate_grad, .grad_bias = weights.grad[0]}, pass.exec);
}

kernels::RatLayerArgs RatMixer::fused_args(const MixerPass& pass, const LayerWeights& layer,
                                           const MixerWeights& weights, const float* x, float* y) const {
  const auto shape = fused_shape(pass);
  const std::size_t bytes = kernels::rat_layer_saved(shape, pass.exec);
  return {.shape = shape,
          .norm = layer.norm->value,
          .gate_bias = weights.value[0],
          .in_proj = pass.fused_weights->of(layer.in_proj->value),
          .out_proj = pass.fused_weights->of(layer.out_proj->value),
          .x = Input(x, pass.rows(), D_),
          .y = Output(y, pass.rows(), D_),
          .saved = (*pass.saved)[saved_projected].ensure(static_cast<int64_t>(bytes / sizeof(float)) + 1)};
}

Status RatMixer::forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                               const float* x, float* y) {
  const OpTimer timer(pass.times, Op::attention);
  return kernels::rat_layer(fused_args(pass, layer, weights, x, y), pass.exec);
}

Status RatMixer::backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                const float* x, float* grad) {
  const OpTimer timer(pass.times, Op::attention);
  return kernels::rat_layer_backward({.forward = fused_args(pass, layer, weights, x, nullptr),
                                      .grad = pass.rounded_gradient->of({grad, pass.rows(), D_}),
                                      .grad_norm = layer.norm->grad,
                                      .grad_gate_bias = weights.grad[0],
                                      .grad_in_proj = layer.in_proj->grad,
                                      .grad_out_proj = layer.out_proj->grad},
                                     pass.exec);
}

kernels::Input RatMixer::rows_of(const MixerPass& pass, Probe probe, const float* projected) const {
  const Input in(projected, pass.rows(), width());
  if (probe == Probe::gate) return in.columns(2 * D_, D_);
  if (probe == Probe::out_gate) return in.columns(0, D_);
  if (probe == Probe::state_k) return {(*pass.saved)[state_k].data(), pass.rows(), D_};
  if (probe == Probe::state_v) return {(*pass.saved)[state_v].data(), pass.rows(), D_};
  return {};
}

Status RatMixer::attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) {
  kernels::RangeAttentionArgs args = attention_args(pass, projected);
  const int64_t at = head * P_;
  args.shape.heads = 1;
  args.q = args.q.columns(at % W_, P_);
  args.own_q = args.own_q.columns(at % W_, P_);
  args.own_k = args.own_k.columns(at, P_);
  args.own_v = args.own_v.columns(at, P_);
  args.k.data += at;
  args.v.data += at;
  return kernels::attention_weights({.forward = args, .weights = {weights, pass.tokens, args.shape.keys + 1}},
                                    pass.exec);
}

namespace {

MixerCost cost(const ModelConfig& config, const LayerConfig& layer, int64_t tokens) {
  const auto D = static_cast<double>(config.d_model);
  const int64_t chunks = tokens / layer.chunk, rest = tokens % layer.chunk;
  // Token t attends to t / L end states and itself; the scan costs 4 flops per channel for keys and for values.
  const double seen =
      static_cast<double>(layer.chunk) * static_cast<double>(chunks) * static_cast<double>(chunks - 1) / 2 +
      static_cast<double>(rest) * static_cast<double>(chunks);
  const double per_key = 4 * D;
  const int64_t shared = config.groups * config.head_size();
  return {.flops_per_token = per_key * (seen / static_cast<double>(tokens) + 1) + 8 * D,
          .decode_flops = per_key * static_cast<double>(chunks + 1) + 8 * D,
          .cache_bytes = 4 * 2 * config.d_model * (chunks + 1),
          .saved_floats_per_token = 3 * config.d_model + shared + config.heads + config.d_model / layer.chunk};
}

}  // namespace

MixerType rat_mixer_type() {
  MixerType type;
  type.name = "rat";
  type.description = "recurrence inside chunks of L tokens, softmax attention over the chunks";
  type.uses_chunk = true;
  type.uses_groups = true;
  type.probes = {Probe::gate,      Probe::out_gate,           Probe::state_k,          Probe::state_v,
                 Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return 3 * c.d_model + 2 * c.groups * c.head_size(); };
  type.extra_weights = [](const ModelConfig& c, const LayerConfig& layer) {
    return std::vector<WeightSpec>{{"gate_bias", "gate_bias", {c.d_model}, Init::gate_bias, layer.chunk}};
  };
  type.columns_seen = [](const LayerConfig& layer, int64_t t) { return t / layer.chunk + 1; };
  type.cost = cost;
  type.create = [](const ModelConfig& c, const LayerConfig& layer,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<RatMixer>(c, layer, backend);
  };
  return type;
}

}  // namespace rat
