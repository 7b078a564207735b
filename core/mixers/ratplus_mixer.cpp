// RAT+: one gated recurrence over the whole sequence on keys and values, then softmax attention over tokens, dense or
// dilated: token t sees the tokens t-W .. t, every D-th token before them, and the first S. Because every state carries
// what came before it, D, W and S may be changed at inference on the same weights.
// Source: Wei and Gulcehre, RAT+, arXiv:2602.18196. RoPE by token. No bias on the gate.
// Columns of `projected`: output gate o (D), query (D), key (D), value (D), forget gate g (D).
#include <algorithm>

#include "core/mixers/attention_products.h"
#include "core/mixers/fused_attention.h"
#include "core/mixers/key_cache.h"
#include "core/mixers/mixers.h"
#include "core/op_times.h"
#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rope/rope.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { state_k = saved_mixer, state_v, rotated_k, pre_gate, log_sum };
enum Work : std::size_t { grad_y = work_mixer, grad_state_k, grad_state_v, no_bias, step_row };

TokenWindow window_of(const LayerConfig& layer) {
  if (layer.dilation == 1) return {};  // dense: everything is seen whatever the window
  return {.window = layer.window, .dilation = layer.dilation, .initial = layer.initial};
}

struct RatplusState : FusableState {
  KeyCache cache;     // rotated running keys, running values
  StateRows running;  // (2, B, D): keys, values

  RatplusState(KeyCache&& empty, StateRows&& zeros) : cache(std::move(empty)), running(std::move(zeros)) {}
  int64_t bytes() const override { return fused ? fused->bytes() : cache.bytes() + running.bytes(); }
  Status clear() override {
    cache.clear();
    if (fused) RAT_TRY(fused->clear());
    return running.zero();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(KeyCache copies, cache.repeated(batch));
    RAT_ASSIGN(StateRows states, running.repeated(1, batch));
    auto copy = std::make_unique<RatplusState>(std::move(copies), std::move(states));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

class RatplusMixer final : public FusedAttention {
 public:
  RatplusMixer(const ModelConfig& config, const LayerConfig& layer, const kernels::Backend& backend)
      : base_(config.rope_base),
        D_(config.d_model),
        H_(config.heads),
        P_(config.head_size()),
        backend_(&backend),
        table_(P_, config.rope_base, backend) {
    set_layer(config, layer);
  }

  void set_layer(const ModelConfig& config, const LayerConfig& layer) override {
    window_ = window_of(layer);
    rope_ = config.positions_of(layer) == Positions::rope;
  }

  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override;
  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float* mixed,
                  const float* grad_mixed, float* grad_projected) override;

  Input rows_of(const MixerPass& pass, Probe probe, const float* projected) const override {
    const Input in(projected, pass.rows(), 5 * D_);
    if (probe == Probe::gate) return in.columns(4 * D_, D_);
    if (probe == Probe::out_gate) return in.columns(0, D_);
    if (probe == Probe::state_k) return {(*pass.saved)[state_k].data(), pass.rows(), D_};
    if (probe == Probe::state_v) return {(*pass.saved)[state_v].data(), pass.rows(), D_};
    return {};
  }
  int64_t attention_columns(int64_t tokens) const override { return tokens; }
  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override;

  std::unique_ptr<MixerState> start(int64_t batch) const override {
    return std::make_unique<RatplusState>(KeyCache(*backend_, batch, D_, window_), StateRows(*backend_, 2 * batch, D_));
  }
  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override;
  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected, MixerState& state,
              float* mixed) override;

 private:
  const kernels::RopeTable* table(int64_t tokens) {
    if (rope_) table_.ensure(tokens);
    return rope_ ? &table_ : nullptr;
  }
  kernels::AttentionLayerShape fused_shape(const MixerPass& pass) const override {
    return {.batch = pass.batch,
            .tokens = pass.tokens,
            .heads = H_,
            .head_size = P_,
            .window = window_.window,
            .rope_base = rope_ ? base_ : 0.0,
            .recurrent = true,
            .dilation = window_.dilation,
            .initial = window_.initial};
  }
  // The keys that are attended to, (B*T, D).
  const float* keys(const MixerPass& pass) const { return (*pass.saved)[rope_ ? rotated_k : state_k].data(); }
  kernels::RangeAttentionArgs attention_args(const MixerPass& pass, const float* projected) const;
  // Rows D-1, 2D-1, ... of every sequence of a (B*T, D) tensor.
  template <class T>
  kernels::Sequences<T> every(T* data, int64_t tokens) const {
    return {data + (window_.dilation - 1) * D_, window_.dilation * D_, tokens * D_};
  }

  double base_;
  int64_t D_, H_, P_;
  TokenWindow window_;
  bool rope_ = true;
  const kernels::Backend* backend_;
  kernels::RopeTable table_;
};

Status RatplusMixer::forward(const MixerPass& pass, const MixerWeights&, float* projected, float* mixed) {
  const int64_t rows = pass.rows();
  Activations& saved = *pass.saved;
  const Output in(projected, rows, 5 * D_);
  const Output o = in.columns(0, D_), q = in.columns(D_, D_), gate = in.columns(4 * D_, D_);
  const Output k_states(saved[state_k].ensure(rows * D_), rows, D_);
  const Output v_states(saved[state_v].ensure(rows * D_), rows, D_);
  {
    const OpTimer timer(pass.times, Op::scan);
    RAT_TRY(kernels::sigmoid({.x = o, .bias = {}}, pass.exec));
    RAT_TRY(kernels::sigmoid({.x = gate, .bias = {}}, pass.exec));
    RAT_TRY(kernels::gated_scan({gate, in.columns(2 * D_, D_), k_states, pass.tokens, pass.tokens}, pass.exec));
    RAT_TRY(kernels::gated_scan({gate, in.columns(3 * D_, D_), v_states, pass.tokens, pass.tokens}, pass.exec));
  }
  const OpTimer timer(pass.times, Op::attention);
  if (const auto* rotation = table(pass.tokens)) {
    const Output rotated(saved[rotated_k].ensure(rows * D_), rows, D_);
    RAT_TRY(kernels::rope({.x = q, .y = q, .table = rotation, .tokens = pass.tokens}, pass.exec));
    RAT_TRY(kernels::rope({.x = k_states, .y = rotated, .table = rotation, .tokens = pass.tokens}, pass.exec));
  }
  saved[pre_gate].ensure(rows * D_);
  saved[log_sum].ensure(pass.batch * H_ * pass.tokens);
  const auto args = attention_args(pass, projected);
  RAT_TRY(kernels::range_attention(args, pass.exec));
  return kernels::output_gate({.gate = o, .y = args.out, .mixed = {mixed, rows, D_}}, pass.exec);
}

kernels::RangeAttentionArgs RatplusMixer::attention_args(const MixerPass& pass, const float* projected) const {
  Activations& saved = *pass.saved;
  const int64_t T = pass.tokens, rows = pass.rows();
  const float *k = keys(pass), *v = saved[state_v].data();
  kernels::RangeAttentionArgs args;
  args.shape = {pass.batch, T, H_, P_, T, {.chunk_len = 1, .offset = 1, .window = window_.window}};
  args.q = Input(projected, rows, 5 * D_).columns(D_, D_);
  args.k = {k, D_, T * D_};
  args.v = {v, D_, T * D_};
  args.out = Output(saved[pre_gate].data(), rows, D_);
  args.lse = Output(saved[log_sum].data(), pass.batch * H_, T);
  set_products(pass, args);
  if (window_.window < 0) return args;
  args.more_count = 2;
  args.more[0] = {.keys = T / window_.dilation,
                  .range = kernels::KeyRange::dilated(window_.dilation, window_.window, window_.initial),
                  .k = every(k, T),
                  .v = every(v, T),
                  .first_column = window_.dilation - 1,
                  .column_step = window_.dilation};
  args.more[1] = {.keys = std::min(T, window_.initial),
                  .range = kernels::KeyRange::before_window(window_.window, window_.initial),
                  .k = args.k,
                  .v = args.v};
  return args;
}

Status RatplusMixer::backward(const MixerPass& pass, const MixerWeights&, const float* projected, const float*,
                              const float* grad_mixed, float* grad_projected) {
  const int64_t rows = pass.rows(), T = pass.tokens;
  Activations& saved = *pass.saved;
  Workspace& work = *pass.work;
  const Input in(projected, rows, 5 * D_);
  const Output grad(grad_projected, rows, 5 * D_), gate_grad = grad.columns(4 * D_, D_);
  const Output to_y(work[grad_y].ensure(rows * D_), rows, D_);
  const Output to_k(work[grad_state_k].ensure(rows * D_), rows, D_);
  const Output to_v(work[grad_state_v].ensure(rows * D_), rows, D_);
  {
    const OpTimer timer(pass.times, Op::attention);
    RAT_TRY(kernels::output_gate_backward({.gate = in.columns(0, D_),
                                           .y = Input(saved[pre_gate].data(), rows, D_),
                                           .grad_mixed = Input(grad_mixed, rows, D_),
                                           .grad_y = to_y,
                                           .grad_gate = grad.columns(0, D_)},
                                          pass.exec));
    RAT_TRY(kernels::zero({.x = to_k}, pass.exec));
    RAT_TRY(kernels::zero({.x = to_v}, pass.exec));
    kernels::RangeAttentionBackwardArgs args{.forward = attention_args(pass, projected),
                                             .grad_out = to_y,
                                             .grad_q = grad.columns(D_, D_),
                                             .grad_k = {to_k.data, D_, T * D_},
                                             .grad_v = {to_v.data, D_, T * D_},
                                             .grad_own_q = {},
                                             .grad_own_k = {},
                                             .grad_own_v = {}};
    if (args.forward.more_count > 0)
      args.more = {{{every(to_k.data, T), every(to_v.data, T)}, {args.grad_k, args.grad_v}}};
    RAT_TRY(kernels::range_attention_backward(args, pass.exec));
    if (const auto* rotation = table(T))
      for (const Output& heads : {args.grad_q, to_k})
        RAT_TRY(
            kernels::rope({.x = heads, .y = heads, .table = rotation, .tokens = T, .inverse = true}, pass.exec));
  }
  const OpTimer timer(pass.times, Op::scan);
  kernels::GatedScanBackwardArgs scan{.gate = in.columns(4 * D_, D_),
                                      .input = in.columns(3 * D_, D_),
                                      .state = Input(saved[state_v].data(), rows, D_),
                                      .grad_state = to_v,
                                      .grad_input = grad.columns(3 * D_, D_),
                                      .grad_gate = gate_grad,
                                      .tokens = T,
                                      .chunk_len = T};
  RAT_TRY(kernels::gated_scan_backward(scan, pass.exec));
  scan.input = in.columns(2 * D_, D_);
  scan.state = Input(saved[state_k].data(), rows, D_);
  scan.grad_state = to_k;
  scan.grad_input = grad.columns(2 * D_, D_);
  scan.add_grad_gate = true;
  RAT_TRY(kernels::gated_scan_backward(scan, pass.exec));
  const std::span<float> unused(work[no_bias].ensure(D_), static_cast<std::size_t>(D_));
  RAT_TRY(kernels::zero({.x = Output(unused.data(), 1, D_)}, pass.exec));
  return kernels::gate_gradient({.gate = scan.gate, .grad = gate_grad, .grad_bias = unused}, pass.exec);
}

Status RatplusMixer::attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) {
  kernels::RangeAttentionArgs args = attention_args(pass, projected);
  args.shape.heads = 1;
  args.shape.kv_width = P_;
  args.q = args.q.columns(head * P_, P_);
  args.k.data += head * P_;
  args.v.data += head * P_;
  for (kernels::KeySegment& segment : args.more) {
    segment.k.data += head * P_;
    segment.v.data += head * P_;
  }
  return kernels::attention_weights({.forward = args, .weights = {weights, pass.tokens, pass.tokens}}, pass.exec);
}

Status RatplusMixer::fill(const MixerPass& pass, const float*, MixerState& state) {
  auto& cache = static_cast<RatplusState&>(state);
  cache.fused.reset();
  const float *k_states = (*pass.saved)[state_k].data(), *v_states = (*pass.saved)[state_v].data();
  RAT_TRY(cache.cache.fill(Input(keys(pass), pass.rows(), D_), Input(v_states, pass.rows(), D_), pass.exec));
  const int64_t B = pass.batch, last = (pass.tokens - 1) * D_, all = pass.tokens * D_;
  RAT_TRY(kernels::copy_rows({.x = Input(k_states + last, B, D_, all), .y = cache.running.range(0, B)}, pass.exec));
  return kernels::copy_rows({.x = Input(v_states + last, B, D_, all), .y = cache.running.range(B, B)}, pass.exec);
}

Status RatplusMixer::step(const MixerPass& pass, const MixerWeights&, int64_t position, float* projected,
                          MixerState& state, float* mixed) {
  auto& cache = static_cast<RatplusState&>(state);
  const int64_t B = pass.batch;
  const Output in(projected, B, 5 * D_);
  const Output o = in.columns(0, D_), q = in.columns(D_, D_), gate = in.columns(4 * D_, D_);
  RAT_TRY(kernels::sigmoid({.x = o, .bias = {}}, pass.exec));
  RAT_TRY(kernels::sigmoid({.x = gate, .bias = {}}, pass.exec));
  const Output running_k = cache.running.range(0, B), running_v = cache.running.range(B, B);
  RAT_TRY(kernels::gated_scan({gate, in.columns(2 * D_, D_), running_k, 1, 1, running_k}, pass.exec));
  RAT_TRY(kernels::gated_scan({gate, in.columns(3 * D_, D_), running_v, 1, 1, running_v}, pass.exec));
  float* scratch = (*pass.work)[step_row].ensure(2 * B * D_);
  const Output key(scratch, B, D_), y(scratch + B * D_, B, D_);
  RAT_TRY(kernels::copy_rows({.x = running_k, .y = key}, pass.exec));
  if (const auto* rotation = table(position + 1))
    for (const Output& heads : {q, key})
      RAT_TRY(
          kernels::rope({.x = heads, .y = heads, .table = rotation, .tokens = 1, .first = position}, pass.exec));
  RAT_TRY(cache.cache.remember(position, key, running_v, pass.exec));
  RAT_TRY(kernels::attend_one({.heads = H_,
                               .q = q,
                               .k = cache.cache.keys(),
                               .v = cache.cache.values(),
                               .own_q = {},
                               .own_k = {},
                               .own_v = {},
                               .out = y},
                              pass.exec));
  return kernels::output_gate({.gate = o, .y = y, .mixed = {mixed, B, D_}}, pass.exec);
}

MixerCost cost(const ModelConfig& config, const LayerConfig& layer, int64_t tokens) {
  ModelConfig own_keys = config;
  own_keys.kv_heads = 0;
  MixerCost cost = token_attention_cost(own_keys, window_of(layer), tokens);
  const double scan = 8 * static_cast<double>(config.d_model);
  cost.flops_per_token += scan;
  cost.decode_flops += scan;
  cost.cache_bytes += 4 * 2 * config.d_model;
  cost.saved_floats_per_token += (config.positions_of(layer) == Positions::rope ? 4 : 3) * config.d_model;
  return cost;
}

}  // namespace

MixerType ratplus_mixer_type() {
  MixerType type;
  type.name = "ratplus";
  type.description = "whole-sequence recurrence, then attention over every D-th token and a window; D changes at will";
  type.uses_dilation = true;
  type.uses_window = true;
  type.uses_initial = true;
  type.default_window = 0;
  type.probes = {Probe::gate,      Probe::out_gate,           Probe::state_k,          Probe::state_v,
                 Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return 5 * c.d_model; };
  type.extra_weights = [](const ModelConfig&, const LayerConfig&) { return std::vector<WeightSpec>{}; };
  type.columns_seen = [](const LayerConfig& layer, int64_t t) { return window_of(layer).seen_by(t); };
  type.cost = cost;
  type.create = [](const ModelConfig& c, const LayerConfig& layer,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<RatplusMixer>(c, layer, backend);
  };
  return type;
}

}  // namespace rat
