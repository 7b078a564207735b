#include "core/sequence_layer.h"

#include "core/mixer_list.h"
#include "kernels/matmul/linear_backward.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat {

using kernels::Input;
using kernels::Output;

SequenceLayer::SequenceLayer(const ModelConfig& config, const LayerConfig& layer, std::span<Parameter> parameters,
                             const kernels::Backend& backend)
    : D_(config.d_model),
      P_(config.head_size()),
      in_proj_(&parameters[0]),
      out_proj_(&parameters[1]),
      norm_(&parameters[2]) {
  const auto type = find_mixer_type(layer.kind);
  RAT_CHECK(bool(type), "the layer kind was validated");
  type_ = *type;
  N_ = type_->projected_width(config);
  mixer_ = type_->create(config, layer, backend);
  for (Parameter& parameter : parameters.subspan(3)) {
    extra_.value.push_back(parameter.value);
    extra_.grad.push_back(parameter.grad);
  }
}

void SequenceLayer::set_layer(const ModelConfig& config, const LayerConfig& layer) {
  const auto type = find_mixer_type(layer.kind);
  RAT_CHECK(bool(type) && (*type)->projected_width(config) == N_, "the layer was checked against its weights");
  type_ = *type;
  mixer_->set_layer(config, layer);
}

Status SequenceLayer::project_out(const MixerPass& pass, int64_t rows, const float* mixed, const float* x, float* y,
                                  bool residual) {
  const OpTimer timer(pass.times, Op::gemm);
  return kernels::matmul({.a = Input(mixed, rows, D_),
                          .b = Input(out_proj_->value.data(), D_, D_),
                          .c = Output(y, rows, D_),
                          .transpose_b = true,
                          .accumulate = residual && x == y,
                          .addend = residual && x != y ? x : nullptr,
                          .dtype = pass.rounded ? pass.dtype : pass.exec.backend->careful(pass.dtype),
                          .b_bf16 = pass.rounded ? pass.rounded->of(out_proj_->value) : nullptr},
                         pass.exec);
}

Status SequenceLayer::forward(const MixerPass& pass, const float* x, float* y, bool residual) {
  if (residual && mixer_->fuses(pass)) return mixer_->forward_fused(pass, {in_proj_, out_proj_, norm_}, extra_, x, y);
  return forward_unfused(pass, x, y, residual);
}

Status SequenceLayer::forward_unfused(const MixerPass& pass, const float* x, float* y, bool residual) {
  const int64_t rows = pass.rows();
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  float* projected = (*pass.saved)[saved_projected].ensure(rows * N_);
  float* mixed = (*pass.saved)[saved_mixed].ensure(rows * D_);
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = Input(x, rows, D_), .weight = norm_->value, .y = normed}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul({.a = normed,
                             .b = Input(in_proj_->value.data(), N_, D_),
                             .c = Output(projected, rows, N_),
                             .transpose_b = true,
                             .dtype = pass.exec.backend->careful(pass.dtype)},  // softmax and gates amplify its errors
                            pass.exec));
  }
  RAT_TRY(mixer_->forward(pass, extra_, projected, mixed));
  return project_out(pass, rows, mixed, x, y, residual);
}

Status SequenceLayer::backward(const MixerPass& pass, const float* x, const float* grad_y, float* grad_x,
                               bool residual) {
  if (residual && grad_x == grad_y && mixer_->fuses(pass))
    return mixer_->backward_fused(pass, {in_proj_, out_proj_, norm_}, extra_, x, grad_x);
  const int64_t rows = pass.rows();
  RAT_TRY(pass.take_gradient({grad_x, rows, D_}));
  const float* projected = (*pass.saved)[saved_projected].data();
  const float* mixed = (*pass.saved)[saved_mixed].data();
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  const Output narrow((*pass.work)[work_narrow].ensure(rows * D_), rows, D_);  // grad of mixed, then of normed
  const Output wide((*pass.work)[work_wide].ensure(rows * N_), rows, N_);      // grad of projected
  const Input x_rows(x, rows, D_), grad_rows(grad_y, rows, D_);
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = x_rows, .weight = norm_->value, .y = normed}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::linear_backward({.grad_y = grad_rows,
                                      .x = Input(mixed, rows, D_),
                                      .weight = Input(out_proj_->value.data(), D_, D_),
                                      .grad_x = narrow,
                                      .grad_weight = Output(out_proj_->grad.data(), D_, D_),
                                      .dtype = pass.dtype},
                                     pass.exec));
  }
  RAT_TRY(mixer_->backward(pass, extra_, projected, mixed, narrow.data, wide.data));
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::linear_backward({.grad_y = wide,
                                      .x = normed,
                                      .weight = Input(in_proj_->value.data(), N_, D_),
                                      .grad_x = narrow,
                                      .grad_weight = Output(in_proj_->grad.data(), N_, D_),
                                      .dtype = pass.dtype},
                                     pass.exec));
  }
  const OpTimer timer(pass.times, Op::norm);
  return kernels::rms_norm_backward({.x = x_rows,
                                     .weight = norm_->value,
                                     .grad_y = narrow,
                                     .grad_x = Output(grad_x, rows, D_),
                                     .grad_weight = norm_->grad,
                                     .add_grad_x = residual},
                                    pass.exec);
}

Status SequenceLayer::check_cache(const MixerPass& pass) const {
  using enum kernels::CacheDtype;
  const kernels::CacheDtype wanted = pass.cache_dtype.value_or(f32);
  if (wanted == f32) return ok();
  return fail(
      ErrorCode::unsupported,
      "a cache in {} is one of 'rat', 'ratplus', 'attention' and 'swa' layers in bf16 on the cuda device, with heads of 64 or "
      "128 and a width of at most 2048, a multiple of 64; this is a layer of '{}' in {} on the "
      "{} device, with heads of {} and a width of {}",
      kernels::cache_dtype_name(wanted), type_->name, kernels::dtype_name(pass.dtype), pass.exec.backend->name, P_, D_);
}

Status SequenceLayer::prefill(const MixerPass& pass, const float* x, MixerState& state, float* y, bool residual) {
  if (mixer_->fuses_generation(pass))
    return mixer_->prefill_fused(pass, {in_proj_, out_proj_, norm_}, extra_, x, state, y, residual);
  RAT_TRY(check_cache(pass));
  RAT_TRY(forward_unfused(pass, x, y, residual));
  return mixer_->fill(pass, (*pass.saved)[saved_projected].data(), state);
}

Status SequenceLayer::step(const MixerPass& pass, int64_t position, const float* x, MixerState& state, float* y,
                           bool residual) {
  if (mixer_->fuses_generation(pass))
    return mixer_->step_fused(pass, {in_proj_, out_proj_, norm_}, extra_, x, state, y, residual);
  RAT_TRY(check_cache(pass));
  const int64_t B = pass.batch;
  const Output normed((*pass.work)[work_normed].ensure(B * D_), B, D_);
  const Output projected((*pass.work)[work_wide].ensure(B * N_), B, N_);
  float* mixed = (*pass.work)[work_narrow].ensure(B * D_);
  RAT_TRY(kernels::rms_norm({.x = Input(x, B, D_), .weight = norm_->value, .y = normed}, pass.exec));
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul({.a = normed,
                             .b = Input(in_proj_->value.data(), N_, D_),
                             .c = projected,
                             .transpose_b = true,
                             .dtype = pass.dtype,
                             .b_bf16 = pass.rounded ? pass.rounded->of(in_proj_->value) : nullptr},
                            pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::attention);
    RAT_TRY(mixer_->step(pass, extra_, position, projected.data, state, mixed));
  }
  return project_out(pass, B, mixed, x, y, residual);
}

}  // namespace rat
