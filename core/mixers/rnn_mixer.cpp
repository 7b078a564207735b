// RNN: one gated recurrence over the whole sequence, RAT's other limit.
// Columns of `projected`: output gate z (D), value (D), forget gate (D).
#include <algorithm>

#include "core/mixers/fused_mixer.h"
#include "core/mixers/mixers.h"
#include "core/mixers/state_rows.h"
#include "core/model.h"
#include "core/op_times.h"
#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"
#include "kernels/rnn_layer/rnn_layer.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { state_v = saved_mixer };
enum Work : std::size_t { grad_state = work_mixer };

struct RnnState : FusableState {
  StateRows running;  // (B, D)
  explicit RnnState(StateRows&& zeros) : running(std::move(zeros)) {}
  int64_t bytes() const override { return fused ? fused->bytes() : running.bytes(); }
  Status clear() override {
    if (fused) RAT_TRY(fused->clear());
    return running.zero();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(StateRows copies, running.repeated(1, batch));
    auto copy = std::make_unique<RnnState>(std::move(copies));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

class RnnMixer final : public FusedMixer {
 public:
  RnnMixer(const ModelConfig& config, const kernels::Backend& backend) : D_(config.d_model), backend_(&backend) {}

  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override {
    const OpTimer timer(pass.times, Op::scan);
    const int64_t rows = pass.rows();
    const Output in(projected, rows, 3 * D_);
    const Output z = in.columns(0, D_), gate = in.columns(2 * D_, D_);
    const Output state((*pass.saved)[state_v].ensure(rows * D_), rows, D_);
    RAT_TRY(kernels::sigmoid({.x = z, .bias = {}}, pass.exec));
    RAT_TRY(kernels::sigmoid({.x = gate, .bias = weights.value[0]}, pass.exec));
    RAT_TRY(kernels::gated_scan({gate, in.columns(D_, D_), state, pass.tokens, pass.tokens}, pass.exec));
    return kernels::output_gate({.gate = z, .y = state, .mixed = {mixed, rows, D_}}, pass.exec);
  }

  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float*,
                  const float* grad_mixed, float* grad_projected) override {
    const OpTimer timer(pass.times, Op::scan);
    const int64_t rows = pass.rows();
    const Input in(projected, rows, 3 * D_), state((*pass.saved)[state_v].data(), rows, D_);
    const Output grad(grad_projected, rows, 3 * D_);
    const Output to_state((*pass.work)[grad_state].ensure(rows * D_), rows, D_);
    const Input gate = in.columns(2 * D_, D_);
    const Output gate_grad = grad.columns(2 * D_, D_);
    RAT_TRY(kernels::output_gate_backward({.gate = in.columns(0, D_),
                                           .y = state,
                                           .grad_mixed = Input(grad_mixed, rows, D_),
                                           .grad_y = to_state,
                                           .grad_gate = grad.columns(0, D_)},
                                          pass.exec));
    RAT_TRY(kernels::gated_scan_backward({.gate = gate,
                                          .input = in.columns(D_, D_),
                                          .state = state,
                                          .grad_state = to_state,
                                          .grad_input = grad.columns(D_, D_),
                                          .grad_gate = gate_grad,
                                          .tokens = pass.tokens,
                                          .chunk_len = pass.tokens},
                                         pass.exec));
    return kernels::gate_gradient({.gate = gate, .grad = gate_grad, .grad_bias = weights.grad[0]}, pass.exec);
  }

  bool fuses(const MixerPass& pass) const override {
    return pass.fused_weights != nullptr && kernels::fuses_rnn_layer(shape_of(pass), pass.exec);
  }
  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       float* y) override {
    const OpTimer timer(pass.times, Op::scan);
    return kernels::rnn_layer(fused_args(pass, layer, weights, x, y), pass.exec);
  }
  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                        float* grad) override {
    const OpTimer timer(pass.times, Op::scan);
    return kernels::rnn_layer_backward({.forward = fused_args(pass, layer, weights, x, nullptr),
                                        .grad = pass.rounded_gradient->of({grad, pass.rows(), D_}),
                                        .grad_norm = layer.norm->grad,
                                        .grad_gate_bias = weights.grad[0],
                                        .grad_in_proj = layer.in_proj->grad,
                                        .grad_out_proj = layer.out_proj->grad},
                                       pass.exec);
  }
  Status prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       MixerState& state, float* y, bool residual) override {
    const OpTimer timer(pass.times, Op::scan);
    return static_cast<RnnState&>(state).prefill(pass, shape_of(pass).step(), [&](const kernels::LayerCache& cache) {
      kernels::RnnLayerArgs args = fused_args(pass, layer, weights, x, y);
      args.residual = residual;
      args.cache = cache;
      return kernels::rnn_layer(args, pass.exec);
    });
  }

  Input rows_of(const MixerPass& pass, Probe probe, const float* projected) const override {
    const Input in(projected, pass.rows(), 3 * D_);
    if (probe == Probe::gate) return in.columns(2 * D_, D_);
    if (probe == Probe::out_gate) return in.columns(0, D_);
    if (probe == Probe::state_v) return {(*pass.saved)[state_v].data(), pass.rows(), D_};
    return {};
  }

  void set_layer(const ModelConfig&, const LayerConfig&) override {}  // nothing to set

  int64_t attention_columns(int64_t) const override { return 0; }
  Status attention_of_head(const MixerPass&, const float*, int64_t, float*) override {
    return fail(ErrorCode::unsupported, "rnn layers have no attention weights; ask for gate or state_v");
  }

  std::unique_ptr<MixerState> start(int64_t batch) const override {
    return std::make_unique<RnnState>(StateRows(*backend_, batch, D_));
  }

  Status fill(const MixerPass& pass, const float*, MixerState& state) override {
    static_cast<RnnState&>(state).fused.reset();
    const Input last((*pass.saved)[state_v].data() + (pass.tokens - 1) * D_, pass.batch, D_, pass.tokens * D_);
    return kernels::copy_rows({.x = last, .y = static_cast<RnnState&>(state).running.all()}, pass.exec);
  }

  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t, float* projected, MixerState& state,
              float* mixed) override {
    const Output running = static_cast<RnnState&>(state).running.all();
    const Output in(projected, pass.batch, 3 * D_);
    const Output z = in.columns(0, D_), gate = in.columns(2 * D_, D_);
    RAT_TRY(kernels::sigmoid({.x = z, .bias = {}}, pass.exec));
    RAT_TRY(kernels::sigmoid({.x = gate, .bias = weights.value[0]}, pass.exec));
    RAT_TRY(kernels::gated_scan({gate, in.columns(D_, D_), running, 1, 1, running}, pass.exec));
    return kernels::output_gate({.gate = z, .y = running, .mixed = {mixed, pass.batch, D_}}, pass.exec);
  }

 private:
  kernels::LayerStepShape step_shape(const MixerPass& pass) const override { return shape_of(pass).step(); }
  StepWeights step_weights(const MixerPass&, const MixerWeights& weights) const override {
    return {.gate_bias = weights.value[0], .near_norm = {}, .far_norm = {}};
  }
  kernels::RnnLayerShape shape_of(const MixerPass& pass) const { return {pass.batch, pass.tokens, D_}; }
  // With the memory for what backward needs, in pass.saved.
  kernels::RnnLayerArgs fused_args(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                   const float* x, float* y) const {
    const std::size_t bytes = kernels::rnn_layer_saved(shape_of(pass), pass.exec);
    return {.shape = shape_of(pass),
            .norm = layer.norm->value,
            .gate_bias = weights.value[0],
            .in_proj = pass.fused_weights->of(layer.in_proj->value),
            .out_proj = pass.fused_weights->of(layer.out_proj->value),
            .x = Input(x, pass.rows(), D_),
            .y = Output(y, pass.rows(), D_),
            .saved = (*pass.saved)[saved_projected].ensure(static_cast<int64_t>(bytes / sizeof(float)) + 1)};
  }

  int64_t D_;
  const kernels::Backend* backend_;
};

}  // namespace

MixerType rnn_mixer_type() {
  MixerType type;
  type.name = "rnn";
  type.description = "one gated recurrence over the whole sequence, no attention";
  type.uses_heads = false;
  type.uses_positions = false;
  type.probes = {Probe::gate, Probe::out_gate, Probe::state_v};
  type.projected_width = [](const ModelConfig& c) { return 3 * c.d_model; };
  type.extra_weights = [](const ModelConfig& c, const LayerConfig&) {
    return std::vector<WeightSpec>{{"gate_bias", "gate_bias", {c.d_model}, Init::gate_bias, rnn_gate_span}};
  };
  type.cost = [](const ModelConfig& c, const LayerConfig&, int64_t) {
    const double scan = 4.0 * static_cast<double>(c.d_model);
    return MixerCost{.flops_per_token = scan,
                     .decode_flops = scan,
                     .cache_bytes = 4 * c.d_model,
                     .saved_floats_per_token = c.d_model};
  };
  type.create = [](const ModelConfig& c, const LayerConfig&,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<RnnMixer>(c, backend);
  };
  return type;
}

}  // namespace rat
