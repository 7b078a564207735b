// Causal softmax attention over tokens, whole (`attention`) or over a sliding window (`swa`): token t attends to
// t-W .. t. Columns of `projected`: value (KV), query (D), key (KV); queries and keys are rotated in place. KV is D, or
// less where heads share keys and values (ModelConfig::kv_heads).
#include <algorithm>

#include "core/mixers/key_cache.h"
#include "core/mixers/mixers.h"
#include "core/model.h"
#include "core/op_times.h"
#include "kernels/attention_layer/attention_layer.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rope/rope.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

enum Saved : std::size_t { log_sum = saved_mixer };

struct AttentionState : MixerState {
  KeyCache cache;
  explicit AttentionState(KeyCache&& empty) : cache(std::move(empty)) {}
  int64_t bytes() const override { return cache.bytes(); }
  Status clear() override {
    cache.clear();
    return ok();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(KeyCache copies, cache.repeated(batch));
    return new_state<AttentionState>(std::move(copies));
  }
};

TokenWindow window_of(const LayerConfig& layer) { return {.window = layer.kind == "swa" ? layer.window : -1}; }

class AttentionMixer final : public Mixer {
 public:
  AttentionMixer(const ModelConfig& config, const LayerConfig& layer, const kernels::Backend& backend)
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

  Status forward(const MixerPass& pass, const MixerWeights&, float* projected, float* mixed) override {
    const OpTimer timer(pass.times, Op::attention);
    RAT_TRY(rotate(pass, queries_and_keys(projected, pass.rows()), 0, false));
    (*pass.saved)[log_sum].ensure(pass.batch * H_ * pass.tokens);
    return kernels::range_attention(attention_args(pass, projected, mixed), pass.exec);
  }

  Status backward(const MixerPass& pass, const MixerWeights&, const float* projected, const float* mixed,
                  const float* grad_mixed, float* grad_projected) override {
    const OpTimer timer(pass.times, Op::attention);
    const Output grad(grad_projected, pass.rows(), width());
    RAT_TRY(kernels::zero({.x = grad}, pass.exec));
    const auto sequences = [&](int64_t column) {
      return kernels::Sequences<float>{grad_projected + column, width(), pass.tokens * width()};
    };
    // Forward's args with `mixed` as the output that backward only reads.
    RAT_TRY(kernels::range_attention_backward(
        {.forward = attention_args(pass, projected, const_cast<float*>(mixed)),
         .grad_out = Input(grad_mixed, pass.rows(), D_),
         .grad_q = grad.columns(KV_, D_),
         .grad_k = sequences(KV_ + D_),
         .grad_v = sequences(0),
         .grad_own_q = {},
         .grad_own_k = {},
         .grad_own_v = {}},
        pass.exec));
    return rotate(pass, queries_and_keys(grad_projected, pass.rows()), 0, true);
  }

  bool fuses(const MixerPass& pass) const override {
    return pass.fused_weights != nullptr && KV_ == D_ && kernels::fuses_attention_layer(fused_shape(pass), pass.exec);
  }

  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights&, const float* x,
                       float* y) override {
    const OpTimer timer(pass.times, Op::attention);
    return kernels::attention_layer(fused_args(pass, layer, x, y), pass.exec);
  }

  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights&, const float* x,
                        float* grad) override {
    const OpTimer timer(pass.times, Op::attention);
    return kernels::attention_layer_backward({.forward = fused_args(pass, layer, x, nullptr),
                                              .grad = pass.rounded_gradient->of({grad, pass.rows(), D_}),
                                              .grad_norm = layer.norm->grad,
                                              .grad_in_proj = layer.in_proj->grad,
                                              .grad_out_proj = layer.out_proj->grad},
                                             pass.exec);
  }

  Input rows_of(const MixerPass&, Probe, const float*) const override { return {}; }
  int64_t attention_columns(int64_t tokens) const override { return tokens; }

  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override {
    kernels::RangeAttentionArgs args = attention_args(pass, projected, nullptr);
    args.shape.heads = 1;
    args.shape.kv_width = P_;
    args.q = args.q.columns(head * P_, P_);
    args.k.data += head * P_ % KV_;
    args.v.data += head * P_ % KV_;
    return kernels::attention_weights({.forward = args, .weights = {weights, pass.tokens, pass.tokens}}, pass.exec);
  }

  std::unique_ptr<MixerState> start(int64_t batch) const override {
    return std::make_unique<AttentionState>(KeyCache(*backend_, batch, KV_, window_));
  }

  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override {
    KeyCache& cache = static_cast<AttentionState&>(state).cache;
    const Input in(projected, pass.rows(), width());
    return cache.fill(in.columns(KV_ + D_, KV_), in.columns(0, KV_), pass.exec);
  }

  Status step(const MixerPass& pass, const MixerWeights&, int64_t position, float* projected, MixerState& state,
              float* mixed) override {
    KeyCache& cache = static_cast<AttentionState&>(state).cache;
    const int64_t B = pass.batch;
    RAT_TRY(rotate(pass, queries_and_keys(projected, B), position, false));
    const Input in(projected, B, width());
    RAT_TRY(cache.remember(position, in.columns(KV_ + D_, KV_), in.columns(0, KV_), pass.exec));
    return kernels::attend_one({.heads = H_,
                                .q = in.columns(KV_, D_),
                                .k = cache.keys(),
                                .v = cache.values(),
                                .own_q = {},
                                .own_k = {},
                                .own_v = {},
                                .out = Output(mixed, B, D_)},
                               pass.exec);
  }

 private:
  int64_t width() const { return D_ + 2 * KV_; }
  Output queries_and_keys(float* rows, int64_t count) const {
    return Output(rows, count, width()).columns(KV_, D_ + KV_);
  }

  Status rotate(const MixerPass& pass, const Output& heads, int64_t first, bool inverse) {
    if (!rope_) return ok();
    table_.ensure(first + pass.tokens);
    return kernels::rope(
        {.x = heads, .y = heads, .table = &table_, .tokens = pass.tokens, .first = first, .inverse = inverse},
        pass.exec);
  }

  kernels::RangeAttentionArgs attention_args(const MixerPass& pass, const float* projected, float* out) const {
    const int64_t T = pass.tokens, rows = pass.rows(), N = width();
    kernels::RangeAttentionArgs args;
    args.shape = {pass.batch, T, H_, P_, T, {.chunk_len = 1, .offset = 1, .window = window_.window}, KV_};
    args.q = Input(projected, rows, N).columns(KV_, D_);
    args.k = {projected + KV_ + D_, N, T * N};
    args.v = {projected, N, T * N};
    args.out = Output(out, rows, D_);
    args.lse = Output((*pass.saved)[log_sum].data(), pass.batch * H_, T);
    return args;
  }

  kernels::AttentionLayerShape fused_shape(const MixerPass& pass) const {
    return {pass.batch, pass.tokens, H_, P_, window_.window, rope_ ? base_ : 0.0};
  }
  kernels::AttentionLayerArgs fused_args(const MixerPass& pass, const LayerWeights& layer, const float* x,
                                         float* y) const {
    const auto shape = fused_shape(pass);
    const std::size_t bytes = kernels::attention_layer_saved(shape, pass.exec);
    return {.shape = shape,
            .norm = layer.norm->value,
            .in_proj = pass.fused_weights->of(layer.in_proj->value),
            .out_proj = pass.fused_weights->of(layer.out_proj->value),
            .x = Input(x, pass.rows(), D_),
            .y = Output(y, pass.rows(), D_),
            .saved = (*pass.saved)[saved_projected].ensure(static_cast<int64_t>(bytes / sizeof(float)) + 1)};
  }

  double base_;
  int64_t D_, H_, P_, KV_;
  TokenWindow window_;
  bool rope_ = true;
  const kernels::Backend* backend_;
  kernels::RopeTable table_;
};

MixerType token_attention() {
  MixerType type;
  type.uses_kv_heads = true;
  type.probes = {Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return c.d_model + 2 * c.kv_width(); };
  type.extra_weights = [](const ModelConfig&, const LayerConfig&) { return std::vector<WeightSpec>{}; };
  type.columns_seen = [](const LayerConfig& layer, int64_t t) { return window_of(layer).seen_by(t); };
  type.cost = [](const ModelConfig& c, const LayerConfig& layer, int64_t tokens) {
    return token_attention_cost(c, window_of(layer), tokens);
  };
  type.create = [](const ModelConfig& c, const LayerConfig& layer,
                   const kernels::Backend& backend) -> std::unique_ptr<Mixer> {
    return std::make_unique<AttentionMixer>(c, layer, backend);
  };
  return type;
}

}  // namespace

MixerCost token_attention_cost(const ModelConfig& config, const TokenWindow& window, int64_t tokens) {
  const double per_key = 4.0 * static_cast<double>(config.d_model);
  const int64_t cached = window.cached(tokens);
  return {.flops_per_token = per_key * window.mean_seen(tokens),
          .decode_flops = per_key * static_cast<double>(cached),
          .cache_bytes = 4 * 2 * config.kv_width() * cached,
          .saved_floats_per_token = config.heads};
}

MixerType attention_mixer_type() {
  MixerType type = token_attention();
  type.name = "attention";
  type.description = "causal softmax attention over all earlier tokens";
  return type;
}

MixerType swa_mixer_type() {
  MixerType type = token_attention();
  type.name = "swa";
  type.description = "sliding-window attention: the token and the W tokens before it";
  type.uses_window = true;
  return type;
}

}  // namespace rat
