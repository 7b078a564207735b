// The feature map phi(x) = [softmax(x), softmax(-x)] of rows, and its gradient; vectorised in features_cpu.cpp.
#pragma once

#include <cstdint>

namespace rat::kernels::cpu {

// features (rows, 2 n), dense.
void softmax_features(int64_t rows, int64_t n, const float* x, int64_t x_stride, float* features);
// grad_x[r] += the gradient through phi; `grad` (rows, 2 n) is that of the features.
void add_feature_gradient(int64_t rows, int64_t n, const float* features, const float* grad, float* grad_x,
                          int64_t grad_x_stride);

}  // namespace rat::kernels::cpu
