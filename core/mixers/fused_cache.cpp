#include "core/mixers/fused_cache.h"

#include "core/model.h"
#include "core/op_times.h"

namespace rat {

using kernels::CacheDtype;

namespace {

constexpr int64_t first_room = 64;

int64_t doubled(int64_t room, int64_t wanted) {
  room = std::max(room, first_room);
  while (room < wanted) room *= 2;
  return room;
}

}  // namespace

Status FusedCache::reserve(int64_t tokens, const kernels::Exec& exec) {
  const int64_t rows = shape_.rows_at(tokens), angle = tokens / shape_.chunk_len;
  if (rows <= capacity_ && angle < angles_) return ok();
  int64_t capacity = capacity_;
  if (rows > capacity) {
    capacity = doubled(capacity, rows);
    if (shape_.window >= 0 && shape_.dilation == 0) capacity = std::min(capacity, shape_.window + 1);
    RAT_TRY(grow(capacity, exec));
  }
  set_room(capacity, doubled(angles_, angle + 1), exec);
  return ok();
}

Status FusedCache::grow(int64_t capacity, const kernels::Exec& exec) {
  for (const auto& [rows, floats] :
       {std::pair{&keys_, row_floats()}, {&values_, row_floats()}, {&scales_, scale_floats()}}) {
    StateRows bigger(*backend_, floats * capacity);
    bigger.resize(shape_.batch * shape_.cached_heads());
    RAT_TRY(kernels::copy_rows({.x = rows->all(), .y = bigger.range(0, rows->rows()).columns(0, floats * capacity_)},
                               exec));
    *rows = std::move(bigger);
  }
  return ok();
}

// A new workspace also where only angles are added: memory that was taken is what tells a recorded step that it is
// stale.
void FusedCache::set_room(int64_t capacity, int64_t angles, const kernels::Exec& exec) {
  const auto bytes = static_cast<int64_t>(kernels::layer_step_workspace(shape_, capacity, exec));
  workspace_ = StateRows(*backend_, 1, bytes / static_cast<int64_t>(sizeof(float)) + 1);
  capacity_ = capacity;
  angles_ = angles;
}

kernels::LayerCache FusedCache::view() {
  const int64_t states = shape_.states();
  return {.dtype = dtype_,
          .capacity = capacity_,
          .angles = angles_,
          .keys = keys_.row(0),
          .values = values_.row(0),
          .scales = reinterpret_cast<uint16_t*>(scales_.row(0)),
          .state_k = states == 2 ? running_.row(0) : nullptr,
          .state_v = states > 0 ? running_.row((states - 1) * shape_.batch) : nullptr,
          .sums = sums_.rows() > 0 ? sums_.row(0) : nullptr,
          .position = reinterpret_cast<int32_t*>(position_.row(0)),
          .workspace = workspace_.row(0)};
}

Result<FusedCache> FusedCache::repeated(int64_t batch) const {
  kernels::LayerStepShape shape = shape_;
  shape.batch = batch;
  RAT_ASSIGN(StateRows running, running_.repeated(1, batch));
  RAT_ASSIGN(StateRows sums, sums_.repeated(sums_.rows(), batch));
  RAT_ASSIGN(StateRows position, position_.repeated(1, 1));
  FusedCache copy(*backend_, shape, dtype_, std::move(running), std::move(sums), std::move(position));
  copy.tokens_ = tokens_;
  if (angles_ == 0) return copy;
  if (capacity_ > 0) {
    RAT_ASSIGN(copy.keys_, keys_.repeated(shape.cached_heads(), batch));
    RAT_ASSIGN(copy.values_, values_.repeated(shape.cached_heads(), batch));
    RAT_ASSIGN(copy.scales_, scales_.repeated(shape.cached_heads(), batch));
  }
  copy.set_room(capacity_, angles_, {.backend = backend_});
  return copy;
}

Result<FusedCache*> FusableState::begin_fused(const MixerPass& pass, const kernels::LayerStepShape& shape) {
  const CacheDtype dtype = pass.cache_dtype.value_or(CacheDtype::bf16);
  if (dtype == CacheDtype::f32)
    return fail(ErrorCode::unsupported,
                "a layer that is computed whole, in bf16, keeps its cache in bf16 or fp8, not in f32");
  RAT_CHECK(dtype != CacheDtype::fp8 || shape.head_size % 4 == 0, "rows of a cache are whole floats");
  if (!fused || fused->dtype() != dtype || fused->shape() != shape) fused.emplace(*pass.exec.backend, shape, dtype);
  RAT_TRY(fused->clear());
  return &*fused;
}

Status FusableState::prepare(const MixerPass& pass, int64_t position, bool is_fused,
                             const kernels::LayerStepShape& shape) {
  const CacheDtype dtype = is_fused ? pass.cache_dtype.value_or(CacheDtype::bf16) : CacheDtype::f32;
  if (position > 0 && cache_dtype() != dtype)
    return fail(ErrorCode::invalid_argument,
                "the decode state has tokens of another precision than the model computes in now; start another");
  if (!is_fused) {
    if (position == 0) fused.reset();
    return ok();
  }
  if (position == 0) RAT_TRY(begin_fused(pass, shape));
  RAT_TRY(fused->reserve(position, pass.exec));
  fused->seen(position + 1);
  return ok();
}

Status FusableState::step(const MixerPass& pass, const LayerWeights& layer, const StepWeights& own, const float* x,
                          float* y, bool residual) {
  const OpTimer timer(pass.times, Op::attention);
  const kernels::LayerStepShape& shape = fused->shape();
  return kernels::layer_step({.shape = shape,
                              .norm = layer.norm->value,
                              .gate_bias = own.gate_bias,
                              .near_norm = own.near_norm,
                              .far_norm = own.far_norm,
                              .in_proj = pass.fused_weights->of(layer.in_proj->value),
                              .out_proj = pass.fused_weights->of(layer.out_proj->value),
                              .x = kernels::Input(x, shape.batch, shape.channels()),
                              .y = kernels::Output(y, shape.batch, shape.channels()),
                              .residual = residual,
                              .cache = fused->view()},
                             pass.exec);
}

Status FusableState::repeat_fused(int64_t batch, FusableState& copy) const {
  if (!fused) return ok();
  RAT_ASSIGN(FusedCache caches, fused->repeated(batch));
  copy.fused.emplace(std::move(caches));
  return ok();
}

}  // namespace rat
