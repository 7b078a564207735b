#include "kernels/matmul/bf16_squares.h"

#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include "kernels/matmul/bf16_tiles.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace rat::kernels::cpu {
namespace {

using namespace bf16;  // NOLINT: what these kernels are made of

// Sixteen columns and 32 of k of op(b), whose values are bf16 already, as a tile of pairs.
void load_rounded(const uint16_t* b, int64_t stride, bool transposed, __m512i (&r)[16]) {
  for (int64_t i = 0; i < tile; ++i) {
    if (transposed) {
      r[i] = _mm512_loadu_si512(b + i * stride);
      continue;
    }
    const auto row = [&](int64_t k) { return reinterpret_cast<const __m256i*>(b + k * stride); };
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(row(2 * i)));
    const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(row(2 * i + 1)));
    r[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
  }
  if (transposed) transpose_16x16(r);
}

void add_square(const float* from, float* to, int64_t stride, bool transposed) {
  __m512i r[16];
  for (int64_t i = 0; i < step; i += tile)
    for (int64_t j = 0; j < step; j += tile) {
      for (int64_t t = 0; t < tile; ++t) r[t] = _mm512_load_si512(from + (i + t) * step + j);
      if (transposed) transpose_16x16(r);
      float* c = transposed ? to + j * stride + i : to + i * stride + j;
      for (int64_t t = 0; t < tile; ++t, c += stride)
        _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), _mm512_castsi512_ps(r[t])));
    }
}

// Sums stay in the second-level cache, as squares, while all rows go by.
template <class Unit>
void weight_gradient(const WeightGradient& g) {
  static thread_local Scratch scratch;
  constexpr int64_t deep = RowSquares::together * step;
  auto* const sums = scratch.ensure<float>(g.m * g.n + left_floats_at_once<Unit>(RowSquares::together));
  const Unit unit;
  Product32 products[rows_at_once];
  for (int64_t row = 0; row < g.rows; row += deep) {
    const int64_t steps = rounded(std::min(deep, g.rows - row), step) / step;
    for (int64_t first = 0; first < g.m; first += rows_at_once * step) {
      const int64_t count = std::min(rows_at_once, (g.m - first) / step);
      take_squares<Unit>(g.a.at(row, g.first_m + first), RowSquares::together * square, count, steps, sums + g.m * g.n,
                         products);
      for (int64_t j = 0; j < g.n; j += step)
        for (int64_t q = 0; q < count; ++q) {
          Product32 p = products[q];
          p.panel = g.b.at(row, g.first_n + j);
          p.c = sums + j * g.m + (first + q * step) * step;
          p.start = row > 0 ? p.c : nullptr;
          p.c_stride = p.start_stride = step;
          unit.product(p, true);
        }
    }
  }
  const float* sum = sums;
  for (int64_t j = g.first_n; j < g.first_n + g.n; j += step)
    for (int64_t i = g.first_m; i < g.first_m + g.m; i += step, sum += square)
      add_square(sum, g.transposed ? g.c + j * g.a.cols + i : g.c + i * g.b.cols + j,
                 g.transposed ? g.a.cols : g.b.cols, g.transposed);
}

// Sixteen pairs of rows of two tiles: the 32 columns of an even and an odd row, interleaved.
inline void store_pairs(__m512i even, __m512i odd, uint16_t* out) {
  alignas(64) static constexpr uint16_t order[2][32] = {
      {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
       8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
      {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
  _mm512_store_si512(out, _mm512_permutex2var_epi16(even, _mm512_load_si512(order[0]), odd));
  _mm512_store_si512(out + square / 2, _mm512_permutex2var_epi16(even, _mm512_load_si512(order[1]), odd));
}

inline __m512i rounded_row(const float* x, bool exists) {
  return exists ? two_to_bf16(_mm512_loadu_ps(x + tile), _mm512_loadu_ps(x)) : _mm512_setzero_si512();
}

// 256 of k at a time, so that rows_at_once squares of rows stay near while panels go by.
template <class Unit>
void multiply_squares(const SquareProduct& p) {
  static thread_local Scratch scratch;
  constexpr int64_t k_at_once = 8 * step;
  float* const left = scratch.ensure<float>(left_floats_at_once<Unit>(k_at_once / step));
  const Unit unit;
  Product32 products[rows_at_once];
  for (int64_t first = 0; first < p.rows; first += rows_at_once * step)
    for (int64_t k = 0; k < p.k; k += k_at_once) {
      const int64_t count = std::min(rows_at_once, (p.rows - first + step - 1) / step);
      take_squares<Unit>(p.a + first * p.k + k * step, step * p.k, count, std::min(k_at_once, p.k - k) / step, left,
                         products);
      for (int64_t j = 0; j < p.cols; j += step)
        for (int64_t q = 0; q < count; ++q) {
          const int64_t r = first + q * step;
          Product32 one = products[q];
          one.panel = p.panels + j * p.k + k * step;
          one.c = p.c + r * p.cols + j;
          one.start = k > 0 ? one.c : p.start ? p.start + r * p.cols + j : nullptr;
          one.c_stride = one.start_stride = p.cols;
          product_part<Unit>(one, std::min(step, p.rows - r), step, false);
        }
    }
}

}  // namespace

void rows_to_squares(const float* x, int64_t stride, int64_t rows, int64_t cols, uint16_t* out) {
  for (int64_t i = 0; i < cols; i += step)
    for (int64_t r = 0; r < step; ++r, out += step) _mm512_store_si512(out, rounded_row(x + r * stride + i, r < rows));
}

void rows_to_squares_and_pairs(const float* x, int64_t stride, int64_t rows, int64_t row, const RowSquares& pairs,
                               uint16_t* out) {
  for (int64_t i = 0; i < pairs.cols; i += step) {
    uint16_t* to = pairs.at(row, i);
    for (int64_t r = 0; r < step; r += 2, out += 2 * step, to += 2 * tile) {
      const __m512i even = rounded_row(x + r * stride + i, r < rows);
      const __m512i odd = rounded_row(x + (r + 1) * stride + i, r + 1 < rows);
      _mm512_store_si512(out, even);
      _mm512_store_si512(out + step, odd);
      store_pairs(even, odd, to);
    }
  }
}

void columns_to_squares(const float* x, int64_t stride, int64_t rows, int64_t row, const RowSquares& to) {
  __m512i r[16];
  for (int64_t j = 0; j < to.cols; j += tile) {
    load_pairs(x + j, stride, rows, first_lanes(tile), 0, r);
    transpose_16x16(r);
    uint16_t* out = to.at(row, j) + j % step * step;
    for (int64_t c = 0; c < tile; ++c, out += step) _mm512_store_si512(out, r[c]);
  }
}

void pack_rounded(const uint16_t* b, int64_t stride, bool transposed, int64_t k, uint16_t* out) {
  __m512i r[16];
  for (int64_t i = 0; i < k; i += step)
    for (int64_t j = 0; j < panel_width; j += tile) {
      load_rounded(transposed ? b + j * stride + i : b + i * stride + j, stride, transposed, r);
      for (int64_t p = 0; p < tile; ++p, out += 2 * tile) _mm512_store_si512(out, r[p]);
    }
}

const SquareKernels* amx_squares() {
  static constexpr SquareKernels kernels{multiply_squares<Amx<1>>, weight_gradient<Amx<1>>};
  return amx_panels(1) ? &kernels : nullptr;
}

const SquareKernels* avx512_bf16_squares(Avx512Products how) {
  using enum Avx512Products;
  static constexpr SquareKernels by_dots{multiply_squares<Avx512<dots>>, weight_gradient<Avx512<dots>>},
      by_widening{multiply_squares<Avx512<widened>>, weight_gradient<Avx512<widened>>};
  return !avx512_bf16_panels(how) ? nullptr : how == dots ? &by_dots : &by_widening;
}

}  // namespace rat::kernels::cpu
#pragma GCC pop_options

#else

namespace rat::kernels::cpu {
const SquareKernels* amx_squares() { return nullptr; }
const SquareKernels* avx512_bf16_squares(Avx512Products) { return nullptr; }
void rows_to_squares(const float*, int64_t, int64_t, int64_t, uint16_t*) {}
void rows_to_squares_and_pairs(const float*, int64_t, int64_t, int64_t, const RowSquares&, uint16_t*) {}
void columns_to_squares(const float*, int64_t, int64_t, int64_t, const RowSquares&) {}
void pack_rounded(const uint16_t*, int64_t, bool, int64_t, uint16_t*) {}
}  // namespace rat::kernels::cpu

#endif
