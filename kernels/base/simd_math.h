// Part of each SIMD file, included once per Highway target. Highway's exp turns NaN into 0; these keep NaN, so that a
// diverged model is seen as such.
#if defined(RAT_KERNELS_BASE_SIMD_MATH_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAT_KERNELS_BASE_SIMD_MATH_H_
#undef RAT_KERNELS_BASE_SIMD_MATH_H_
#else
#define RAT_KERNELS_BASE_SIMD_MATH_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

template <class D, class V>
HWY_INLINE V exp_of(D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Exp(d, hn::Max(x, hn::Set(d, -150.0f))));
}

template <class D, class V>
HWY_INLINE V sigmoid_of(D d, V x) {
  const auto one = hn::Set(d, 1.0f);
  const auto bounded = hn::Min(hn::Max(x, hn::Set(d, -87.0f)), hn::Set(d, 87.0f));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Div(one, hn::Add(one, hn::Exp(d, hn::Neg(bounded)))));
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();
#endif
