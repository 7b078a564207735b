#include "core/feed_forward.h"

#include "core/op_times.h"
#include "kernels/gelu/gelu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat {

using kernels::Input;
using kernels::Output;

FeedForward::FeedForward(const ModelConfig& config, std::span<Parameter> parameters)
    : D_(config.d_model),
      F_(config.ffn_mult * config.d_model),
      fc1_(&parameters[0]),
      fc2_(&parameters[1]),
      norm_(&parameters[2]) {}

Status FeedForward::forward(const MixerPass& pass, const float* x, float* y, bool keep) {
  const int64_t rows = pass.rows();
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  const Output hidden((*pass.work)[work_hidden].ensure(rows * F_), rows, F_);
  const Output before_gelu(keep ? (*pass.saved)[saved_ffn].ensure(rows * F_) : hidden.data, rows, F_);
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = Input(x, rows, D_), .weight = norm_->value, .y = normed}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul(
        {.a = normed, .b = Input(fc1_->value.data(), F_, D_), .c = before_gelu, .transpose_b = true}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gelu);
    RAT_TRY(kernels::gelu({.x = before_gelu, .y = hidden}, pass.exec));
  }
  const OpTimer timer(pass.times, Op::gemm);
  return kernels::matmul({.a = hidden,
                          .b = Input(fc2_->value.data(), D_, F_),
                          .c = Output(y, rows, D_),
                          .transpose_b = true,
                          .accumulate = x == y,
                          .addend = x == y ? nullptr : x},
                         pass.exec);
}

Status FeedForward::backward(const MixerPass& pass, const float* x, float* grad) {
  const int64_t rows = pass.rows();
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  const Output hidden((*pass.work)[work_hidden].ensure(rows * F_), rows, F_);
  const Output wide((*pass.work)[work_wide].ensure(rows * F_), rows, F_);
  const Output narrow((*pass.work)[work_narrow].ensure(rows * D_), rows, D_);
  const Input x_rows(x, rows, D_), before_gelu((*pass.saved)[saved_ffn].data(), rows, F_);
  const Output grad_rows(grad, rows, D_);
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul({.a = grad_rows, .b = Input(fc2_->value.data(), D_, F_), .c = wide}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gelu);
    RAT_TRY(kernels::gelu_backward({.x = before_gelu, .y = hidden, .grad = wide}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = x_rows, .weight = norm_->value, .y = normed}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul(
        {.a = grad_rows, .b = hidden, .c = Output(fc2_->grad.data(), D_, F_), .transpose_a = true, .accumulate = true},
        pass.exec));
    RAT_TRY(kernels::matmul(
        {.a = wide, .b = normed, .c = Output(fc1_->grad.data(), F_, D_), .transpose_a = true, .accumulate = true},
        pass.exec));
    RAT_TRY(kernels::matmul({.a = wide, .b = Input(fc1_->value.data(), F_, D_), .c = narrow}, pass.exec));
  }
  const OpTimer timer(pass.times, Op::norm);
  return kernels::rms_norm_backward({.x = x_rows,
                                     .weight = norm_->value,
                                     .grad_y = narrow,
                                     .grad_x = grad_rows,
                                     .grad_weight = norm_->grad,
                                     .add_grad_x = true},
                                    pass.exec);
}

}  // namespace rat
