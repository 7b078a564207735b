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

// The same against two rows of A of whole vectors, each summed as alone: W is read from its cache half as often.
HWY_INLINE void EightDots(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, const float* HWY_RESTRICT w,
                          int64_t stride, int64_t n, float (&out_a)[4], float (&out_b)[4]) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a0 = hn::Zero(d), a1 = hn::Zero(d), a2 = hn::Zero(d), a3 = hn::Zero(d);
  auto b0 = hn::Zero(d), b1 = hn::Zero(d), b2 = hn::Zero(d), b3 = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes) {
    const auto x = hn::LoadU(d, a + i), y = hn::LoadU(d, b + i);
    const auto w0 = hn::LoadU(d, w + i), w1 = hn::LoadU(d, w + stride + i);
    const auto w2 = hn::LoadU(d, w + 2 * stride + i), w3 = hn::LoadU(d, w + 3 * stride + i);
    a0 = hn::MulAdd(x, w0, a0), a1 = hn::MulAdd(x, w1, a1), a2 = hn::MulAdd(x, w2, a2), a3 = hn::MulAdd(x, w3, a3);
    b0 = hn::MulAdd(y, w0, b0), b1 = hn::MulAdd(y, w1, b1), b2 = hn::MulAdd(y, w2, b2), b3 = hn::MulAdd(y, w3, b3);
  }
  out_a[0] = hn::GetLane(hn::SumOfLanes(d, a0)), out_b[0] = hn::GetLane(hn::SumOfLanes(d, b0));
  out_a[1] = hn::GetLane(hn::SumOfLanes(d, a1)), out_b[1] = hn::GetLane(hn::SumOfLanes(d, b1));
  out_a[2] = hn::GetLane(hn::SumOfLanes(d, a2)), out_b[2] = hn::GetLane(hn::SumOfLanes(d, b2));
  out_a[3] = hn::GetLane(hn::SumOfLanes(d, a3)), out_b[3] = hn::GetLane(hn::SumOfLanes(d, b3));
}

// Columns [begin, end) of C.
void DotColumns(const MatmulArgs& args, int64_t begin, int64_t end) {
  const int64_t k = args.a.cols, rows = args.c.rows;
  const int64_t together = k % static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>())) == 0 ? 2 : 1;
  for (int64_t j = begin; j < end; j += 4) {
    const int64_t count = std::min<int64_t>(4, end - j);
    for (int64_t i = 0; i < rows; i += together) {
      const int64_t pair = std::min(together, rows - i);
      float sums[2][4];
      if (count < 4)
        for (int64_t r = 0; r < pair; ++r)
          for (int64_t l = 0; l < count; ++l) sums[r][l] = dot_product(args.a.row(i + r), args.b.row(j + l), k);
      else if (pair == 2)
        EightDots(args.a.row(i), args.a.row(i + 1), args.b.row(j), args.b.stride, k, sums[0], sums[1]);
      else
        FourDots(args.a.row(i), args.b.row(j), args.b.stride, k, sums[0]);
      for (int64_t r = 0; r < pair; ++r) {
        float* c = args.c.row(i + r) + j;
        const float* from = args.addend ? args.addend + (i + r) * args.c.cols + j : args.accumulate ? c : nullptr;
        for (int64_t l = 0; l < count; ++l) c[l] = (from ? from[l] : 0.0f) + sums[r][l];
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
