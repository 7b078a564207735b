#include "kernels/matmul/bf16_squares.h"

#include "kernels/base/scratch.h"

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
  auto* const sums = scratch.ensure<float>(g.m * g.n);
  constexpr int64_t deep = RowSquares::together * step;
  const Unit unit;
  for (int64_t row = 0; row < g.rows; row += deep) {
    const int64_t steps = rounded(std::min(deep, g.rows - row), step) / step;
    float* c = sums;
    for (int64_t j = 0; j < g.n; j += step)
      for (int64_t i = 0; i < g.m; i += step, c += square)
        unit.product({g.a.at(row, g.first_m + i), step, square, steps, g.b.at(row, g.first_n + j), c, step,
                      row > 0 ? c : nullptr, step},
                     true);
  }
  const float* sum = sums;
  for (int64_t j = g.first_n; j < g.first_n + g.n; j += step)
    for (int64_t i = g.first_m; i < g.first_m + g.m; i += step, sum += square)
      add_square(sum, g.c + (g.transposed ? j * g.c_stride + i : i * g.c_stride + j), g.c_stride, g.transposed);
}

}  // namespace

void rows_to_squares(const float* x, int64_t stride, int64_t rows, int64_t cols, uint16_t* out) {
  for (int64_t i = 0; i < cols; i += step)
    for (int64_t r = 0; r < step; ++r, out += step) {
      const float* from = x + r * stride + i;
      const __m512i both = r < rows ? two_to_bf16(_mm512_loadu_ps(from + tile), _mm512_loadu_ps(from)) : _mm512_setzero_si512();
      _mm512_store_si512(out, both);
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

void weight_gradient_amx(const WeightGradient& gradient) { weight_gradient<Amx<1>>(gradient); }
void weight_gradient_avx512(const WeightGradient& gradient) { weight_gradient<Avx512>(gradient); }

}  // namespace rat::kernels::cpu
#pragma GCC pop_options

#endif
