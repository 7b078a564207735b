#include "kernels/matmul/linear_backward.h"

#include "kernels/matmul/matmul.h"

namespace rat::kernels {

Status linear_backward(const LinearBackwardArgs& args, const Exec& exec) {
  const Input &grad_y = args.grad_y, &x = args.x, &weight = args.weight;
  RAT_TRY(expect_shape("linear_backward", "weight", weight, grad_y.cols, x.cols));
  RAT_TRY(expect_shape("linear_backward", "x", x, grad_y.rows, x.cols));
  RAT_TRY(expect_shape("linear_backward", "grad_x", args.grad_x, x.rows, x.cols));
  RAT_TRY(expect_shape("linear_backward", "grad_weight", args.grad_weight, weight.rows, weight.cols));
  if (exec.backend == &cpu_backend() && cpu::rounds_once(args)) return cpu::linear_backward(args);
  RAT_TRY(matmul({.a = grad_y, .b = weight, .c = args.grad_x, .dtype = args.dtype}, exec));
  return matmul({.a = grad_y,
                 .b = x,
                 .c = args.grad_weight,
                 .transpose_a = true,
                 .accumulate = true,
                 .dtype = args.dtype},
                exec);
}

}  // namespace rat::kernels
