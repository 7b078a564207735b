// Part of each SIMD file, included once per Highway target (so: no #pragma once, no include guard across targets).
// Whole vectors first, then one element at a time: every element is computed by the same formula.
#if defined(RAT_KERNELS_BASE_SIMD_LOOP_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAT_KERNELS_BASE_SIMD_LOOP_H_
#undef RAT_KERNELS_BASE_SIMD_LOOP_H_
#else
#define RAT_KERNELS_BASE_SIMD_LOOP_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// body(tag, i) for consecutive groups of Lanes(tag) elements that cover [0, n).
template <class Body>
HWY_INLINE void for_each_vector(int64_t n, const Body& body) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(d, i);
  const hn::CappedTag<float, 1> one;
  for (; i < n; ++i) body(one, i);
}

// Sum over [0, n) of body(tag, i), four accumulators wide.
template <class Body>
HWY_INLINE float sum_vectors(int64_t n, const Body& body) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, body(d, i));
    s1 = hn::Add(s1, body(d, i + lanes));
    s2 = hn::Add(s2, body(d, i + 2 * lanes));
    s3 = hn::Add(s3, body(d, i + 3 * lanes));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, body(d, i));
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3))));
  const hn::CappedTag<float, 1> one;
  for (; i < n; ++i) sum += hn::GetLane(body(one, i));
  return sum;
}

HWY_INLINE float dot_product(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t n) {
  return sum_vectors(n, [&](auto d, int64_t i) HWY_ATTR { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

// The largest of n values; -inf for none. A NaN may be passed over.
HWY_INLINE float largest_of(const float* HWY_RESTRICT x, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto largest = hn::Set(d, -std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) largest = hn::Max(largest, hn::LoadU(d, x + i));
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  for (; i < n; ++i) result = std::max(result, x[i]);
  return result;
}

// y += scale * x
HWY_INLINE void add_scaled(float scale, const float* HWY_RESTRICT x, float* HWY_RESTRICT y, int64_t n) {
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::MulAdd(hn::Set(d, scale), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();
#endif
