// What generation keeps where a backend computes whole layers (kernels/layer_step): keys and values of a head beside
// each other, with room that doubles when it is full, and the states of mixers that may be computed so.
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <utility>

#include "core/mixer.h"
#include "core/mixers/state_rows.h"
#include "kernels/layer_step/layer_step.h"

namespace rat {

class FusedCache {
 public:
  FusedCache(const kernels::Backend& backend, const kernels::LayerStepShape& shape, kernels::CacheDtype dtype)
      : FusedCache(backend, shape, dtype, StateRows(backend, running_rows(shape), shape.channels()),
                   StateRows(backend, shape.sum_rows(), shape.head_size), StateRows(backend, 1, 1)) {}

  // Room for the token after `tokens` tokens.
  Status reserve(int64_t tokens, const kernels::Exec& exec);
  void seen(int64_t tokens) { tokens_ = tokens; }
  Status clear() {
    tokens_ = 0;
    if (sums_.rows() > 0) RAT_TRY(sums_.zero());
    return position_.zero();
  }
  int64_t bytes() const {
    const int64_t floats = shape_.batch * shape_.cached_heads() * (2 * row_floats() + scale_floats());
    return static_cast<int64_t>(sizeof(float)) * floats * shape_.rows_after(tokens_) + running_.bytes() + sums_.bytes();
  }
  const kernels::LayerStepShape& shape() const { return shape_; }
  kernels::CacheDtype dtype() const { return dtype_; }
  kernels::LayerCache view();
  Result<FusedCache> repeated(int64_t batch) const;

 private:
  FusedCache(const kernels::Backend& backend, const kernels::LayerStepShape& shape, kernels::CacheDtype dtype,
             StateRows&& running, StateRows&& sums, StateRows&& position)
      : backend_(&backend),
        shape_(shape),
        dtype_(dtype),
        keys_(backend, 0),
        values_(backend, 0),
        scales_(backend, 0),
        running_(std::move(running)),
        sums_(std::move(sums)),
        position_(std::move(position)),
        workspace_(backend, 0) {}

  static int64_t running_rows(const kernels::LayerStepShape& shape) { return shape.states() * shape.batch; }
  // Of one row of one head: two bf16 values, or four of fp8, lie in the place of one f32, and so do the two scales in
  // bf16 of a key and its value.
  int64_t row_floats() const { return shape_.head_size / (dtype_ == kernels::CacheDtype::fp8 ? 4 : 2); }
  int64_t scale_floats() const { return dtype_ == kernels::CacheDtype::fp8 ? 1 : 0; }
  Status grow(int64_t capacity, const kernels::Exec& exec);
  void set_room(int64_t capacity, int64_t angles, const kernels::Exec& exec);

  const kernels::Backend* backend_;
  kernels::LayerStepShape shape_;
  kernels::CacheDtype dtype_;  // bf16 or fp8
  int64_t capacity_ = 0, angles_ = 0, tokens_ = 0;
  StateRows keys_, values_;  // (B, cached heads) rows of capacity * P values
  StateRows scales_;         // (B, cached heads) rows of capacity pairs; of bf16: none
  StateRows running_;        // (2, B, D): keys, values of a mixer with states; else none
  StateRows sums_;           // (B, cached heads, 2 P) rows of P, of linear attention; else none
  StateRows position_;       // one int32; zero as a float is zero as an integer
  StateRows workspace_;
};

struct StepWeights {
  std::span<const float> gate_bias, near_norm, far_norm;  // as LayerStepArgs has them
};

// The state of a mixer whose layers may be computed whole: then `fused` has what it remembers, and nothing else has.
struct FusableState : MixerState {
  std::optional<FusedCache> fused;

  kernels::CacheDtype cache_dtype() const override { return fused ? fused->dtype() : kernels::CacheDtype::f32; }
  // Mixer::prepare_step: with `is_fused`, room for the next token.
  Status prepare(const MixerPass& pass, int64_t position, bool is_fused, const kernels::LayerStepShape& shape);
  // Mixer::prefill_fused: whole(cache) computes the layer and fills its cache.
  template <class Whole>
  Status prefill(const MixerPass& pass, const kernels::LayerStepShape& shape, const Whole& whole) {
    RAT_ASSIGN(FusedCache* const cache, begin_fused(pass, shape));
    RAT_TRY(cache->reserve(pass.tokens, pass.exec));
    RAT_TRY(whole(cache->view()));
    cache->seen(pass.tokens);
    return ok();
  }
  // Mixer::step_fused. `own`: the weights that the layer has beside its projections and their norm.
  Status step(const MixerPass& pass, const LayerWeights& layer, const StepWeights& own, const float* x, float* y,
              bool residual);
  // The whole layers' part of `copy`, which is of `batch` sequences.
  Status repeat_fused(int64_t batch, FusableState& copy) const;

 private:
  // For the first tokens of whole layers.
  Result<FusedCache*> begin_fused(const MixerPass& pass, const kernels::LayerStepShape& shape);
};

}  // namespace rat
