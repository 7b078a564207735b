// One AdamW update of all parameters, and the squared norm that clipping needs.
//
//   g = grad_scale * grad;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p -= lr * ( (m / correction1) / (sqrt(v / correction2) + eps) + weight_decay * p ),   correction = 1 - beta^step
//
// Source: Loshchilov and Hutter 2019, as PyTorch computes it. The spans of a tensor have one length. The lists of
// tensors are host memory.
// Trap:   weight decay is decoupled (not part of g) and uses p before the update.
#pragma once

#include <span>

#include "kernels/backend.h"

namespace rat::kernels {

struct AdamWTensor {
  std::span<float> value;
  std::span<const float> grad;
  std::span<float> m, v;
};

struct AdamWArgs {
  std::span<const AdamWTensor> tensors;
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  double correction1 = 1, correction2 = 1;
  double grad_scale = 1;  // clipping
};

// *sum += sum of squares, in blocks of fixed size: squares in single precision, blocks added in double.
struct SquaredNormArgs {
  std::span<const std::span<const float>> tensors;
  double* sum = nullptr;  // host memory: the call waits for the result
};

[[nodiscard]] Status adamw(const AdamWArgs& args, const Exec& exec);
[[nodiscard]] Status squared_norm(const SquaredNormArgs& args, const Exec& exec);

}  // namespace rat::kernels
