// Exact Gaussian error linear unit, element by element.
//
//   y = x Phi(x),   Phi(x) = (1 + erf(x / sqrt 2)) / 2
//   backward: grad_x = grad_y (Phi(x) + x phi(x)),   phi(x) = exp(-x^2 / 2) / sqrt(2 pi)
//
// Trap: the tanh form differs from this by up to 1e-3 and does not reproduce published models.
// Shapes: all (N, D). The outputs may be the inputs.
#pragma once

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct GeluArgs {
  Input x;
  Output y;
};

// Recomputes y as well, because backward needs it for the next weight and shares the error function.
struct GeluBackwardArgs {
  Input x;
  Output y;     // out: gelu(x)
  Output grad;  // in: grad_y; out: grad_x
};

[[nodiscard]] Status gelu(const GeluArgs& args, const Exec& exec);
[[nodiscard]] Status gelu_backward(const GeluBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
