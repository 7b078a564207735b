// Linear attention alone, a baseline: the residual part of RAttention over all tokens up to and including the query's,
// normalised per head like there (so the name of its norm, rla_norm). No positions, no output gate.
// Columns of `projected`: value (KV), query (D), key (KV).
#include <algorithm>

#include "core/mixers/fused_rattention.h"
#include "core/mixers/mixers.h"
#include "core/op_times.h"
#include "kernels/head_norm/head_norm.h"
#include "kernels/linear_attention/linear_attention.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { attended = saved_mixer };
enum Work : std::size_t { grad_attended = work_mixer, step_row };

struct LinearState : FusableState {
  StateRows sum;  // (B, KV/P, 2 P, P)
  explicit LinearState(StateRows&& zeros) : sum(std::move(zeros)) {}
  int64_t bytes() const override { return fused ? fused->bytes() : sum.bytes(); }
  Status clear() override {
    if (fused) RAT_TRY(fused->clear());
    return sum.zero();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(StateRows copies, sum.repeated(sum.rows(), batch));
    auto copy = std::make_unique<LinearState>(std::move(copies));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

class LinearMixer final : public FusedRattention {
 public:
  LinearMixer(const ModelConfig& config, const kernels::Backend& backend)
      : D_(config.d_model), H_(config.heads), P_(config.head_size()), KV_(config.kv_width()), backend_(&backend) {}

  void set_layer(const ModelConfig&, const LayerConfig&) override {}  // nothing to set

  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override {
    const OpTimer timer(pass.times, Op::attention);
    (*pass.saved)[attended].ensure(pass.rows() * D_);
    const auto args = attention_args(pass, projected);
    RAT_TRY(kernels::linear_attention(args, pass.exec));
    return norm(pass, weights, args.out, Output(mixed, pass.rows(), D_));
  }

  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float*,
                  const float* grad_mixed, float* grad_projected) override {
    const OpTimer timer(pass.times, Op::attention);
    const int64_t rows = pass.rows();
    const auto args = attention_args(pass, projected);
    const Output to_attended((*pass.work)[grad_attended].ensure(rows * D_), rows, D_);
    const Output grad(grad_projected, rows, width());
    RAT_TRY(kernels::head_norm_backward({.head_size = P_,
                                         .x = args.out,
                                         .weight = weights.value[0],
                                         .grad_y = Input(grad_mixed, rows, D_),
                                         .grad_x = to_attended,
                                         .grad_weight = weights.grad[0]},
                                        pass.exec));
    RAT_TRY(kernels::zero({.x = grad}, pass.exec));
    return kernels::linear_attention_backward({.forward = args,
                                               .grad_out = to_attended,
                                               .grad_q = grad.columns(KV_, D_),
                                               .grad_k = grad.columns(KV_ + D_, KV_),
                                               .grad_v = grad.columns(0, KV_)},
                                              pass.exec);
  }

  Input rows_of(const MixerPass&, Probe, const float*) const override { return {}; }
  int64_t attention_columns(int64_t tokens) const override { return tokens; }
  // Each token's share: the output is normalised, so only shares matter.
  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override {
    kernels::LinearAttentionArgs args = attention_args(pass, projected);
    args.heads = 1;
    args.q = args.q.columns(head * P_, P_);
    args.k = args.k.columns(head * P_ % KV_, P_);
    args.v = args.v.columns(head * P_ % KV_, P_);
    return kernels::linear_weights({.forward = args, .weights = {weights, pass.tokens, pass.tokens}}, pass.exec);
  }

  std::unique_ptr<MixerState> start(int64_t batch) const override {
    return std::make_unique<LinearState>(StateRows(*backend_, batch * 2 * KV_, P_));
  }

  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override {
    static_cast<LinearState&>(state).fused.reset();
    return absorb(pass, Input(projected, pass.rows(), width()), state);
  }

  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t, float* projected, MixerState& state,
              float* mixed) override {
    const int64_t B = pass.batch;
    const Input in(projected, B, width());
    RAT_TRY(absorb(pass, in, state));
    const Output read((*pass.work)[step_row].ensure(B * D_), B, D_);
    RAT_TRY(kernels::linear_read({.head_size = P_, .q = in.columns(KV_, D_), .state = state_rows(state), .out = read},
                                 pass.exec));
    return norm(pass, weights, read, Output(mixed, B, D_));
  }

 private:
  int64_t width() const { return D_ + 2 * KV_; }
  kernels::RattentionLayerShape fused_shape(const MixerPass& pass) const override {
    return {pass.batch, pass.tokens, H_, P_, KV_ / P_};
  }
  Output state_rows(MixerState& state) const { return static_cast<LinearState&>(state).sum.all(); }

  kernels::LinearAttentionArgs attention_args(const MixerPass& pass, const float* projected) const {
    const Input in(projected, pass.rows(), width());
    return {.tokens = pass.tokens,
            .heads = H_,
            .head_size = P_,
            .shift = 0,
            .q = in.columns(KV_, D_),
            .k = in.columns(KV_ + D_, KV_),
            .v = in.columns(0, KV_),
            .out = Output((*pass.saved)[attended].data(), pass.rows(), D_),
            .dtype = pass.dtype};
  }
  Status absorb(const MixerPass& pass, const Input& in, MixerState& state) const {
    return kernels::linear_absorb(
        {.head_size = P_, .k = in.columns(KV_ + D_, KV_), .v = in.columns(0, KV_), .state = state_rows(state)},
        pass.exec);
  }
  Status norm(const MixerPass& pass, const MixerWeights& weights, const Input& x, const Output& y) const {
    return kernels::head_norm({.head_size = P_, .x = x, .weight = weights.value[0], .y = y}, pass.exec);
  }

  int64_t D_, H_, P_, KV_;
  const kernels::Backend* backend_;
};

}  // namespace

// Per head and token: the state is read and written, 2 x 4 P^2; inside tiles of 64 tokens 6 x 64 P more.
MixerCost linear_cost(const ModelConfig& config) {
  const auto P = static_cast<double>(config.head_size()), H = static_cast<double>(config.heads);
  return {.flops_per_token = H * (8 * P * P + 384 * P),
          .decode_flops = H * 8 * P * P,
          .cache_bytes = 4 * 2 * config.kv_width() * config.head_size(),
          .saved_floats_per_token = config.d_model};
}

MixerType linear_mixer_type() {
  MixerType type;
  type.name = "linear";
  type.description = "linear attention alone: a state of constant size, no softmax over tokens";
  type.uses_positions = false;
  type.uses_kv_heads = true;
  type.probes = {Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return c.d_model + 2 * c.kv_width(); };
  type.extra_weights = [](const ModelConfig& c, const LayerConfig&) {
    return std::vector<WeightSpec>{{"rla_norm", "rla_norm.weight", {c.heads, c.head_size()}, Init::ones}};
  };
  type.columns_seen = [](const LayerConfig&, int64_t t) { return t + 1; };
  type.cost = [](const ModelConfig& c, const LayerConfig&, int64_t) { return linear_cost(c); };
  type.create = [](const ModelConfig& c, const LayerConfig&,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<LinearMixer>(c, backend);
  };
  return type;
}

}  // namespace rat
