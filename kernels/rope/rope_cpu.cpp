#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/rope/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/rope/rope_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

void RotateRows(const RopeArgs& a, int64_t begin, int64_t end) {
  const int64_t half = a.table->head_size() / 2;
  const float sign = a.inverse ? -1.0f : 1.0f;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t position = (a.first + row % a.tokens) / a.chunk_len;
    const float* HWY_RESTRICT cosines = a.table->cosines(position);
    const float* HWY_RESTRICT sines = a.table->sines(position);
    for (int64_t head = 0; head < a.x.cols; head += 2 * half) {
      const float* x = a.x.row(row) + head;
      float* y = a.y.row(row) + head;
      for_each_vector(half, [&](auto d, int64_t j) HWY_ATTR {
        const auto c = hn::LoadU(d, cosines + j);
        const auto s = hn::Mul(hn::LoadU(d, sines + j), hn::Set(d, sign));
        const auto low = hn::LoadU(d, x + j), high = hn::LoadU(d, x + half + j);
        const auto to_low = hn::NegMulAdd(high, s, hn::Mul(low, c));
        const auto to_high = hn::MulAdd(low, s, hn::Mul(high, c));
        hn::StoreU(a.add ? hn::Add(hn::LoadU(d, y + j), to_low) : to_low, d, y + j);
        hn::StoreU(a.add ? hn::Add(hn::LoadU(d, y + half + j), to_high) : to_high, d, y + half + j);
      });
    }
  }
}

// No position embedding: a copy, or a sum.
void CopyRows(const RopeArgs& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = a.x.row(row);
    float* y = a.y.row(row);
    for_each_vector(a.x.cols, [&](auto d, int64_t j) HWY_ATTR {
      const auto v = hn::LoadU(d, x + j);
      hn::StoreU(a.add ? hn::Add(hn::LoadU(d, y + j), v) : v, d, y + j);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(RotateRows);
HWY_EXPORT(CopyRows);

Status cpu::rope(const RopeArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    if (args.table != nullptr)
      HWY_DYNAMIC_DISPATCH(RotateRows)(args, begin, end);
    else
      HWY_DYNAMIC_DISPATCH(CopyRows)(args, begin, end);
  });
  return ok();
}

}  // namespace rat::kernels
#endif
