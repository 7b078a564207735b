// RAT token by token, and the state that a sequence ends in: composed of single ops in f32, or whole layers in bf16
// where the backend has them.
#include <algorithm>
#include <optional>

#include "core/mixers/rat_mixer.h"
#include "core/mixers/state_rows.h"
#include "core/model.h"
#include "core/op_times.h"
#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"

namespace rat {
namespace {

using kernels::CacheDtype;
using kernels::Input;
using kernels::Output;

// What whole layers keep: keys and values of a head beside each other, with room that doubles when it is full.
class FusedCache {
 public:
  FusedCache(const kernels::Backend& backend, kernels::RatLayerShape shape, CacheDtype dtype)
      : FusedCache(backend, one_token(shape), dtype, StateRows(backend, 2 * shape.batch, shape.channels()),
                   StateRows(backend, 1, 1)) {}

  // Room for the chunk that `tokens` tokens end in or begin.
  Status reserve(int64_t tokens, const kernels::Exec& exec) {
    const int64_t chunks = tokens / shape_.chunk_len + 1;
    if (chunks <= capacity_) return ok();
    int64_t capacity = std::max<int64_t>(capacity_, 64);
    while (capacity < chunks) capacity *= 2;
    for (const auto& [rows, floats] :
         {std::pair{&keys_, row_floats()}, {&values_, row_floats()}, {&scales_, scale_floats()}}) {
      StateRows bigger(*backend_, floats * capacity);
      bigger.resize(shape_.batch * shape_.heads);
      RAT_TRY(kernels::copy_rows(
          {.x = rows->all(), .y = bigger.range(0, rows->rows()).columns(0, floats * capacity_)}, exec));
      *rows = std::move(bigger);
    }
    set_capacity(capacity, exec);
    return ok();
  }

  void seen(int64_t tokens) { tokens_ = tokens; }
  Status clear() {
    tokens_ = 0;
    return position_.zero();
  }
  int64_t bytes() const {
    const int64_t floats = shape_.batch * shape_.heads * (2 * row_floats() + scale_floats());
    return static_cast<int64_t>(sizeof(float)) * floats * (tokens_ / shape_.chunk_len) + running_.bytes();
  }
  const kernels::RatLayerShape& shape() const { return shape_; }
  CacheDtype dtype() const { return dtype_; }

  kernels::RatLayerCache view() {
    return {.dtype = dtype_,
            .capacity = capacity_,
            .keys = keys_.row(0),
            .values = values_.row(0),
            .scales = reinterpret_cast<uint16_t*>(scales_.row(0)),
            .state_k = running_.row(0),
            .state_v = running_.row(shape_.batch),
            .position = reinterpret_cast<int32_t*>(position_.row(0)),
            .workspace = workspace_.row(0)};
  }

  Result<FusedCache> repeated(int64_t batch) const {
    kernels::RatLayerShape shape = shape_;
    shape.batch = batch;
    RAT_ASSIGN(StateRows running, running_.repeated(1, batch));
    RAT_ASSIGN(StateRows position, position_.repeated(1, 1));
    FusedCache copy(*backend_, shape, dtype_, std::move(running), std::move(position));
    copy.tokens_ = tokens_;
    if (capacity_ == 0) return copy;
    RAT_ASSIGN(copy.keys_, keys_.repeated(shape.heads, batch));
    RAT_ASSIGN(copy.values_, values_.repeated(shape.heads, batch));
    RAT_ASSIGN(copy.scales_, scales_.repeated(shape.heads, batch));
    copy.set_capacity(capacity_, {.backend = backend_});
    return copy;
  }

 private:
  FusedCache(const kernels::Backend& backend, const kernels::RatLayerShape& shape, CacheDtype dtype,
             StateRows&& running, StateRows&& position)
      : backend_(&backend),
        shape_(shape),
        dtype_(dtype),
        keys_(backend, 0),
        values_(backend, 0),
        scales_(backend, 0),
        running_(std::move(running)),
        position_(std::move(position)),
        workspace_(backend, 0) {}

  static kernels::RatLayerShape one_token(kernels::RatLayerShape shape) {
    shape.tokens = 1;
    return shape;
  }
  // Of one chunk end of one head: two bf16 values, or four of fp8, lie in the place of one f32, and so do the two
  // scales in bf16 of a key and its value.
  int64_t row_floats() const { return shape_.head_size / (dtype_ == CacheDtype::fp8 ? 4 : 2); }
  int64_t scale_floats() const { return dtype_ == CacheDtype::fp8 ? 1 : 0; }
  void set_capacity(int64_t capacity, const kernels::Exec& exec) {
    const auto bytes = static_cast<int64_t>(kernels::rat_layer_step_workspace(shape_, capacity, exec));
    workspace_ = StateRows(*backend_, 1, bytes / static_cast<int64_t>(sizeof(float)) + 1);
    capacity_ = capacity;
  }

  const kernels::Backend* backend_;
  kernels::RatLayerShape shape_;  // tokens is 1
  CacheDtype dtype_;              // bf16 or fp8
  int64_t capacity_ = 0, tokens_ = 0;
  StateRows keys_, values_;  // (B, H) rows of capacity * P values
  StateRows scales_;         // (B, H) rows of capacity pairs; of bf16: none
  StateRows running_;        // (2, B, D): keys, values
  StateRows position_;       // one int32; zero as a float is zero as an integer
  StateRows workspace_;
};

struct RatState : MixerState {
  StateRows end_k, end_v;           // (chunks, B, D): keys rotated by their chunk index
  StateRows running;                // (2, B, D): keys, values
  std::optional<FusedCache> fused;  // of a backend that computes whole layers: then the others are not used

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
  CacheDtype cache_dtype() const override { return fused ? fused->dtype() : CacheDtype::f32; }
  // For the first tokens of whole layers.
  Result<FusedCache*> begin_fused(const kernels::Backend& backend, const kernels::RatLayerShape& shape,
                                  CacheDtype dtype) {
    if (dtype == CacheDtype::f32)
      return fail(ErrorCode::unsupported,
                  "a 'rat' layer that is computed whole, in bf16, keeps its cache in bf16 or fp8, not in f32");
    RAT_CHECK(dtype != CacheDtype::fp8 || shape.head_size % 4 == 0, "rows of a cache are whole floats");
    if (!fused || fused->dtype() != dtype) fused.emplace(backend, shape, dtype);
    RAT_TRY(fused->clear());
    return &*fused;
  }
  Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const override {
    RAT_ASSIGN(StateRows k, end_k.repeated(1, batch));
    RAT_ASSIGN(StateRows v, end_v.repeated(1, batch));
    RAT_ASSIGN(StateRows run, running.repeated(1, batch));
    auto copy = std::make_unique<RatState>(std::move(k), std::move(v), std::move(run));
    if (fused) {
      RAT_ASSIGN(FusedCache caches, fused->repeated(batch));
      copy->fused.emplace(std::move(caches));
    }
    return std::unique_ptr<MixerState>(std::move(copy));
  }
};

// Of whole layers.
CacheDtype cache_dtype_of(const MixerPass& pass) { return pass.cache_dtype.value_or(CacheDtype::bf16); }

Status check_form(const RatState& state, int64_t position, CacheDtype dtype) {
  if (position == 0 || state.cache_dtype() == dtype) return ok();
  return fail(ErrorCode::invalid_argument,
              "the decode state has tokens of another precision than the model computes in now; start another");
}

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
  RAT_ASSIGN(FusedCache* const cache,
             static_cast<RatState&>(state).begin_fused(*backend_, fused_shape(pass), cache_dtype_of(pass)));
  RAT_TRY(cache->reserve(pass.tokens, pass.exec));
  kernels::RatLayerArgs args = fused_args(pass, layer, weights, x, y);
  args.residual = residual;
  args.cache = cache->view();
  RAT_TRY(kernels::rat_layer(args, pass.exec));
  cache->seen(pass.tokens);
  return ok();
}

Status RatMixer::prepare_step(const MixerPass& pass, int64_t position, MixerState& state) {
  auto& cache = static_cast<RatState&>(state);
  const bool fused = fuses_generation(pass);
  const CacheDtype dtype = fused ? cache_dtype_of(pass) : CacheDtype::f32;
  RAT_TRY(check_form(cache, position, dtype));
  if (!fused) {
    if (position == 0) cache.fused.reset();
    return ok();
  }
  if (position == 0) RAT_TRY(cache.begin_fused(*backend_, fused_shape(pass), dtype));
  RAT_TRY(cache.fused->reserve(position, pass.exec));
  cache.fused->seen(position + 1);
  return ok();
}

Status RatMixer::step_fused(const MixerPass& pass, const LayerWeights& layer, const MixerWeights& weights,
                            const float* x, MixerState& state, float* y, bool residual) {
  const OpTimer timer(pass.times, Op::attention);
  FusedCache& cache = *static_cast<RatState&>(state).fused;
  return kernels::rat_layer_step({.shape = cache.shape(),
                                  .norm = layer.norm->value,
                                  .gate_bias = weights.value[0],
                                  .in_proj = pass.fused_weights->of(layer.in_proj->value),
                                  .out_proj = pass.fused_weights->of(layer.out_proj->value),
                                  .x = Input(x, pass.batch, D_),
                                  .y = Output(y, pass.batch, D_),
                                  .residual = residual,
                                  .cache = cache.view()},
                                 pass.exec);
}

}  // namespace rat
