#include <algorithm>

#include "kernels/base/parallel.h"
#include "kernels/matmul/few_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/few_rows_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// Four rows of W at a time against one row of A: four sums in flight hide the latency of each.
HWY_INLINE void FourDots(const float* HWY_RESTRICT a, const float* HWY_RESTRICT w, int64_t stride, int64_t n,
                         float (&out)[4]) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::LoadU(d, a + i);
    s0 = hn::MulAdd(x, hn::LoadU(d, w + i), s0);
    s1 = hn::MulAdd(x, hn::LoadU(d, w + stride + i), s1);
    s2 = hn::MulAdd(x, hn::LoadU(d, w + 2 * stride + i), s2);
    s3 = hn::MulAdd(x, hn::LoadU(d, w + 3 * stride + i), s3);
  }
  out[0] = hn::GetLane(hn::SumOfLanes(d, s0));
  out[1] = hn::GetLane(hn::SumOfLanes(d, s1));
  out[2] = hn::GetLane(hn::SumOfLanes(d, s2));
  out[3] = hn::GetLane(hn::SumOfLanes(d, s3));
  for (; i < n; ++i)
    for (int64_t j = 0; j < 4; ++j) out[j] += a[i] * w[j * stride + i];
}

// Columns [begin, end) of C.
void DotColumns(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t k = args.a.cols;
  for (int64_t j = begin; j < end; j += 4) {
    const int64_t count = std::min<int64_t>(4, end - j);
    for (int64_t i = 0; i < args.c.rows; ++i) {
      float sums[4];
      if (count == 4)
        FourDots(args.a.row(i), args.b.row(j), args.b.stride, k, sums);
      else
        for (int64_t l = 0; l < count; ++l) sums[l] = dot_product(args.a.row(i), args.b.row(j + l), k);
      float* c = args.c.row(i) + j;
      for (int64_t l = 0; l < count; ++l) {
        const float start = args.addend ? args.addend[i * args.c.cols + j + l] : args.accumulate ? c[l] : 0.0f;
        c[l] = start + sums[l];
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(DotColumns);

void cpu::multiply_few_rows(const MatmulArgs& args) {
  // Each block reads 64 KiB of W or more: less is not worth handing to another core.
  const int64_t columns = std::max<int64_t>(4, (int64_t{1} << 14) / args.a.cols / 4 * 4);
  parallel_ranges(args.c.cols, columns,
                  [&](int64_t begin, int64_t end) { HWY_DYNAMIC_DISPATCH(DotColumns)(args, begin, end); });
}

}  // namespace rat::kernels
#endif
