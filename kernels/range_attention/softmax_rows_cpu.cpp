#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/range_attention/softmax_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/range_attention/softmax_rows_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

using cpu::OneQuery;
using cpu::ScoreTile;

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// x[i] = exp(x[i] - shift)
HWY_INLINE void ExpShifted(float* HWY_RESTRICT x, int64_t n, float shift) {
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(exp_of(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift))), d, x + i);
  });
}

HWY_INLINE float Sum(const float* HWY_RESTRICT x, int64_t n) {
  return sum_vectors(n, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, x + i); });
}

// y = scale * x; y may be x.
HWY_INLINE void Scale(float scale, const float* x, float* y, int64_t n) {
  for_each_vector(n, [&](auto d, int64_t i)
                         HWY_ATTR { hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, scale)), d, y + i); });
}

void SoftmaxTile(const ScoreTile& tile, float* max, float* sum, float* out, int64_t out_stride, int64_t n) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* const row = tile.scores + r * tile.cols;
    float* const seen = row + tile.begin[r];
    const int64_t count = tile.end[r] - tile.begin[r];
    std::fill(row, seen, 0.0f);
    std::fill(row + tile.end[r], row + tile.cols, 0.0f);
    if (count == 0) continue;
    const float largest = std::max(largest_of(seen, count), sum[r] == 0.0f ? minus_infinity : max[r]);
    ExpShifted(seen, count, largest);
    if (sum[r] != 0.0f && largest != max[r]) {
      const float shrink = std::exp(max[r] - largest);
      sum[r] *= shrink;
      Scale(shrink, out + r * out_stride, out + r * out_stride, n);
    }
    max[r] = largest;
    sum[r] += Sum(seen, count);
  }
}

void FinishSoftmax(int64_t rows, const float* max, const float* sum, float* out, int64_t out_stride, int64_t n,
                   float* lse) {
  for (int64_t r = 0; r < rows; ++r) {
    Scale(1.0f / sum[r], out + r * out_stride, out + r * out_stride, n);
    lse[r] = max[r] + std::log(sum[r]);
  }
}

void WeightsFromLse(const ScoreTile& tile, const float* lse) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* const row = tile.scores + r * tile.cols;
    std::fill(row, row + tile.begin[r], 0.0f);
    std::fill(row + tile.end[r], row + tile.cols, 0.0f);
    ExpShifted(row + tile.begin[r], tile.end[r] - tile.begin[r], lse[r]);
  }
}

void SoftmaxGradient(const ScoreTile& tile, float* HWY_RESTRICT grad, const float* mean_grad, float scale) {
  for (int64_t r = 0; r < tile.rows; ++r) {
    float* HWY_RESTRICT to = grad + r * tile.cols;
    const float* HWY_RESTRICT weights = tile.scores + r * tile.cols + tile.begin[r];
    std::fill(to, to + tile.begin[r], 0.0f);
    std::fill(to + tile.end[r], to + tile.cols, 0.0f);
    to += tile.begin[r];
    for_each_vector(tile.end[r] - tile.begin[r], [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(hn::LoadU(d, to + i), hn::Set(d, mean_grad[r]));
      hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, weights + i), hn::Set(d, scale)), centred), d, to + i);
    });
  }
}

void DotRows(int64_t rows, int64_t n, float scale, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
             float* out) {
  for (int64_t r = 0; r < rows; ++r) out[r] = scale * dot_product(a + r * a_stride, b + r * b_stride, n);
}

void ScaleRows(bool add, int64_t rows, int64_t n, const float* scale, const float* x, int64_t x_stride, float* y,
               int64_t y_stride) {
  for (int64_t r = 0; r < rows; ++r) {
    if (add)
      add_scaled(scale[r], x + r * x_stride, y + r * y_stride, n);
    else
      Scale(scale[r], x + r * x_stride, y + r * y_stride, n);
  }
}

// out[i] = sum_j weights[j] rows[j][i], four vectors of columns at a time so that the sums stay in registers.
HWY_INLINE void WeightedSum(const float* HWY_RESTRICT weights, const float* HWY_RESTRICT rows, int64_t stride,
                            int64_t count, float* HWY_RESTRICT out, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
    for (int64_t j = 0; j < count; ++j) {
      const float* row = rows + j * stride + i;
      const auto w = hn::Set(d, weights[j]);
      s0 = hn::MulAdd(w, hn::LoadU(d, row), s0);
      s1 = hn::MulAdd(w, hn::LoadU(d, row + lanes), s1);
      s2 = hn::MulAdd(w, hn::LoadU(d, row + 2 * lanes), s2);
      s3 = hn::MulAdd(w, hn::LoadU(d, row + 3 * lanes), s3);
    }
    hn::StoreU(s0, d, out + i);
    hn::StoreU(s1, d, out + i + lanes);
    hn::StoreU(s2, d, out + i + 2 * lanes);
    hn::StoreU(s3, d, out + i + 3 * lanes);
  }
  if (i == n) return;
  std::fill(out + i, out + n, 0.0f);
  for (int64_t j = 0; j < count; ++j) add_scaled(weights[j], rows + j * stride + i, out + i, n - i);
}

void AttendOneHead(const OneQuery& one) {
  for (int64_t j = 0; j < one.keys; ++j)
    one.scores[j] = one.scale * dot_product(one.q, one.k + j * one.k_stride, one.n);
  float largest = largest_of(one.scores, one.keys), own = 0.0f;
  if (one.own_k) {
    own = one.scale * dot_product(one.own_q, one.own_k, one.n);
    largest = std::max(largest, own);
  }
  ExpShifted(one.scores, one.keys, largest);
  float sum = Sum(one.scores, one.keys);
  WeightedSum(one.scores, one.v, one.v_stride, one.keys, one.out, one.n);
  if (one.own_k) {
    own = std::exp(own - largest);
    sum += own;
    add_scaled(own, one.own_v, one.out, one.n);
  }
  Scale(1.0f / sum, one.out, one.out, one.n);
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(SoftmaxTile);
HWY_EXPORT(FinishSoftmax);
HWY_EXPORT(WeightsFromLse);
HWY_EXPORT(SoftmaxGradient);
HWY_EXPORT(DotRows);
HWY_EXPORT(ScaleRows);
HWY_EXPORT(AttendOneHead);

namespace cpu {

void softmax_tile(const ScoreTile& tile, float* max, float* sum, float* out, int64_t out_stride, int64_t n) {
  HWY_DYNAMIC_DISPATCH(SoftmaxTile)(tile, max, sum, out, out_stride, n);
}
void finish_softmax(int64_t rows, const float* max, const float* sum, float* out, int64_t out_stride, int64_t n,
                    float* lse) {
  HWY_DYNAMIC_DISPATCH(FinishSoftmax)(rows, max, sum, out, out_stride, n, lse);
}
void weights_from_lse(const ScoreTile& tile, const float* lse) { HWY_DYNAMIC_DISPATCH(WeightsFromLse)(tile, lse); }
void softmax_gradient(const ScoreTile& tile, float* grad, const float* mean_grad, float scale) {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradient)(tile, grad, mean_grad, scale);
}
void dot_rows(int64_t rows, int64_t n, float scale, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
              float* out) {
  HWY_DYNAMIC_DISPATCH(DotRows)(rows, n, scale, a, a_stride, b, b_stride, out);
}
void scale_rows(bool add, int64_t rows, int64_t n, const float* scale, const float* x, int64_t x_stride, float* y,
                int64_t y_stride) {
  HWY_DYNAMIC_DISPATCH(ScaleRows)(add, rows, n, scale, x, x_stride, y, y_stride);
}
void attend_one_head(const OneQuery& one) { HWY_DYNAMIC_DISPATCH(AttendOneHead)(one); }

}  // namespace cpu
}  // namespace rat::kernels
#endif
