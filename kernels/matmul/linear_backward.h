// Backward of a linear layer y = x W^T: grad_x = grad_y W and grad_W += grad_y^T x, as two products; where the backend
// can, with grad_y and x read and rounded once for both.
//
// Shapes: grad_y (N, K_out), x and grad_x (N, K_in), W and its gradient (K_out, K_in), these two without gaps.
// Trap:   grad_x must not overlap x or grad_y.
#pragma once

#include "kernels/backend.h"
#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct LinearBackwardArgs {
  Input grad_y, x, weight;
  Output grad_x, grad_weight;
  Dtype dtype = Dtype::f32;
};

[[nodiscard]] Status linear_backward(const LinearBackwardArgs& args, const Exec& exec);

namespace cpu {
// Whether the CPU rounds once: bf16, and whole squares.
bool rounds_once(const LinearBackwardArgs& args);
Status linear_backward(const LinearBackwardArgs& args);
}  // namespace cpu

}  // namespace rat::kernels
