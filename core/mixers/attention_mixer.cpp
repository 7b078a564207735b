#include "core/mixers/attention_mixer.h"

#include <algorithm>

#include "core/mixers/attention_products.h"
#include "core/mixers/mixers.h"
#include "core/op_times.h"

namespace rat {

Status AttentionMixer::forward(const MixerPass& pass, const MixerWeights&, float* projected, float* mixed) {
  const OpTimer timer(pass.times, Op::attention);
  RAT_TRY(rotate(pass, queries_and_keys(projected, pass.rows()), 0, false));
  (*pass.saved)[log_sum].ensure(pass.batch * H_ * pass.tokens);
  return kernels::range_attention(attention_args(pass, projected, mixed), pass.exec);
}

Status AttentionMixer::backward(const MixerPass& pass, const MixerWeights&, const float* projected, const float* mixed,
                                const float* grad_mixed, float* grad_projected) {
  const OpTimer timer(pass.times, Op::attention);
  // Forward's args with `mixed` as the output that backward only reads.
  RAT_TRY(token_attention_backward(pass, attention_args(pass, projected, const_cast<float*>(mixed)),
                                   Input(grad_mixed, pass.rows(), D_), grad_projected));
  return rotate(pass, queries_and_keys(grad_projected, pass.rows()), 0, true);
}

Status AttentionMixer::attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) {
  return token_weights_of_head(pass, attention_args(pass, projected, nullptr), head, weights);
}

Status AttentionMixer::rotate(const MixerPass& pass, const Output& heads, int64_t first, bool inverse) {
  if (!rope_) return ok();
  table_.ensure(first + pass.tokens);
  return kernels::rope(
      {.x = heads, .y = heads, .table = &table_, .tokens = pass.tokens, .first = first, .inverse = inverse}, pass.exec);
}

kernels::RangeAttentionArgs AttentionMixer::attention_args(const MixerPass& pass, const float* projected,
                                                           float* out) const {
  const int64_t T = pass.tokens, rows = pass.rows(), N = width();
  kernels::RangeAttentionArgs args;
  args.shape = {pass.batch, T, H_, P_, T, {.chunk_len = 1, .offset = 1, .window = window_.window}, KV_};
  args.q = Input(projected, rows, N).columns(KV_, D_);
  args.k = {projected + KV_ + D_, N, T * N};
  args.v = {projected, N, T * N};
  args.out = Output(out, rows, D_);
  args.lse = Output((*pass.saved)[log_sum].data(), pass.batch * H_, T);
  set_products(pass, args);
  return args;
}

namespace {

MixerType token_attention() {
  MixerType type;
  type.uses_kv_heads = true;
  type.probes = {Probe::attention, Probe::attention_overview, Probe::attention_entropy};
  type.projected_width = [](const ModelConfig& c) { return c.d_model + 2 * c.kv_width(); };
  type.extra_weights = [](const ModelConfig&, const LayerConfig&) { return std::vector<WeightSpec>{}; };
  type.columns_seen = [](const LayerConfig& layer, int64_t t) { return AttentionMixer::window_of(layer).seen_by(t); };
  type.cost = [](const ModelConfig& c, const LayerConfig& layer, int64_t tokens) {
    return token_attention_cost(c, AttentionMixer::window_of(layer), tokens);
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
