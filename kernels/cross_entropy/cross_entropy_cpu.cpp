#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/cross_entropy/cross_entropy.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cross_entropy/cross_entropy_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// log sum exp of one row; `target` counts as correct when it is the first of the largest.
void EntropyRow(float* HWY_RESTRICT x, int64_t n, int64_t target, float grad_scale, CrossEntropySums& sums) {
  const float largest = largest_of(x, n);
  const float total = sum_vectors(
      n, [&](auto d, int64_t i) HWY_ATTR { return exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, largest))); });
  const double lse = static_cast<double>(largest) + std::log(static_cast<double>(total));
  sums.loss += lse - static_cast<double>(x[target]);
  ++sums.targets;
  if (x[target] == largest && std::find(x, x + target, largest) == x + target) ++sums.correct;
  if (grad_scale == 0.0f) return;
  const float weight = grad_scale / total;
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto e = exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, largest)));
    hn::StoreU(hn::Mul(e, hn::Set(d, weight)), d, x + i);
  });
  x[target] -= grad_scale;
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(EntropyRow);

Status cpu::cross_entropy(const CrossEntropyArgs& args) {
  const int64_t rows = args.logits.rows, cols = args.logits.cols, block = rows_per_block(cols);
  static thread_local std::vector<CrossEntropySums> partial;  // the caller's; grows once
  partial.assign(static_cast<std::size_t>((rows + block - 1) / block), {});
  CrossEntropySums* const partials = partial.data();
  parallel_ranges(rows, block, [&](int64_t begin, int64_t end) {
    CrossEntropySums sums;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t target = args.targets[static_cast<std::size_t>(i)];
      float* row = args.logits.row(i);
      if (target >= 0)
        HWY_DYNAMIC_DISPATCH(EntropyRow)(row, cols, target, args.grad_scale, sums);
      else if (args.grad_scale != 0.0f)
        std::fill(row, row + cols, 0.0f);
    }
    partials[begin / block] = sums;
  });
  for (const CrossEntropySums& sums : partial) {
    args.sums->loss += sums.loss;
    args.sums->targets += sums.targets;
    args.sums->correct += sums.correct;
  }
  return ok();
}

}  // namespace rat::kernels
#endif
