#include <cmath>

#include "kernels/base/column_sums.h"
#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/head_norm/head_norm.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/head_norm/head_norm_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

HWY_INLINE float InverseRms(const float* x, int64_t n, float eps) {
  return 1.0f / std::sqrt(dot_product(x, x, n) / static_cast<float>(n) + eps);
}

void NormRows(const HeadNormArgs& a, int64_t begin, int64_t end) {
  const int64_t n = a.head_size;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t at = 0; at < a.x.cols; at += n) {
      const float* x = a.x.row(i) + at;
      const float* weight = a.weight.data() + at;
      float* y = a.y.row(i) + at;
      const float r = InverseRms(x, n, a.eps);
      for_each_vector(n, [&](auto d, int64_t p) HWY_ATTR {
        const auto scaled = hn::Mul(hn::Mul(hn::LoadU(d, x + p), hn::Set(d, r)), hn::LoadU(d, weight + p));
        hn::StoreU(a.add ? hn::Add(hn::LoadU(d, y + p), scaled) : scaled, d, y + p);
      });
    }
}

void NormRowsBackward(const HeadNormBackwardArgs& a, int64_t begin, int64_t end, float* HWY_RESTRICT grad_weight) {
  const int64_t n = a.head_size;
  for (int64_t i = begin; i < end; ++i)
    for (int64_t at = 0; at < a.x.cols; at += n) {
      const float* HWY_RESTRICT x = a.x.row(i) + at;
      const float* HWY_RESTRICT g = a.grad_y.row(i) + at;
      const float* HWY_RESTRICT weight = a.weight.data() + at;
      float* HWY_RESTRICT grad_x = a.grad_x.row(i) + at;
      const float r = InverseRms(x, n, a.eps);
      const float along = sum_vectors(n, [&](auto d, int64_t p) HWY_ATTR {
        return hn::Mul(hn::Mul(hn::LoadU(d, g + p), hn::LoadU(d, weight + p)), hn::LoadU(d, x + p));
      });
      const float pull = along / static_cast<float>(n) * r * r;
      for_each_vector(n, [&](auto d, int64_t p) HWY_ATTR {
        const auto value = hn::LoadU(d, x + p), to = hn::LoadU(d, g + p);
        const auto change = hn::NegMulAdd(value, hn::Set(d, pull), hn::Mul(to, hn::LoadU(d, weight + p)));
        hn::StoreU(hn::Mul(change, hn::Set(d, r)), d, grad_x + p);
        const auto to_weight = hn::Mul(hn::Mul(to, value), hn::Set(d, r));
        hn::StoreU(hn::Add(hn::LoadU(d, grad_weight + at + p), to_weight), d, grad_weight + at + p);
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

Status head_norm(const HeadNormArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormRows)(args, begin, end);
  });
  return ok();
}

Status head_norm_backward(const HeadNormBackwardArgs& args) {
  add_column_sums(args.x.rows, args.grad_weight, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(NormRowsBackward)(args, begin, end, partial);
  });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
