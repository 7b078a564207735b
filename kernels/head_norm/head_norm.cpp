#include "kernels/head_norm/head_norm.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const Input& x, int64_t head_size, std::size_t weights) {
  if (head_size < 1 || x.cols < 1 || x.cols % head_size != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} columns are not heads of size {}", op, x.cols, head_size);
  if (static_cast<int64_t>(weights) != x.cols)
    return fail(ErrorCode::shape_mismatch, "{}: there are {} weights but {} columns", op, weights, x.cols);
  return expect_shape(op, "x", x, x.rows, x.cols);
}

}  // namespace

Status head_norm(const HeadNormArgs& args, const Exec& exec) {
  RAT_TRY(check("head_norm", args.x, args.head_size, args.weight.size()));
  RAT_TRY(expect_shape("head_norm", "y", args.y, args.x.rows, args.x.cols));
  return exec.run(&Backend::head_norm, "head_norm", args);
}

Status head_norm_backward(const HeadNormBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "head_norm_backward";
  RAT_TRY(check(op, args.x, args.head_size, args.weight.size()));
  if (args.grad_weight.size() != args.weight.size())
    return fail(ErrorCode::shape_mismatch, "{}: grad_weight has {} values but there are {} weights", op,
                args.grad_weight.size(), args.weight.size());
  RAT_TRY(expect_shape(op, "grad_y", args.grad_y, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape(op, "grad_x", args.grad_x, args.x.rows, args.x.cols));
  return exec.run(&Backend::head_norm_backward, op, args);
}

}  // namespace rat::kernels
