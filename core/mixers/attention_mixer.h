// The mixers `attention` and `swa`: attention_mixer.cpp computes whole sequences, attention_mixer_decode.cpp generates.
//
// Causal softmax attention over tokens, whole or over a sliding window: token t attends to t-W .. t. Columns of
// `projected`: value (KV), query (D), key (KV); queries and keys are rotated in place. KV is D, or less where heads
// share keys and values (ModelConfig::kv_heads).
#pragma once

#include "core/mixers/fused_attention.h"
#include "core/mixers/key_cache.h"
#include "kernels/attention_layer/attention_layer.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rope/rope.h"

namespace rat {

class AttentionMixer final : public FusedAttention {
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

  // Of `attention`: no window.
  static TokenWindow window_of(const LayerConfig& layer) { return {.window = layer.kind == "swa" ? layer.window : -1}; }

  void set_layer(const ModelConfig& config, const LayerConfig& layer) override {
    window_ = window_of(layer);
    rope_ = config.positions_of(layer) == Positions::rope;
  }
  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override;
  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float* mixed,
                  const float* grad_mixed, float* grad_projected) override;
  kernels::Input rows_of(const MixerPass&, Probe, const float*) const override { return {}; }
  int64_t attention_columns(int64_t tokens) const override { return tokens; }
  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override;
  std::unique_ptr<MixerState> start(int64_t batch) const override;
  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override;
  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected, MixerState& state,
              float* mixed) override;

 private:
  using Input = kernels::Input;
  using Output = kernels::Output;
  enum Saved : std::size_t { log_sum = saved_mixer };

  int64_t width() const { return D_ + 2 * KV_; }
  Output queries_and_keys(float* rows, int64_t count) const {
    return Output(rows, count, width()).columns(KV_, D_ + KV_);
  }
  Status rotate(const MixerPass& pass, const Output& heads, int64_t first, bool inverse);
  kernels::RangeAttentionArgs attention_args(const MixerPass& pass, const float* projected, float* out) const;

  kernels::AttentionLayerShape fused_shape(const MixerPass& pass) const override {
    return {.batch = pass.batch,
            .tokens = pass.tokens,
            .heads = H_,
            .head_size = P_,
            .window = window_.window,
            .rope_base = rope_ ? base_ : 0.0,
            .kv_heads = KV_ / P_};
  }

  double base_;
  int64_t D_, H_, P_, KV_;
  TokenWindow window_;
  bool rope_ = true;
  const kernels::Backend* backend_;
  kernels::RopeTable table_;
};

}  // namespace rat
