#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/linear_attention/features.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/linear_attention/features_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// y = softmax(sign * x)
HWY_INLINE void Softmax(const float* HWY_RESTRICT x, float sign, float* HWY_RESTRICT y, int64_t n) {
  float largest = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, sign * x[i]);
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(exp_of(d, hn::MulAdd(hn::LoadU(d, x + i), hn::Set(d, sign), hn::Set(d, -largest))), d, y + i);
  });
  const float sum = sum_vectors(n, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, y + i); });
  const float inverse = 1.0f / sum;
  for_each_vector(n, [&](auto d, int64_t i)
                         HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, y + i), hn::Set(d, inverse)), d, y + i); });
}

void SoftmaxFeatures(int64_t rows, int64_t n, const float* x, int64_t x_stride, float* features) {
  for (int64_t r = 0; r < rows; ++r) {
    Softmax(x + r * x_stride, 1.0f, features + r * 2 * n, n);
    Softmax(x + r * x_stride, -1.0f, features + r * 2 * n + n, n);
  }
}

// to += sign * s (grad - s . grad)
HWY_INLINE void AddSoftmaxGradient(const float* HWY_RESTRICT s, const float* HWY_RESTRICT grad, float sign,
                                   float* HWY_RESTRICT to, int64_t n) {
  const float mean = dot_product(s, grad, n);
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, grad + i), hn::Set(d, mean));
    const auto change = hn::Mul(hn::Mul(hn::LoadU(d, s + i), hn::Set(d, sign)), centred);
    hn::StoreU(hn::Add(hn::LoadU(d, to + i), change), d, to + i);
  });
}

void AddFeatureGradient(int64_t rows, int64_t n, const float* features, const float* grad, float* grad_x,
                        int64_t grad_x_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * 2 * n;
    AddSoftmaxGradient(features + at, grad + at, 1.0f, grad_x + r * grad_x_stride, n);
    AddSoftmaxGradient(features + at + n, grad + at + n, -1.0f, grad_x + r * grad_x_stride, n);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(SoftmaxFeatures);
HWY_EXPORT(AddFeatureGradient);

namespace cpu {

void softmax_features(int64_t rows, int64_t n, const float* x, int64_t x_stride, float* features) {
  HWY_DYNAMIC_DISPATCH(SoftmaxFeatures)(rows, n, x, x_stride, features);
}
void add_feature_gradient(int64_t rows, int64_t n, const float* features, const float* grad, float* grad_x,
                          int64_t grad_x_stride) {
  HWY_DYNAMIC_DISPATCH(AddFeatureGradient)(rows, n, features, grad, grad_x, grad_x_stride);
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
