// Root-mean-square normalisation of each row.
//
//   y[i,d] = x[i,d] * r[i] * weight[d],   r[i] = 1 / sqrt(mean_d x[i,d]^2 + eps)
//
// Source: Zhang and Sennrich 2019; eps 1e-6 as published RAT models. Shapes: x, y (N, D); weight (D).
// Trap:   eps is inside the root, added to the mean, not to the sum. y may be x.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

inline constexpr float rms_norm_eps = 1e-6f;

struct RmsNormArgs {
  Input x;
  std::span<const float> weight;
  Output y;
  float eps = rms_norm_eps;
};

// grad_x[i] (+)= r (w g - x r^2 mean(w g x)); grad_weight[d] += sum_i g[i,d] x[i,d] r[i].
struct RmsNormBackwardArgs {
  Input x;
  std::span<const float> weight;
  Input grad_y;
  Output grad_x;
  std::span<float> grad_weight;  // added to
  bool add_grad_x = false;       // add to grad_x: the residual's gradient is already there
  float eps = rms_norm_eps;
};

[[nodiscard]] Status rms_norm(const RmsNormArgs& args, const Exec& exec);
[[nodiscard]] Status rms_norm_backward(const RmsNormBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
