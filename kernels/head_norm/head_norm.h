// Root-mean-square normalisation of each head of each row, each head with weights of its own.
//
//   y[i,h,p] (+)= x[i,h,p] r[i,h] weight[h,p],   r[i,h] = 1 / sqrt(mean_p x[i,h,p]^2 + eps)
//
// Source: Wang et al., RAttention, arXiv:2506.15545, which sums two results normalised so; eps 1e-8 as published.
// Shapes: x, y (N, D = H P); weight (D).
// Trap:   a head of zeros stays zero, but its gradient is scaled by 1 / sqrt(eps) = 10,000.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

inline constexpr float head_norm_eps = 1e-8f;

struct HeadNormArgs {
  int64_t head_size = 0;  // P
  Input x;
  std::span<const float> weight;
  Output y;
  bool add = false;  // add to y
  float eps = head_norm_eps;
};

// grad_x = r (w g - x r^2 mean(w g x)); grad_weight[h,p] += sum over rows of g x r.
struct HeadNormBackwardArgs {
  int64_t head_size = 0;
  Input x;
  std::span<const float> weight;
  Input grad_y;
  Output grad_x;
  std::span<float> grad_weight;  // added to
  float eps = head_norm_eps;
};

[[nodiscard]] Status head_norm(const HeadNormArgs& args, const Exec& exec);
[[nodiscard]] Status head_norm_backward(const HeadNormBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
