#include <algorithm>
#include <vector>

#include "kernels/adamw/adamw.h"
#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/adamw/adamw_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

void AdamWRange(const AdamWArgs& a, const AdamWTensor& tensor, float scale, int64_t begin, int64_t end) {
  float* HWY_RESTRICT value = tensor.value.data() + begin;
  const float* HWY_RESTRICT grad = tensor.grad.data() + begin;
  float* HWY_RESTRICT m = tensor.m.data() + begin;
  float* HWY_RESTRICT v = tensor.v.data() + begin;
  const auto f = [](double x) { return static_cast<float>(x); };
  const float beta1 = f(a.beta1), fresh1 = f(1.0 - a.beta1), beta2 = f(a.beta2), fresh2 = f(1.0 - a.beta2);
  const float inverse_correction2 = f(1.0 / a.correction2), rate = f(a.lr / a.correction1),
              keep = f(1.0 - a.lr * a.weight_decay);
  const float eps = f(a.eps);
  for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
    const auto g = hn::Mul(hn::LoadU(d, grad + i), hn::Set(d, scale));
    const auto mean = hn::MulAdd(hn::Set(d, beta1), hn::LoadU(d, m + i), hn::Mul(hn::Set(d, fresh1), g));
    const auto square = hn::MulAdd(hn::Set(d, beta2), hn::LoadU(d, v + i), hn::Mul(hn::Set(d, fresh2), hn::Mul(g, g)));
    const auto root = hn::Add(hn::Sqrt(hn::Mul(square, hn::Set(d, inverse_correction2))), hn::Set(d, eps));
    const auto step = hn::Div(hn::Mul(hn::Set(d, rate), mean), root);
    hn::StoreU(mean, d, m + i);
    hn::StoreU(square, d, v + i);
    hn::StoreU(hn::Sub(hn::Mul(hn::LoadU(d, value + i), hn::Set(d, keep)), step), d, value + i);
  });
}

float SquaresOf(const float* x, int64_t n) { return dot_product(x, x, n); }

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(AdamWRange);
HWY_EXPORT(SquaresOf);

namespace cpu {
namespace {

double squares(std::span<const float> x) {
  constexpr int64_t block = int64_t{1} << 15, piece = 1024;  // a piece is short enough to sum in single precision
  const auto n = static_cast<int64_t>(x.size());
  static thread_local std::vector<double> storage;  // the caller's; grows once
  storage.resize(static_cast<std::size_t>((n + block - 1) / block));
  double* const sums = storage.data();
  parallel_ranges(n, block, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; i += piece)
      sum += static_cast<double>(HWY_DYNAMIC_DISPATCH(SquaresOf)(x.data() + i, std::min(piece, end - i)));
    sums[begin / block] = sum;
  });
  double total = 0;
  for (const double sum : storage) total += sum;
  return total;
}

}  // namespace

Status adamw(const AdamWArgs& args) {
  *args.squared_norm = 0;
  for (const AdamWTensor& tensor : args.tensors) *args.squared_norm += squares(tensor.grad);
  if (!std::isfinite(*args.squared_norm)) return ok();
  const auto scale = static_cast<float>(clip_scale(args.clip, *args.squared_norm));
  for (const AdamWTensor& tensor : args.tensors)
    parallel_ranges(static_cast<int64_t>(tensor.value.size()), int64_t{1} << 15, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(AdamWRange)(args, tensor, scale, begin, end);
    });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
