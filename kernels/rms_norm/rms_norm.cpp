#include "kernels/rms_norm/rms_norm.h"

namespace rat::kernels {
namespace {

Status check_weight(const char* op, std::size_t size, int64_t cols) {
  if (static_cast<int64_t>(size) == cols && cols > 0) return ok();
  return fail(ErrorCode::shape_mismatch, "{}: the weight has {} values but rows have {}", op, size, cols);
}

}  // namespace

Status rms_norm(const RmsNormArgs& args, const Exec& exec) {
  RAT_TRY(check_weight("rms_norm", args.weight.size(), args.x.cols));
  RAT_TRY(expect_shape("rms_norm", "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape("rms_norm", "y", args.y, args.x.rows, args.x.cols));
  return exec.run(&Backend::rms_norm, "rms_norm", args);
}

Status rms_norm_backward(const RmsNormBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "rms_norm_backward";
  RAT_TRY(check_weight(op, args.weight.size(), args.x.cols));
  RAT_TRY(check_weight(op, args.grad_weight.size(), args.x.cols));
  RAT_TRY(expect_shape(op, "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape(op, "grad_y", args.grad_y, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape(op, "grad_x", args.grad_x, args.x.rows, args.x.cols));
  return exec.run(&Backend::rms_norm_backward, op, args);
}

}  // namespace rat::kernels
