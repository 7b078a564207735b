#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/range_attention/softmax_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/range_attention/softmax_rows_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

float Dot(const float* a, const float* b, int64_t n) { return dot_product(a, b, n); }
void Axpy(float scale, const float* x, float* y, int64_t n) { add_scaled(scale, x, y, n); }

HWY_INLINE float Largest(const float* HWY_RESTRICT x, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, hn::LoadU(d, x + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// x[i] = exp(x[i] - shift); returns nothing: the sum is taken separately, in one order for every vector width.
HWY_INLINE void ExpShifted(float* HWY_RESTRICT x, int64_t n, float shift) {
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift))), d, x + i);
  });
}

float SoftmaxRow(float* HWY_RESTRICT scores, int64_t n, int64_t begin, int64_t end, float* own) {
  float* const seen = scores + begin;
  const int64_t count = end - begin;
  std::fill(scores, seen, 0.0f);
  std::fill(scores + end, scores + n, 0.0f);
  const float largest = std::max(Largest(seen, count), own ? *own : -std::numeric_limits<float>::infinity());
  ExpShifted(seen, count, largest);
  float sum = sum_vectors(count, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, seen + i); });
  if (own) {
    *own = std::exp(*own - largest);
    sum += *own;
  }
  const float inverse = 1.0f / sum;
  for_each_vector(count, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, seen + i), hn::Set(d, inverse)), d, seen + i);
  });
  if (own) *own *= inverse;
  return largest + std::log(sum);
}

void WeightsFromLse(float* HWY_RESTRICT scores, int64_t n, int64_t begin, int64_t end, float lse) {
  std::fill(scores, scores + begin, 0.0f);
  std::fill(scores + end, scores + n, 0.0f);
  ExpShifted(scores + begin, end - begin, lse);
}

void SoftmaxGradient(const float* HWY_RESTRICT weights, float* HWY_RESTRICT grad, int64_t n, float mean_grad,
                     float scale) {
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto centred = hn::Sub(hn::LoadU(d, grad + i), hn::Set(d, mean_grad));
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, weights + i), hn::Set(d, scale)), centred), d, grad + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(Dot);
HWY_EXPORT(Axpy);
HWY_EXPORT(SoftmaxRow);
HWY_EXPORT(WeightsFromLse);
HWY_EXPORT(SoftmaxGradient);

namespace cpu {

float dot(const float* a, const float* b, int64_t n) { return HWY_DYNAMIC_DISPATCH(Dot)(a, b, n); }
void axpy(float scale, const float* x, float* y, int64_t n) { HWY_DYNAMIC_DISPATCH(Axpy)(scale, x, y, n); }
float softmax_row(float* scores, int64_t n, int64_t begin, int64_t end, float* own) {
  return HWY_DYNAMIC_DISPATCH(SoftmaxRow)(scores, n, begin, end, own);
}
void weights_from_lse(float* scores, int64_t n, int64_t begin, int64_t end, float lse) {
  HWY_DYNAMIC_DISPATCH(WeightsFromLse)(scores, n, begin, end, lse);
}
void softmax_gradient(const float* weights, float* grad, int64_t n, float mean_grad, float scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradient)(weights, grad, n, mean_grad, scale);
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
