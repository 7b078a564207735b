#include "kernels/gelu/gelu.h"

namespace rat::kernels {

Status gelu(const GeluArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("gelu", "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape("gelu", "y", args.y, args.x.rows, args.x.cols));
  return exec.run(&Backend::gelu, "gelu", args);
}

Status gelu_backward(const GeluBackwardArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("gelu_backward", "x", args.x, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape("gelu_backward", "y", args.y, args.x.rows, args.x.cols));
  RAT_TRY(expect_shape("gelu_backward", "grad", args.grad, args.x.rows, args.x.cols));
  return exec.run(&Backend::gelu_backward, "gelu_backward", args);
}

}  // namespace rat::kernels
