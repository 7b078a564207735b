// RAttention: sliding-window attention over t-W .. t (RoPE by token), plus linear attention over everything older (no
// positions); each is normalised per head, and their sum goes on. Its state for generation has a constant size.
// Source: Wang et al., RAttention, arXiv:2506.15545.
// Columns of `projected`: value (KV), query (D), key (KV), as in attention; left unrotated, because both parts read
// them.
#include <algorithm>

#include "core/mixers/attention_products.h"
#include "core/mixers/fused_rattention.h"
#include "core/mixers/key_cache.h"
#include "core/mixers/mixers.h"
#include "core/op_times.h"
#include "kernels/head_norm/head_norm.h"
#include "kernels/linear_attention/linear_attention.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rope/rope.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { rotated = saved_mixer, local, residual, log_sum };
enum Work : std::size_t { grad_local = work_mixer, grad_residual, step_row };

TokenWindow window_of(const LayerConfig& layer) { return {.window = layer.window}; }

struct RattentionState : FusableState {
  KeyCache cache;     // of the window, keys rotated
  StateRows far_sum;  // (B, KV/P, 2 P, P): the tokens that left it

  RattentionState(KeyCache&& empty, StateRows&& zeros) : cache(std::move(empty)), far_sum(std::move(zeros)) {}
  int64_t bytes() const override { return fused ? fused->bytes() : cache.bytes() + far_sum.bytes(); }
  Status clear() override {
    cache.clear();
    if (fused) RAT_TRY(fused->clear());
    return far_sum.zero();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(KeyCache copies, cache.repeated(batch));
    RAT_ASSIGN(StateRows sums, far_sum.repeated(far_sum.rows(), batch));
    auto copy = std::make_unique<RattentionState>(std::move(copies), std::move(sums));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

class RattentionMixer final : public FusedRattention {
 public:
  RattentionMixer(const ModelConfig& config, const LayerConfig& layer, const kernels::Backend& backend)
      : base_(config.rope_base),
        D_(config.d_model),
        H_(config.heads),
        P_(config.head_size()),
        KV_(config.kv_width()),
        backend_(&backend),
        table_(P_, config.rope_base, backend) {
    set_layer(config, layer);
  }

  void set_layer(const ModelConfig& config, const LayerConfig& layer) override {
    window_ = window_of(layer);
    rope_ = config.positions_of(layer) == Positions::rope;
  }

  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override {
    const OpTimer timer(pass.times, Op::attention);
    const int64_t rows = pass.rows();
    Activations& saved = *pass.saved;
    if (rope_) {
      const Output to(saved[rotated].ensure(rows * (D_ + KV_)), rows, D_ + KV_);
      table_.ensure(pass.tokens);
      RAT_TRY(kernels::rope({.x = Input(projected, rows, width()).columns(KV_, D_ + KV_),
                             .y = to,
                             .table = &table_,
                             .tokens = pass.tokens},
                            pass.exec));
    }
    saved[local].ensure(rows * D_);
    saved[residual].ensure(rows * D_);
    saved[log_sum].ensure(pass.batch * H_ * pass.tokens);
    const auto args = local_args(pass, projected);
    const auto far = far_args(pass, projected);
    RAT_TRY(kernels::range_attention(args, pass.exec));
    RAT_TRY(kernels::linear_attention(far, pass.exec));
    return sum_normed(pass, weights, args.out, far.out, Output(mixed, rows, D_));
  }

  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float*,
                  const float* grad_mixed, float* grad_projected) override;

  Input rows_of(const MixerPass&, Probe, const float*) const override { return {}; }
  // The softmax weights of the window; the linear part has no weights of a common scale with them.
  int64_t attention_columns(int64_t tokens) const override { return tokens; }
  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override {
    return token_weights_of_head(pass, local_args(pass, projected), head, weights);
  }

  std::unique_ptr<MixerState> start(int64_t batch) const override {
    return std::make_unique<RattentionState>(KeyCache(*backend_, batch, KV_, window_),
                                             StateRows(*backend_, batch * 2 * KV_, P_));
  }
  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override;
  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected, MixerState& state,
              float* mixed) override;

 private:
  int64_t width() const { return D_ + 2 * KV_; }
  kernels::RattentionLayerShape fused_shape(const MixerPass& pass) const override {
    return {pass.batch, pass.tokens, H_, P_, KV_ / P_, window_.window, rope_ ? base_ : 0.0};
  }
  // Rotated queries (D) and keys (KV) of every row.
  Input rotated_rows(const MixerPass& pass, const float* projected) const {
    if (rope_) return {(*pass.saved)[rotated].data(), pass.rows(), D_ + KV_};
    return Input(projected, pass.rows(), width()).columns(KV_, D_ + KV_);
  }
  Output far_state(RattentionState& state) const { return state.far_sum.all(); }

  kernels::RangeAttentionArgs local_args(const MixerPass& pass, const float* projected) const {
    const int64_t T = pass.tokens, rows = pass.rows();
    const Input heads = rotated_rows(pass, projected);
    kernels::RangeAttentionArgs args;
    args.shape = {pass.batch, T, H_, P_, T, {.chunk_len = 1, .offset = 1, .window = window_.window}, KV_};
    args.q = heads.columns(0, D_);
    args.k = {heads.data + D_, heads.stride, T * heads.stride};
    args.v = {projected, width(), T * width()};
    args.out = Output((*pass.saved)[local].data(), rows, D_);
    args.lse = Output((*pass.saved)[log_sum].data(), pass.batch * H_, T);
    set_products(pass, args);
    return args;
  }

  kernels::LinearAttentionArgs far_args(const MixerPass& pass, const float* projected) const {
    const Input in(projected, pass.rows(), width());
    return {.tokens = pass.tokens,
            .heads = H_,
            .head_size = P_,
            .shift = window_.window + 1,
            .q = in.columns(KV_, D_),
            .k = in.columns(KV_ + D_, KV_),
            .v = in.columns(0, KV_),
            .out = Output((*pass.saved)[residual].data(), pass.rows(), D_),
            .dtype = pass.dtype};
  }

  Status sum_normed(const MixerPass& pass, const MixerWeights& weights, const Input& near, const Input& far,
                    const Output& sum) const {
    RAT_TRY(kernels::head_norm({.head_size = P_, .x = near, .weight = weights.value[0], .y = sum}, pass.exec));
    return kernels::head_norm({.head_size = P_, .x = far, .weight = weights.value[1], .y = sum, .add = true},
                              pass.exec);
  }

  double base_;
  int64_t D_, H_, P_, KV_;
  TokenWindow window_;
  bool rope_ = true;
  const kernels::Backend* backend_;
  kernels::RopeTable table_;
};

Status RattentionMixer::backward(const MixerPass& pass, const MixerWeights& weights, const float* projected,
                                 const float*, const float* grad_mixed, float* grad_projected) {
  const OpTimer timer(pass.times, Op::attention);
  const int64_t rows = pass.rows();
  Workspace& work = *pass.work;
  const Input grad_sum(grad_mixed, rows, D_);
  const Output to_local(work[grad_local].ensure(rows * D_), rows, D_);
  const Output to_residual(work[grad_residual].ensure(rows * D_), rows, D_);
  const auto near = local_args(pass, projected);
  const auto far = far_args(pass, projected);
  const auto norm_backward = [&](std::size_t i, const Input& x, const Output& grad_x) {
    return kernels::head_norm_backward({.head_size = P_,
                                        .x = x,
                                        .weight = weights.value[i],
                                        .grad_y = grad_sum,
                                        .grad_x = grad_x,
                                        .grad_weight = weights.grad[i]},
                                       pass.exec);
  };
  RAT_TRY(norm_backward(0, near.out, to_local));
  RAT_TRY(norm_backward(1, far.out, to_residual));
  RAT_TRY(token_attention_backward(pass, near, to_local, grad_projected));
  const Output grad(grad_projected, rows, width());
  const Output heads = grad.columns(KV_, D_ + KV_);  // of rotated queries and keys so far
  if (rope_)
    RAT_TRY(kernels::rope({.x = heads, .y = heads, .table = &table_, .tokens = pass.tokens, .inverse = true},
                          pass.exec));
  return kernels::linear_attention_backward({.forward = far,
                                             .grad_out = to_residual,
                                             .grad_q = grad.columns(KV_, D_),
                                             .grad_k = grad.columns(KV_ + D_, KV_),
                                             .grad_v = grad.columns(0, KV_)},
                                            pass.exec);
}

Status RattentionMixer::fill(const MixerPass& pass, const float* projected, MixerState& state) {
  auto& cache = static_cast<RattentionState&>(state);
  cache.fused.reset();
  const Input heads = rotated_rows(pass, projected), in(projected, pass.rows(), width());
  RAT_TRY(cache.cache.fill(heads.columns(D_, KV_), in.columns(0, KV_), pass.exec));
  const int64_t left = pass.tokens - window_.window - 1;  // tokens that are no longer in the window
  for (int64_t b = 0; b < pass.batch && left > 0; ++b)
    RAT_TRY(kernels::linear_absorb({.head_size = P_,
                                    .k = in.columns(KV_ + D_, KV_).row_range(b * pass.tokens, left),
                                    .v = in.columns(0, KV_).row_range(b * pass.tokens, left),
                                    .state = cache.far_sum.range(b * 2 * KV_, 2 * KV_)},
                                   pass.exec));
  return ok();
}

Status RattentionMixer::step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected,
                             MixerState& state, float* mixed) {
  auto& cache = static_cast<RattentionState&>(state);
  const int64_t B = pass.batch;
  const Input in(projected, B, width());
  float* scratch = (*pass.work)[step_row].ensure(B * (width() + 2 * D_));
  const Output heads(scratch, B, D_ + KV_), gone(scratch + B * (D_ + KV_), B, KV_);
  const Output near(scratch + B * width(), B, D_), far(scratch + B * (width() + D_), B, D_);
  RAT_TRY(kernels::copy_rows({.x = in.columns(KV_, D_ + KV_), .y = heads}, pass.exec));
  const kernels::RopeTable* rotation = rope_ ? &table_ : nullptr;
  if (rope_) table_.ensure(position + 1);
  RAT_TRY(kernels::rope({.x = heads, .y = heads, .table = rotation, .tokens = 1, .first = position}, pass.exec));
  // The token that leaves the window joins the sum, its key rotated back.
  if (const int64_t slot = cache.cache.leaving_slot(position); slot >= 0) {
    const Input key = cache.cache.key(slot), value = cache.cache.value(slot);
    const int64_t token = position - window_.window - 1;
    RAT_TRY(kernels::rope(
        {.x = key, .y = gone, .table = rotation, .tokens = 1, .first = token, .inverse = true}, pass.exec));
    RAT_TRY(kernels::linear_absorb({.head_size = P_, .k = gone, .v = value, .state = far_state(cache)}, pass.exec));
  }
  RAT_TRY(cache.cache.remember(position, heads.columns(D_, KV_), in.columns(0, KV_), pass.exec));
  RAT_TRY(kernels::attend_one({.heads = H_,
                               .q = heads.columns(0, D_),
                               .k = cache.cache.keys(),
                               .v = cache.cache.values(),
                               .own_q = {},
                               .own_k = {},
                               .own_v = {},
                               .out = near},
                              pass.exec));
  RAT_TRY(kernels::linear_read(
      {.head_size = P_, .q = in.columns(KV_, D_), .state = far_state(cache), .out = far}, pass.exec));
  return sum_normed(pass, weights, near, far, Output(mixed, B, D_));
}

MixerCost cost(const ModelConfig& config, const LayerConfig& layer, int64_t tokens) {
  const MixerCost near = token_attention_cost(config, window_of(layer), tokens), far = linear_cost(config);
  const bool rope = config.positions_of(layer) == Positions::rope;
  return {.flops_per_token = near.flops_per_token + far.flops_per_token,
          .decode_flops = near.decode_flops + far.decode_flops,
          .cache_bytes = near.cache_bytes + far.cache_bytes,
          .saved_floats_per_token = near.saved_floats_per_token + far.saved_floats_per_token + config.d_model +
                                    (rope ? config.d_model + config.kv_width() : 0)};
}

}  // namespace

MixerType rattention_mixer_type() {
  MixerType type;
  type.name = "rattention";
  type.description = "sliding-window attention plus linear attention over all that is older";
  type.uses_window = true;
  type.uses_kv_heads = true;
  type.probes = {Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return c.d_model + 2 * c.kv_width(); };
  type.extra_weights = [](const ModelConfig& c, const LayerConfig&) {
    const std::vector<int64_t> shape{c.heads, c.head_size()};
    return std::vector<WeightSpec>{{"swa_norm", "swa_norm.weight", shape, Init::ones},
                                   {"rla_norm", "rla_norm.weight", shape, Init::ones}};
  };
  type.columns_seen = [](const LayerConfig& layer, int64_t t) { return window_of(layer).seen_by(t); };
  type.cost = cost;
  type.create = [](const ModelConfig& c, const LayerConfig& layer,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<RattentionMixer>(c, layer, backend);
  };
  return type;
}

}  // namespace rat
