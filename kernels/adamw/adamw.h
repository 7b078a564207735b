// One AdamW update of all parameters, with clipping by the global norm of the gradients.
//
//   norm = sqrt(sum of squares of all gradients);  g = grad * min(1, clip / (norm + 1e-6))
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p -= lr * ( (m / correction1) / (sqrt(v / correction2) + eps) + weight_decay * p ),   correction = 1 - beta^step
//
// Source: Loshchilov and Hutter 2019, as PyTorch computes it. The spans of a tensor have one length. The lists of
//         tensors are host memory. The norm is added up in blocks of fixed size: squares in single precision, blocks in
//         double.
// Traps:  weight decay is decoupled (not part of g) and uses p before the update. Where the norm is not finite, nothing
//         is changed.
#pragma once

#include <algorithm>
#include <cmath>
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
  double clip = 0;                 // 0: not clipped
  double* squared_norm = nullptr;  // host memory; the call waits for it, but not for the update
};

// What gradients are multiplied by.
inline double clip_scale(double clip, double squared_norm) {
  return clip > 0 ? std::min(1.0, clip / (std::sqrt(squared_norm) + 1e-6)) : 1.0;
}

[[nodiscard]] Status adamw(const AdamWArgs& args, const Exec& exec);

}  // namespace rat::kernels
