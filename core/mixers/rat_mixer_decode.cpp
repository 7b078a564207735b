// RAT token by token, and the state that a sequence ends in: composed of single ops in f32, or whole layers in bf16
// where the backend has them.
#include "core/mixers/rat_mixer.h"
#include "core/model.h"
#include "core/op_times.h"
#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

struct RatState : FusableState {
  StateRows end_k, end_v;  // (chunks, B, D): keys rotated by their chunk index
  StateRows running;       // (2, B, D): keys, values

  RatState(const kernels::Backend& backend, int64_t batch, int64_t D)
      : RatState(StateRows(backend, D), StateRows(backend, D), StateRows(backend, 2 * batch, D)) {}
  RatState(StateRows&& k, StateRows&& v, StateRows&& run)
      : end_k(std::move(k)), end_v(std::move(v)), running(std::move(run)) {}

  int64_t bytes() const override { return fused ? fused->bytes() : end_k.bytes() + end_v.bytes() + running.bytes(); }
  Status clear() override {
    end_k.resize(0);
    end_v.resize(0);
    if (fused) RAT_TRY(fused->clear());
    return running.zero();
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(StateRows k, end_k.repeated(1, batch));
    RAT_ASSIGN(StateRows v, end_v.repeated(1, batch));
    RAT_ASSIGN(StateRows run, running.repeated(1, batch));
    auto copy = std::make_unique<RatState>(std::move(k), std::move(v), std::move(run));
    RAT_TRY(repeat_fused(batch, *copy));
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

}  // namespace

std::unique_ptr<MixerState> RatMixer::start(int64_t batch) const {
  return std::make_unique<RatState>(*backend_, batch, D_);
}

Status RatMixer::fill(const MixerPass& pass, const float*, MixerState& state) {
  auto& cache = static_cast<RatState&>(state);
  cache.fused.reset();
  const int64_t B = pass.batch, finished = pass.tokens / L_;
  const float* k_states = (*pass.saved)[state_k].data();
  const float* v_states = (*pass.saved)[state_v].data();
  cache.end_k.resize(finished * B);
  cache.end_v.resize(finished * B);
  const auto of_sequence = [&](StateRows& rows, int64_t b) { return Output(rows.row(b), finished, D_, B * D_); };
  for (int64_t b = 0; b < B && finished > 0; ++b) {
    RAT_TRY(kernels::rope({.x = ends<const float>(k_states, pass, b, finished),
                           .y = of_sequence(cache.end_k, b),
                           .table = table(pass.tokens),
                           .tokens = finished},
                          pass.exec));
    RAT_TRY(kernels::copy_rows({.x = ends<const float>(v_states, pass, b, finished), .y = of_sequence(cache.end_v, b)},
                               pass.exec));
  }
  const int64_t last = (pass.tokens - 1) * D_, sequence = pass.tokens * D_;
  RAT_TRY(
      kernels::copy_rows({.x = Input(k_states + last, B, D_, sequence), .y = cache.running.range(0, B)}, pass.exec));
  return kernels::copy_rows({.x = Input(v_states + last, B, D_, sequence), .y = cache.running.range(B, B)}, pass.exec);
}

Status RatMixer::step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected,
                      MixerState& state, float* mixed) {
  auto& cache = static_cast<RatState&>(state);
  const int64_t B = pass.batch;
  const Output in(projected, B, width());
  const Output z = in.columns(0, D_), gate = in.columns(2 * D_, D_), q = in.columns(3 * D_, W_);
  RAT_TRY(kernels::sigmoid({.x = z, .bias = {}}, pass.exec));
  RAT_TRY(kernels::sigmoid({.x = gate, .bias = weights.value[0]}, pass.exec));
  const Output own_k = cache.running.range(0, B), own_v = cache.running.range(B, B);
  const bool fresh = position % L_ == 0;
  const auto before = [&](const Output& state) { return fresh ? Input() : Input(state); };
  RAT_TRY(kernels::gated_scan({gate, in.columns(3 * D_ + W_, W_), own_k, 1, 1, before(own_k)}, pass.exec));
  RAT_TRY(kernels::gated_scan({gate, in.columns(D_, D_), own_v, 1, 1, before(own_v)}, pass.exec));
  float* scratch = (*pass.work)[step_row].ensure(B * (W_ + D_));
  const Output q_rotated(scratch, B, W_), y(scratch + B * W_, B, D_);
  const auto* rotation = table(position + 1);
  RAT_TRY(kernels::rope({.x = q, .y = q_rotated, .table = rotation, .tokens = 1, .chunk_len = L_, .first = position},
                        pass.exec));
  RAT_TRY(kernels::attend_one({.heads = H_,
                               .q = q_rotated,
                               .k = cache.end_k.all(),
                               .v = cache.end_v.all(),
                               .own_q = q,
                               .own_k = own_k,
                               .own_v = own_v,
                               .out = y},
                              pass.exec));
  RAT_TRY(kernels::output_gate({.gate = z, .y = y, .mixed = {mixed, B, D_}}, pass.exec));
  if (position % L_ != L_ - 1) return ok();
  const int64_t finished = cache.end_k.rows();
  cache.end_k.resize(finished + B);
  cache.end_v.resize(finished + B);
  RAT_TRY(kernels::copy_rows({.x = own_v, .y = cache.end_v.range(finished, B)}, pass.exec));
  return kernels::rope({.x = own_k,
                        .y = cache.end_k.range(finished, B),
                        .table = rotation,
                        .tokens = 1,
                        .chunk_len = L_,
                        .first = position},
                       pass.exec);
}

Status RatMixer::prefill_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                               const float* x, MixerState& state, float* y, bool residual) {
  const OpTimer timer(pass.times, Op::attention);
  return static_cast<RatState&>(state).prefill(pass, fused_shape(pass).step(), [&](const kernels::LayerCache& cache) {
    kernels::RatLayerArgs args = fused_args(pass, layer, weights, x, y);
    args.residual = residual;
    args.cache = cache;
    return kernels::rat_layer(args, pass.exec);
  });
}

}  // namespace rat
