#include <cmath>

#include "kernels/base/column_sums.h"
#include "kernels/cpu_ops.h"
#include "kernels/rms_norm/rms_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rms_norm/rms_norm_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE float InverseRms(const float* HWY_RESTRICT x, int64_t n, float eps) {
  return 1.0f / std::sqrt(dot_product(x, x, n) / static_cast<float>(n) + eps);
}

void NormRows(const RmsNormArgs& a, int64_t begin, int64_t end) {
  const float* HWY_RESTRICT weight = a.weight.data();
  for (int64_t i = begin; i < end; ++i) {
    const float* x = a.x.row(i);
    float* y = a.y.row(i);
    const float r = InverseRms(x, a.x.cols, a.eps);
    for_each_vector(a.x.cols, [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, x + c), hn::Set(d, r)), hn::LoadU(d, weight + c)), d, y + c);
    });
  }
}

void NormRowsBackward(const RmsNormBackwardArgs& a, int64_t begin, int64_t end, float* HWY_RESTRICT grad_weight) {
  const int64_t n = a.x.cols;
  const float* HWY_RESTRICT weight = a.weight.data();
  for (int64_t i = begin; i < end; ++i) {
    const float* HWY_RESTRICT x = a.x.row(i);
    const float* HWY_RESTRICT grad_y = a.grad_y.row(i);
    float* HWY_RESTRICT grad_x = a.grad_x.row(i);
    const float r = InverseRms(x, n, a.eps);
    const float dot = sum_vectors(n, [&](auto d, int64_t c) HWY_ATTR {
      return hn::Mul(hn::Mul(hn::LoadU(d, weight + c), hn::LoadU(d, grad_y + c)), hn::LoadU(d, x + c));
    });
    const float along_x = -dot * r * r * r / static_cast<float>(n);
    for_each_vector(n, [&](auto d, int64_t c) HWY_ATTR {
      const auto xs = hn::LoadU(d, x + c);
      const auto scaled = hn::Mul(hn::LoadU(d, grad_y + c), hn::Set(d, r));
      const auto grad = hn::MulAdd(xs, hn::Set(d, along_x), hn::Mul(scaled, hn::LoadU(d, weight + c)));
      hn::StoreU(a.add_grad_x ? hn::Add(hn::LoadU(d, grad_x + c), grad) : grad, d, grad_x + c);
      hn::StoreU(hn::MulAdd(scaled, xs, hn::LoadU(d, grad_weight + c)), d, grad_weight + c);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(NormRows);
HWY_EXPORT(NormRowsBackward);

namespace cpu {

Status rms_norm(const RmsNormArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormRows)(args, begin, end);
  });
  return ok();
}

Status rms_norm_backward(const RmsNormBackwardArgs& args) {
  add_column_sums(args.x.rows, args.grad_weight, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(NormRowsBackward)(args, begin, end, partial);
  });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
