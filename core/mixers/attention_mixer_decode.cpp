// Attention over tokens token by token, composed of single ops in f32. Whole layers: core/mixers/fused_attention.cpp.
#include "core/mixers/attention_mixer.h"

namespace rat {
namespace {

struct AttentionState : FusableState {
  KeyCache cache;
  explicit AttentionState(KeyCache&& empty) : cache(std::move(empty)) {}
  int64_t bytes() const override { return fused ? fused->bytes() : cache.bytes(); }
  Status clear() override {
    cache.clear();
    return fused ? fused->clear() : ok();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(KeyCache copies, cache.repeated(batch));
    auto copy = std::make_unique<AttentionState>(std::move(copies));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

}  // namespace

std::unique_ptr<MixerState> AttentionMixer::start(int64_t batch) const {
  return std::make_unique<AttentionState>(KeyCache(*backend_, batch, KV_, window_));
}

Status AttentionMixer::fill(const MixerPass& pass, const float* projected, MixerState& state) {
  static_cast<AttentionState&>(state).fused.reset();
  KeyCache& cache = static_cast<AttentionState&>(state).cache;
  const Input in(projected, pass.rows(), width());
  return cache.fill(in.columns(KV_ + D_, KV_), in.columns(0, KV_), pass.exec);
}

Status AttentionMixer::step(const MixerPass& pass, const MixerWeights&, int64_t position, float* projected,
                            MixerState& state, float* mixed) {
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

}  // namespace rat
