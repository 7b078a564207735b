#include "core/feed_forward.h"

#include <algorithm>

#include "core/op_times.h"
#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/gelu/gelu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/packed_matrix.h"
#include "kernels/rms_norm/rms_norm.h"

namespace rat {

using kernels::Input;
using kernels::Output;

namespace {

constexpr int64_t few_rows = 16;

// body(begin, end) for blocks of rows whose wide intermediate values stay in a core's second-level cache from one
// operation to the next. Operations inside a block run on the block's thread.
template <class Body>
Status for_row_blocks(int64_t rows, const Body& body) {
  const int64_t block = std::clamp<int64_t>(rows / 8 / 32 * 32, 32, 64);
  kernels::parallel_ranges(rows, block, [&](int64_t begin, int64_t end) {
    const Status status = body(begin, end);  // shapes and dtype were checked before: only a mistake of ours can fail
    RAT_CHECK(bool(status), status.error().message);
  });
  return ok();
}

}  // namespace

FeedForward::FeedForward(const ModelConfig& config, std::span<Parameter> parameters)
    : D_(config.d_model),
      F_(config.ffn_mult * config.d_model),
      fc1_(&parameters[0]),
      fc2_(&parameters[1]),
      norm_(&parameters[2]) {}

bool FeedForward::fuses(const MixerPass& pass) const {
  return pass.fused_weights != nullptr && kernels::fuses_feed_forward({pass.rows(), D_, F_}, pass.exec);
}

kernels::FeedForwardArgs FeedForward::fused_args(const MixerPass& pass, const float* x, float* y) const {
  const kernels::FeedForwardShape shape{pass.rows(), D_, F_};
  const auto floats = static_cast<int64_t>(kernels::feed_forward_saved(shape, pass.exec) / sizeof(float)) + 1;
  return {.shape = shape,
          .norm = norm_->value,
          .fc1 = pass.fused_weights->of(fc1_->value),
          .fc2 = pass.fused_weights->of(fc2_->value),
          .x = Input(x, shape.rows, D_),
          .y = Output(y, shape.rows, D_),
          .saved = (*pass.saved)[saved_ffn].ensure(floats)};
}

Status FeedForward::forward(const MixerPass& pass, const float* x, float* y, bool keep) {
  if (fuses(pass)) {
    const OpTimer timer(pass.times, Op::feed_forward);
    kernels::FeedForwardArgs args = fused_args(pass, x, y);
    args.keep = keep;
    return kernels::feed_forward(args, pass.exec);
  }
  if (pass.rows() < few_rows || pass.tokens == 1 || !pass.exec.backend->host) return forward_whole(pass, x, y, keep);
  const OpTimer timer(pass.times, Op::feed_forward);
  const int64_t rows = pass.rows();
  static thread_local kernels::PackedMatrix first, second;  // of the caller; the blocks read them
  const Input fc1(fc1_->value.data(), F_, D_), fc2(fc2_->value.data(), D_, F_);
  RAT_TRY(first.pack(fc1, true, pass.dtype));
  RAT_TRY(second.pack(fc2, true, pass.dtype));
  float* const kept = keep ? (*pass.saved)[saved_ffn].ensure(rows * F_) : nullptr;
  const auto block = [&, first_packed = &first, second_packed = &second](int64_t begin, int64_t end) -> Status {
    static thread_local kernels::Scratch scratch;
    const int64_t count = end - begin;
    float* const own = scratch.ensure<float>(count * (D_ + 2 * F_));
    const Output normed(own, count, D_), hidden(own + count * D_, count, F_);
    const Output before_gelu(kept ? kept + begin * F_ : own + count * (D_ + F_), count, F_);
    const float* from = x + begin * D_;
    float* to = y + begin * D_;
    RAT_TRY(kernels::rms_norm({.x = Input(from, count, D_), .weight = norm_->value, .y = normed}, pass.exec));
    RAT_TRY(kernels::matmul({.a = normed,
                             .b = fc1,
                             .c = before_gelu,
                             .transpose_b = true,
                             .dtype = pass.dtype,
                             .packed_b = first_packed},
                            pass.exec));
    RAT_TRY(kernels::gelu({.x = before_gelu, .y = hidden}, pass.exec));
    return kernels::matmul({.a = hidden,
                            .b = fc2,
                            .c = Output(to, count, D_),
                            .transpose_b = true,
                            .accumulate = x == y,
                            .addend = x == y ? nullptr : from,
                            .dtype = pass.dtype,
                            .packed_b = second_packed},
                           pass.exec);
  };
  return for_row_blocks(rows, block);
}

// Each step over all rows: for the few rows of decoding, whose weights are streamed rather than packed, and for devices.
Status FeedForward::forward_whole(const MixerPass& pass, const float* x, float* y, bool keep) {
  const int64_t rows = pass.rows();
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  const Output hidden((*pass.work)[work_hidden].ensure(rows * F_), rows, F_);
  const Output before_gelu = keep ? Output((*pass.saved)[saved_ffn].ensure(rows * F_), rows, F_) : hidden;
  {
    const OpTimer timer(pass.times, Op::norm);
    RAT_TRY(kernels::rms_norm({.x = Input(x, rows, D_), .weight = norm_->value, .y = normed}, pass.exec));
  }
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul(
        {.a = normed,
         .b = Input(fc1_->value.data(), F_, D_),
         .c = before_gelu,
         .transpose_b = true,
         .dtype = pass.dtype,
         .b_bf16 = pass.rounded ? pass.rounded->of(fc1_->value) : nullptr},
        pass.exec));
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
                          .addend = x == y ? nullptr : x,
                          .dtype = pass.dtype,
                          .b_bf16 = pass.rounded ? pass.rounded->of(fc2_->value) : nullptr},
                         pass.exec);
}

// Hidden gradients and what the weights' gradients need, in blocks of rows.
Status FeedForward::hidden_gradients(const MixerPass& pass, const Input& x_rows, const Input& grad_rows,
                                     const Hidden& to) {
  const OpTimer timer(pass.times, Op::feed_forward);
  static thread_local kernels::PackedMatrix second, first;  // of the caller; the blocks read them
  const Input fc1(fc1_->value.data(), F_, D_), fc2(fc2_->value.data(), D_, F_);
  const Input before_gelu((*pass.saved)[saved_ffn].data(), x_rows.rows, F_);
  const bool pack = pass.exec.backend->host;
  if (pack) {
    RAT_TRY(second.pack(fc2, false, pass.dtype));
    RAT_TRY(first.pack(fc1, false, pass.dtype));
  }
  const auto block = [&, first_packed = pack ? &first : nullptr,
                      second_packed = pack ? &second : nullptr](int64_t begin, int64_t end) -> Status {
    const int64_t count = end - begin;
    const Output wide = to.wide.row_range(begin, count);
    RAT_TRY(kernels::matmul({.a = grad_rows.row_range(begin, count),
                             .b = fc2,
                             .c = wide,
                             .dtype = pass.dtype,
                             .packed_b = second_packed},
                            pass.exec));
    RAT_TRY(kernels::gelu_backward(
        {.x = before_gelu.row_range(begin, count), .y = to.hidden.row_range(begin, count), .grad = wide}, pass.exec));
    RAT_TRY(kernels::rms_norm({.x = x_rows.row_range(begin, count),
                               .weight = norm_->value,
                               .y = to.normed.row_range(begin, count)},
                              pass.exec));
    return kernels::matmul({.a = wide,
                            .b = fc1,
                            .c = to.narrow.row_range(begin, count),
                            .dtype = pass.dtype,
                            .packed_b = first_packed},
                           pass.exec);
  };
  return pack ? for_row_blocks(x_rows.rows, block) : block(0, x_rows.rows);
}

Status FeedForward::backward(const MixerPass& pass, const float* x, float* grad) {
  if (fuses(pass)) {
    const OpTimer timer(pass.times, Op::feed_forward);
    return kernels::feed_forward_backward({.forward = fused_args(pass, x, nullptr),
                                           .grad = pass.rounded_gradient->of({grad, pass.rows(), D_}),
                                           .grad_norm = norm_->grad,
                                           .grad_fc1 = fc1_->grad,
                                           .grad_fc2 = fc2_->grad},
                                          pass.exec);
  }
  RAT_TRY(pass.take_gradient({grad, pass.rows(), D_}));
  const int64_t rows = pass.rows();
  const Output hidden((*pass.work)[work_hidden].ensure(rows * F_), rows, F_);
  const Output wide((*pass.work)[work_wide].ensure(rows * F_), rows, F_);
  const Output normed((*pass.work)[work_normed].ensure(rows * D_), rows, D_);
  const Output narrow((*pass.work)[work_narrow].ensure(rows * D_), rows, D_);
  const Input x_rows(x, rows, D_);
  const Output grad_rows(grad, rows, D_);
  RAT_TRY(hidden_gradients(pass, x_rows, grad_rows, {hidden, wide, normed, narrow}));
  {
    const OpTimer timer(pass.times, Op::gemm);
    RAT_TRY(kernels::matmul({.a = grad_rows,
                             .b = hidden,
                             .c = Output(fc2_->grad.data(), D_, F_),
                             .transpose_a = true,
                             .accumulate = true,
                             .dtype = pass.dtype},
                            pass.exec));
    RAT_TRY(kernels::matmul({.a = wide,
                             .b = normed,
                             .c = Output(fc1_->grad.data(), F_, D_),
                             .transpose_a = true,
                             .accumulate = true,
                             .dtype = pass.dtype},
                            pass.exec));
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
