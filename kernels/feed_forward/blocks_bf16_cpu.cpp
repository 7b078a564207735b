#include "kernels/base/scratch.h"
#include "kernels/feed_forward/blocks.h"
#include "kernels/matmul/panels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include "kernels/matmul/bf16_tiles.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace rat::kernels::cpu {
namespace {

using namespace bf16;  // NOLINT: what these kernels are made of

__m512 all(float x) { return _mm512_set1_ps(x); }

// e^x for x <= 0, within 3e-6 of it: 2^i 2^f, i whole and |f| <= 1/2, 2^f by Taylor's polynomial. NaN stays NaN.
inline __m512 exp_of_negative(__m512 x) {
  const __m512 y = _mm512_max_ps(all(-150.0f), _mm512_mul_ps(x, all(1.44269504f)));
  const __m512 i = _mm512_roundscale_ps(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(y, i);
  __m512 p = _mm512_fmadd_ps(all(1.33335581e-3f), f, all(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, f, all(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, f, all(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, f, all(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, f, all(1.0f));
  return _mm512_scalef_ps(p, i);
}

// The normal distribution: its bell e^(-x^2 / 2), and its sum up to x within 1e-6 (Abramowitz and Stegun 7.1.26), which
// is far below what rounding to bf16 leaves.
struct Normal {
  __m512 bell, cdf;

  explicit inline __attribute__((always_inline)) Normal(__m512 x)
      : bell(exp_of_negative(_mm512_mul_ps(_mm512_mul_ps(x, x), all(-0.5f)))) {
    const __m512 d = _mm512_fmadd_ps(_mm512_abs_ps(x), all(0.3275911f * 0.70710678f), all(1.0f));
    __m512 t = _mm512_rcp14_ps(d);
    t = _mm512_mul_ps(t, _mm512_fnmadd_ps(d, t, all(2.0f)));  // a step of Newton's
    __m512 p = _mm512_fmadd_ps(all(0.5f * 1.061405429f), t, all(0.5f * -1.453152027f));
    p = _mm512_fmadd_ps(p, t, all(0.5f * 1.421413741f));
    p = _mm512_fmadd_ps(p, t, all(0.5f * -0.284496736f));
    p = _mm512_fmadd_ps(p, t, all(0.5f * 0.254829592f));
    const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(p, t), bell);
    cdf = _mm512_mask_sub_ps(tail, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), all(1.0f), tail);
  }
};

inline __m512 gelu(__m512 x) { return _mm512_mul_ps(x, Normal(x).cdf); }

// A row of 32 bf16 as two vectors.
inline __m512 widened(__m256i x) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16)); }
inline __m512 low(__m512i row) { return widened(_mm512_castsi512_si256(row)); }
inline __m512 high(__m512i row) { return widened(_mm512_extracti64x4_epi64(row, 1)); }

// Products of squares of rows with all panels: to(r, j, values) takes the 32 x 32 of row square r and panel j.
template <class Unit, class To>
inline void for_each_product(const uint16_t* a, int64_t row_squares, int64_t k, const uint16_t* panels,
                             int64_t cols, const To& to) {
  static thread_local Scratch scratch;
  alignas(64) float values[square];
  float* const left = scratch.ensure<float>(left_floats_at_once<Unit>(k / step));
  const Unit unit;
  Product32 products[rows_at_once];
  for (int64_t first = 0; first < row_squares; first += rows_at_once) {
    const int64_t count = std::min(rows_at_once, row_squares - first);
    take_squares<Unit>(a + first * k * step, k * step, count, k / step, left, products);
    for (int64_t j = 0; j < cols / step; ++j)
      for (int64_t q = 0; q < count; ++q) {
        Product32 p = products[q];
        p.panel = panels + j * k * step;
        p.c = values, p.c_stride = step;
        unit.product(p, true);
        to(first + q, j, values);
      }
  }
}

void all_rows_to_squares(const float* x, int64_t rows, int64_t cols, uint16_t* out) {
  for (int64_t r = 0; r < rows; r += step)
    rows_to_squares(x + r * cols, cols, std::min(step, rows - r), cols, out + r * cols);
}

template <class Unit>
void forward(const ForwardBlock& b, void (*multiply)(const SquareProduct&)) {
  static thread_local Scratch scratch;
  const auto& [normed, rows, D, F, before_gelu] = b.of;
  const int64_t padded = rounded(rows, step);
  auto* const a = scratch.ensure<uint16_t>(padded * (D + F));
  uint16_t* const hidden = a + padded * D;
  all_rows_to_squares(normed, rows, D, a);
  for_each_product<Unit>(
      a, padded / step, D, b.fc1, F, [&, F = F, kept = before_gelu](int64_t r, int64_t j, const float* values) {
        const int64_t at = r * F * step + j * square;
        for (int64_t i = 0; i < square; i += step) {
          const __m512 v0 = _mm512_load_ps(values + i), v1 = _mm512_load_ps(values + i + tile);
          _mm512_stream_si512(reinterpret_cast<__m512i*>(kept + at + i), two_to_bf16(v1, v0));
          _mm512_store_si512(hidden + at + i, two_to_bf16(gelu(v1), gelu(v0)));
        }
      });
  _mm_sfence();
  multiply({.a = hidden, .rows = rows, .k = F, .panels = b.fc2, .cols = D, .c = b.y, .start = b.x});
}

// GELU and its derivative on 32 x 32 values: hidden ones, in pairs, and their gradient, in pairs and as rows.
inline void hidden_square(const float* grad, const uint16_t* before_gelu, uint16_t* hidden, uint16_t* pairs,
                          uint16_t* rows) {
  for (int64_t k = 0; k < step; k += 2, hidden += 2 * tile, pairs += 2 * tile) {
    __m512 h[2][2], g[2][2];  // of two rows, two vectors each
    for (int64_t i = 0; i < 2; ++i) {
      const __m512i kept = _mm512_load_si512(before_gelu + (k + i) * step);
      for (int64_t half = 0; half < 2; ++half) {
        const __m512 x = half == 0 ? low(kept) : high(kept);
        const Normal normal(x);
        h[i][half] = _mm512_mul_ps(x, normal.cdf);
        const __m512 slope = _mm512_fmadd_ps(_mm512_mul_ps(x, all(0.39894228f)), normal.bell, normal.cdf);
        g[i][half] = _mm512_mul_ps(slope, _mm512_load_ps(grad + (k + i) * step + half * tile));
      }
      _mm512_store_si512(rows + (k + i) * step, two_to_bf16(g[i][1], g[i][0]));
    }
    for (int64_t half = 0; half < 2; ++half) {
      _mm512_store_si512(hidden + half * square / 2, interleaved(h[0][half], h[1][half]));
      _mm512_store_si512(pairs + half * square / 2, interleaved(g[0][half], g[1][half]));
    }
  }
}

template <class Unit>
void backward(const BackwardBlock& b, void (*multiply)(const SquareProduct&)) {
  static thread_local Scratch scratch;
  const auto& [normed, rows, D, F, before_gelu] = b.of;
  const int64_t padded = rounded(rows, step);
  auto* const a = scratch.ensure<uint16_t>(padded * (D + F));
  uint16_t* const wide = a + padded * D;
  all_rows_to_squares(b.grad, rows, D, a);
  for (int64_t r = 0; r < rows; r += step) {
    columns_to_squares(b.grad + r * D, D, std::min(step, rows - r), b.first_row + r, b.grad_y);
    columns_to_squares(normed + r * D, D, std::min(step, rows - r), b.first_row + r, b.normed);
  }
  for_each_product<Unit>(
      a, padded / step, D, b.fc2, F, [&, F = F, kept = before_gelu](int64_t r, int64_t j, const float* values) {
        const int64_t at = r * F * step + j * square, row = b.first_row + r * step;
        hidden_square(values, kept + at, b.hidden.at(row, j * step), b.grad_hidden.at(row, j * step), wide + at);
      });
  multiply({.a = wide, .rows = rows, .k = F, .panels = b.fc1, .cols = D, .c = b.grad_normed});
}

}  // namespace

const FeedForwardKernels* amx_feed_forward() {
  static constexpr FeedForwardKernels kernels{
      [](const ForwardBlock& block) { forward<Amx<1>>(block, amx_squares()->multiply); },
      [](const BackwardBlock& block) { backward<Amx<1>>(block, amx_squares()->multiply); }};
  return amx_panels(1) ? &kernels : nullptr;
}

template <Avx512Products How>
constexpr FeedForwardKernels avx512_kernels() {
  return {[](const ForwardBlock& block) { forward<Avx512<How>>(block, avx512_bf16_squares(How)->multiply); },
          [](const BackwardBlock& block) { backward<Avx512<How>>(block, avx512_bf16_squares(How)->multiply); }};
}

const FeedForwardKernels* avx512_bf16_feed_forward(Avx512Products how) {
  using enum Avx512Products;
  static constexpr FeedForwardKernels by_dots = avx512_kernels<dots>(), by_widening = avx512_kernels<widened>();
  return !avx512_bf16_panels(how) ? nullptr : how == dots ? &by_dots : &by_widening;
}

}  // namespace rat::kernels::cpu
#pragma GCC pop_options

#else

namespace rat::kernels::cpu {
const FeedForwardKernels* amx_feed_forward() { return nullptr; }
const FeedForwardKernels* avx512_bf16_feed_forward(Avx512Products) { return nullptr; }
}  // namespace rat::kernels::cpu

#endif
