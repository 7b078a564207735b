#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/gelu/gelu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gelu/gelu_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// erf in single precision, about 1 ulp: a polynomial in a^2 near zero, 1 - exp(polynomial in |a|) elsewhere
// (minimax coefficients of N. Juffa's public erff).
template <class D, class V>
HWY_INLINE V Erf(D d, V a) {
  const auto t = hn::Abs(a);
  const auto s = hn::Mul(a, a);
  const auto c = [&](float value) HWY_ATTR { return hn::Set(d, value); };
  auto far = hn::MulAdd(c(-1.72853470e-5f), t, c(3.83197126e-4f));
  far = hn::MulAdd(far, s, hn::MulAdd(c(-3.88396438e-3f), t, c(2.42546219e-2f)));
  far = hn::MulAdd(far, t, c(-1.06777877e-1f));
  far = hn::MulAdd(far, t, c(-6.34846687e-1f));
  far = hn::MulAdd(far, t, c(-1.28717512e-1f));
  far = hn::MulAdd(far, t, hn::Neg(t));
  // Beyond |a| = 4 the result is 1 in single precision; clamping keeps exp away from its lower limit.
  far = hn::CopySign(hn::Sub(c(1.0f), hn::Exp(d, hn::Max(far, c(-20.0f)))), a);
  auto near = hn::MulAdd(c(-5.96761703e-4f), s, c(4.99119423e-3f));
  near = hn::MulAdd(near, s, c(-2.67681349e-2f));
  near = hn::MulAdd(near, s, c(1.12819925e-1f));
  near = hn::MulAdd(near, s, c(-3.76125336e-1f));
  near = hn::MulAdd(near, s, c(1.28379166e-1f));
  near = hn::MulAdd(near, a, a);
  const auto result = hn::IfThenElse(hn::Gt(t, c(0.927734375f)), far, near);
  return hn::IfThenElse(hn::IsNaN(a), a, result);
}

template <class D, class V>
HWY_INLINE V NormalCdf(D d, V x) {
  const auto half = hn::Set(d, 0.5f);
  return hn::MulAdd(half, Erf(d, hn::Mul(x, hn::Set(d, 0.70710678118654752f))), half);
}

void GeluRows(const GeluArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.row(i);
    float* y = a.y.row(i);
    for_each_vector(a.x.cols, [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::LoadU(d, x + c);
      hn::StoreU(hn::Mul(v, NormalCdf(d, v)), d, y + c);
    });
  }
}

void GeluRowsBackward(const GeluBackwardArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.row(i);
    float* y = a.y.row(i);
    float* grad = a.grad.row(i);
    for_each_vector(a.x.cols, [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::LoadU(d, x + c);
      const auto cdf = NormalCdf(d, v);
      // Below -80 the density is taken as 0, so that v times it is 0 however large v is.
      const auto exponent = hn::Mul(hn::Mul(v, v), hn::Set(d, -0.5f)), least = hn::Set(d, -80.0f);
      const auto bell = hn::Exp(d, hn::Max(exponent, least));
      const auto density = hn::IfThenElseZero(hn::Gt(exponent, least), hn::Mul(bell, hn::Set(d, 0.39894228040143268f)));
      hn::StoreU(hn::Mul(v, cdf), d, y + c);
      hn::StoreU(hn::Mul(hn::LoadU(d, grad + c), hn::MulAdd(v, density, cdf)), d, grad + c);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(GeluRows);
HWY_EXPORT(GeluRowsBackward);

namespace cpu {

Status gelu(const GeluArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluRows)(args, begin, end);
  });
  return ok();
}

Status gelu_backward(const GeluBackwardArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluRowsBackward)(args, begin, end);
  });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
