// The mixer `rat`: rat_mixer.cpp computes whole sequences, rat_mixer_decode.cpp generates.
#pragma once

#include <algorithm>

#include "core/mixers/fused_mixer.h"
#include "kernels/base/parallel.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rat_layer/rat_layer.h"
#include "kernels/rope/rope.h"

namespace rat {

class RatMixer final : public FusedMixer {
 public:
  RatMixer(const ModelConfig& config, const LayerConfig& layer, const kernels::Backend& backend)
      : base_(config.rope_base),
        D_(config.d_model),
        H_(config.heads),
        P_(config.head_size()),
        W_(config.groups * P_),
        backend_(&backend),
        table_(P_, config.rope_base, backend) {
    set_layer(config, layer);
  }

  void set_layer(const ModelConfig& config, const LayerConfig& layer) override {
    L_ = layer.chunk;
    rope_ = config.positions_of(layer) == Positions::rope;
  }

  Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) override;
  Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected, const float* mixed,
                  const float* grad_mixed, float* grad_projected) override;
  bool fuses(const MixerPass& pass) const override {
    return pass.fused_weights != nullptr && kernels::fuses_rat_layer(fused_shape(pass), pass.exec);
  }
  Status forward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       float* y) override;
  Status backward_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                        float* grad) override;
  kernels::Input rows_of(const MixerPass& pass, Probe probe, const float* projected) const override;
  int64_t attention_columns(int64_t tokens) const override { return chunks(tokens) + 1; }
  Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) override;
  std::unique_ptr<MixerState> start(int64_t batch) const override;
  Status fill(const MixerPass& pass, const float* projected, MixerState& state) override;
  Status step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected, MixerState& state,
              float* mixed) override;
  Status prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights, const float* x,
                       MixerState& state, float* y, bool residual) override;

 private:
  using Input = kernels::Input;
  using Output = kernels::Output;
  enum Saved : std::size_t { state_k = saved_mixer, state_v, rotated_q, end_k, pre_gate, log_sum };
  enum Work : std::size_t { grad_y = work_mixer, grad_state_k, grad_state_v, grad_q, grad_end_k, step_row };

  kernels::LayerStepShape step_shape(const MixerPass& pass) const override { return fused_shape(pass).step(); }
  StepWeights step_weights(const MixerPass&, const MixerWeights& weights) const override {
    return {.gate_bias = weights.value[0], .near_norm = {}, .far_norm = {}};
  }
  int64_t width() const { return 3 * D_ + 2 * W_; }
  int64_t chunks(int64_t tokens) const { return (tokens - 1) / L_; }  // whose end state some token attends to
  const kernels::RopeTable* table(int64_t tokens) {
    if (rope_) table_.ensure(tokens / L_ + 1);
    return rope_ ? &table_ : nullptr;
  }
  // A (B*T, D) buffer, and the end states of the chunks of one sequence in it.
  Output states(float* data, int64_t rows) const { return {data, rows, D_}; }
  template <class T>
  kernels::Rows<T> ends(T* data, const MixerPass& pass, int64_t b, int64_t count) const {
    return {data + (b * pass.tokens + L_ - 1) * D_, count, D_, L_ * D_};
  }
  // body(first row, rows, tokens of a sequence of them, first token) for blocks of whole chunks of a sequence, which
  // stay in a core's cache from one operation to the next. Long chunks, and devices: everything as one block.
  template <class Body>
  Status for_chunk_blocks(const MixerPass& pass, const Body& body) const {
    constexpr int64_t most = 64;
    if (L_ > most || !pass.exec.backend->host) return body(0, pass.rows(), pass.tokens, 0);
    const int64_t size = most / L_ * L_, blocks = (pass.tokens + size - 1) / size;
    kernels::parallel_for(pass.batch * blocks, [&](int64_t i) {
      const int64_t first = i % blocks * size, count = std::min(size, pass.tokens - first);
      const Status status = body(i / blocks * pass.tokens + first, count, count, first);
      RAT_CHECK(bool(status), status.error().message);  // shapes do not depend on the block: only a mistake of ours
    });
    return ok();
  }
  kernels::RangeAttentionArgs attention_args(const MixerPass& pass, const float* projected) const;

  kernels::RatLayerShape fused_shape(const MixerPass& pass) const {
    return {pass.batch, pass.tokens, H_, P_, W_ / P_, L_, rope_ ? base_ : 0.0};
  }
  kernels::RatLayerArgs fused_args(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                                   const float* x, float* y) const;

  double base_;
  int64_t D_, H_, P_, W_, L_;  // W: width of the shared queries and keys, G P
  bool rope_;
  const kernels::Backend* backend_;
  kernels::RopeTable table_;
};

}  // namespace rat
