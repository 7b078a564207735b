// Products of 32 x 32 values by AMX tiles or by AVX-512: of these the CPU's bf16 kernels are made.
// For files compiled for x86-64 by GCC, which run them only where the CPU has the instructions.
//
// A square is 32 x 32 bf16 without gaps, in one of two forms: rows, [32][32 of k], of a left operand; or pairs,
// [2 tiles][16 pairs of k][16 columns][2], of a right one.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/matmul/panels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace rat::kernels::cpu::bf16 {

constexpr int64_t tile = 16, step = 32, panel_width = 2 * tile;
constexpr int64_t square = step * panel_width;  // elements: of a panel, 32 of k

inline int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

inline __mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << static_cast<unsigned>(n)) - 1);
}

inline __m512i two_to_bf16(__m512 high, __m512 low) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);  // NOLINT: vectors of one size
}

// What is left of x when its first `parts` parts are taken away.
inline __m512 rest(__m512 x, int parts) {
  for (; parts > 0; --parts) {
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(x);  // NOLINT: vectors of one size
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
  }
  return x;
}

// Dword j: (even[j], odd[j]) as bf16.
inline __m512i interleaved(__m512 even, __m512 odd) {
  alignas(64) static constexpr uint16_t order[32] = {0,  16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8,  24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), two_to_bf16(odd, even));
}

inline void transpose_16x16(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Rows [0, rows) and columns [0, 16) of b, in pairs of rows: out[pair] is one vector. Missing cells are zero.
inline void load_pairs(const float* b, int64_t stride, int64_t rows, __mmask16 cols, int part, __m512i (&out)[16]) {
  for (int64_t p = 0; p < 16; ++p) {
    const __m512 even =
        2 * p < rows ? _mm512_maskz_loadu_ps(cols, b + 2 * p * stride) : _mm512_setzero_ps();
    const __m512 odd =
        2 * p + 1 < rows ? _mm512_maskz_loadu_ps(cols, b + (2 * p + 1) * stride) : _mm512_setzero_ps();
    out[p] = interleaved(rest(even, part), rest(odd, part));
  }
}

// 32 x 32 values of C: a (32 rows of bf16) times one panel. `start` null: zero. The functions that take it are inlined: a
// copy of it in memory would be read by one wide load, which waits until every store of the square before has drained.
#define RAT_INLINE inline __attribute__((always_inline))
struct Product32 {
  const uint16_t* a = nullptr;
  int64_t a_stride = 0;  // from row to row
  int64_t a_step = 0;    // from 32 of k to the next
  int64_t steps = 0;     // of 32 of k
  const uint16_t* panel = nullptr;
  float* c = nullptr;
  int64_t c_stride = 0;
  const float* start = nullptr;
  int64_t start_stride = 0;
  const float* left = nullptr;  // a as Unit::take_left laid it out, for a that meets many panels
};

// Tiles: 0 to 3 are the square's quarters, 4 and 5 two of A, 6 and 7 two of a panel.
template <bool Lower>
RAT_INLINE void load_a(const uint16_t* upper, const uint16_t* lower, std::size_t row_bytes) {
  _tile_loadd(4, upper, row_bytes);
  if constexpr (Lower) _tile_loadd(5, lower, row_bytes);
}

RAT_INLINE void load_b(const uint16_t* b) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + square / 2, 64);
}

template <bool Lower>
RAT_INLINE void multiply_tiles() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (Lower) {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// 32 of k: all products of parts i + j < Parts, the small ones first, in the order that loads fewest tiles.
template <int Parts, bool Lower>
RAT_INLINE void multiply_step(const uint16_t* a, const uint16_t* lower, std::size_t row_bytes, const uint16_t* b) {
  load_a<Lower>(a, lower, row_bytes);
  if constexpr (Parts == 3) {
    load_b(b + 2 * square);
    multiply_tiles<Lower>();
  }
  if constexpr (Parts >= 2) {
    load_b(b + square);
    multiply_tiles<Lower>();
  }
  load_b(b);
  multiply_tiles<Lower>();
  if constexpr (Parts >= 2) {
    load_a<Lower>(a + step, lower + step, row_bytes);
    multiply_tiles<Lower>();
  }
  if constexpr (Parts == 3) {
    load_b(b + square);
    multiply_tiles<Lower>();
    load_a<Lower>(a + 2 * step, lower + 2 * step, row_bytes);
    load_b(b);
    multiply_tiles<Lower>();
  }
}

template <int Parts, bool Lower>
RAT_INLINE void product_amx(const Product32& p) {
  const auto c_bytes = static_cast<std::size_t>(p.c_stride) * 4, a_bytes = static_cast<std::size_t>(p.a_stride) * 2;
  if (p.start) {
    const auto bytes = static_cast<std::size_t>(p.start_stride) * 4;
    _tile_loadd(0, p.start, bytes);
    _tile_loadd(1, p.start + tile, bytes);
    if constexpr (Lower) {
      _tile_loadd(2, p.start + tile * p.start_stride, bytes);
      _tile_loadd(3, p.start + tile * p.start_stride + tile, bytes);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const uint16_t *a = p.a, *lower = p.a + tile * p.a_stride, *b = p.panel;
  for (int64_t s = 0; s < p.steps; ++s, a += p.a_step, lower += p.a_step, b += Parts * square)
    multiply_step<Parts, Lower>(a, lower, a_bytes, b);
  _tile_stored(0, p.c, c_bytes);
  _tile_stored(1, p.c + tile, c_bytes);
  if constexpr (Lower) {
    _tile_stored(2, p.c + tile * p.c_stride, c_bytes);
    _tile_stored(3, p.c + tile * p.c_stride + tile, c_bytes);
  }
}

RAT_INLINE void product_dots(const Product32& p, bool lower_half) {
  for (int64_t r = 0; r < (lower_half ? panel_width : tile); r += 8) {
    __m512 acc[8][2];
    for (int64_t i = 0; i < 8; ++i) {
      const float* start = p.start ? p.start + (r + i) * p.start_stride : nullptr;
      acc[i][0] = start ? _mm512_loadu_ps(start) : _mm512_setzero_ps();
      acc[i][1] = start ? _mm512_loadu_ps(start + tile) : _mm512_setzero_ps();
    }
    for (int64_t s = 0; s < p.steps; ++s)
      for (int64_t pair = 0; pair < tile; ++pair) {
        const uint16_t* b = p.panel + s * square + pair * 2 * tile;
        const auto b0 = (__m512bh)_mm512_load_si512(b);                      // NOLINT: vectors of one size
        const auto b1 = (__m512bh)_mm512_load_si512(b + square / 2);  // NOLINT
        for (int64_t i = 0; i < 8; ++i) {
          int32_t two;
          __builtin_memcpy(&two, p.a + (r + i) * p.a_stride + s * p.a_step + 2 * pair, sizeof(two));
          const auto a = (__m512bh)_mm512_set1_epi32(two);  // NOLINT
          acc[i][0] = _mm512_dpbf16_ps(acc[i][0], a, b0);
          acc[i][1] = _mm512_dpbf16_ps(acc[i][1], a, b1);
        }
      }
    for (int64_t i = 0; i < 8; ++i) {
      _mm512_storeu_ps(p.c + (r + i) * p.c_stride, acc[i][0]);
      _mm512_storeu_ps(p.c + (r + i) * p.c_stride + tile, acc[i][1]);
    }
  }
}

// The 32 rows of a in f32, k after k: out[k][32].
inline void widen_left(const Product32& p, float* out) {
  for (int64_t s = 0; s < p.steps; ++s, out += square)
    for (int64_t r = 0; r < step; r += tile)
      for (int64_t k = 0; k < step; k += tile) {
        __m512i values[16];
        for (int64_t i = 0; i < tile; ++i) {
          const uint16_t* row = p.a + (r + i) * p.a_stride + s * p.a_step + k;
          const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(row));
          values[i] = _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
        }
        transpose_16x16(values);
        for (int64_t i = 0; i < tile; ++i) _mm512_store_si512(out + (k + i) * step + r, values[i]);
      }
}

// `Rows` rows from `first` on: as many at a time as there are registers for.
template <int64_t Rows>
RAT_INLINE void widened_rows(const Product32& p, const float* left, int64_t first) {
  __m512 acc[Rows][2];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Rows; ++i)
    for (int64_t half = 0; half < 2; ++half)
      acc[i][half] = p.start ? _mm512_loadu_ps(p.start + (first + i) * p.start_stride + half * tile)
                             : _mm512_setzero_ps();
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000));
  const float* a = left + first;
  const uint16_t* b = p.panel;
  for (int64_t s = 0; s < p.steps; ++s, b += square / 2)
    for (int64_t pair = 0; pair < tile; ++pair, a += 2 * step, b += 2 * tile) {
      const __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + square / 2);
      _mm_prefetch(reinterpret_cast<const char*>(b + square), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b + square + square / 2), _MM_HINT_T0);
      const __m512 even[2] = {_mm512_castsi512_ps(_mm512_slli_epi32(b0, 16)),
                              _mm512_castsi512_ps(_mm512_slli_epi32(b1, 16))};
      const __m512 odd[2] = {_mm512_castsi512_ps(_mm512_and_si512(b0, upper)),
                             _mm512_castsi512_ps(_mm512_and_si512(b1, upper))};
#pragma GCC unroll 16
      for (int64_t i = 0; i < Rows; ++i) {
        const __m512 x = _mm512_set1_ps(a[i]), y = _mm512_set1_ps(a[step + i]);
        acc[i][0] = _mm512_fmadd_ps(x, even[0], acc[i][0]);
        acc[i][1] = _mm512_fmadd_ps(x, even[1], acc[i][1]);
        acc[i][0] = _mm512_fmadd_ps(y, odd[0], acc[i][0]);
        acc[i][1] = _mm512_fmadd_ps(y, odd[1], acc[i][1]);
      }
    }
#pragma GCC unroll 16
  for (int64_t i = 0; i < Rows; ++i)
    for (int64_t half = 0; half < 2; ++half)
      _mm512_storeu_ps(p.c + (first + i) * p.c_stride + half * tile, acc[i][half]);
}

RAT_INLINE void multiply_widened(const Product32& p, const float* left, bool lower_half) {
  if (lower_half) {
    widened_rows<11>(p, left, 0);
    widened_rows<11>(p, left, 11);
    widened_rows<10>(p, left, 22);
  } else {
    widened_rows<8>(p, left, 0);
    widened_rows<8>(p, left, 8);
  }
}

RAT_INLINE void product_widened(Product32 p, bool lower_half) {
  if (p.left) return multiply_widened(p, p.left, lower_half);
  constexpr int64_t at_once = 8;  // steps whose rows stay in the first-level cache
  alignas(64) float left[at_once * square];
  const int64_t all = p.steps;
  for (int64_t done = 0; done == 0 || done < all; done += at_once) {
    p.steps = std::min(at_once, all - done);
    widen_left(p, left);
    multiply_widened(p, left, lower_half);
    p.a += at_once * p.a_step, p.panel += at_once * square;
    p.start = p.c, p.start_stride = p.c_stride;
  }
}

template <int Parts>
struct Amx {
  static constexpr int parts = Parts;
  Amx() {  // eight tiles of 16 rows of 64 bytes
    alignas(64) static constexpr struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    _tile_loadconfig(&config);
  }
  ~Amx() { _tile_release(); }
  static int64_t left_floats(int64_t) { return 0; }
  static void take_left(Product32&, float*) {}
  static RAT_INLINE void product(const Product32& p, bool lower_half) {
    lower_half ? product_amx<Parts, true>(p) : product_amx<Parts, false>(p);
  }
};

// By dot products of pairs, or by multiply-adds of operands that are widened to f32 in the cache. The products of bf16
// values are exact in f32, so that only the order of sums differs.
template <Avx512Products How>
struct Avx512 {
  static constexpr int parts = 1;
  Avx512() {}
  static int64_t left_floats(int64_t steps) { return How == Avx512Products::widened ? steps * square : 0; }
  static void take_left(Product32& p, float* memory) {
    if constexpr (How == Avx512Products::widened) widen_left(p, memory), p.left = memory;
  }
  static RAT_INLINE void product(const Product32& p, bool lower_half) {
    How == Avx512Products::dots ? product_dots(p, lower_half) : product_widened(p, lower_half);
  }
};

// Squares of rows that meet every panel, one after the other: as many as stay near.
constexpr int64_t rows_at_once = 2;

template <class Unit>
inline int64_t left_floats_at_once(int64_t steps) {
  return rows_at_once * Unit::left_floats(steps);
}

// What products of `count` such squares, `apart` elements from one to the next, have in common. `memory`:
// left_floats_at_once, as long as they are used.
template <class Unit>
inline void take_squares(const uint16_t* a, int64_t apart, int64_t count, int64_t steps, float* memory,
                         Product32 (&products)[rows_at_once]) {
  for (int64_t q = 0; q < count; ++q) {
    products[q] = {.a = a + q * apart, .a_stride = step, .a_step = square, .steps = steps};
    Unit::take_left(products[q], memory + q * Unit::left_floats(steps));
  }
}

// A whole square, written past the caches: a wide C would be read into them first, and its rows often share their sets.
template <class Unit>
RAT_INLINE void product_streamed(Product32 p) {
  alignas(64) float own[square];
  float* c = p.c;
  const int64_t c_stride = p.c_stride;
  p.c = own;
  p.c_stride = panel_width;
  Unit::product(p, true);
  for (const float* from = own; from < own + square; from += panel_width, c += c_stride) {
    _mm512_stream_ps(c, _mm512_load_ps(from));
    _mm512_stream_ps(c + tile, _mm512_load_ps(from + tile));
  }
}

// The part of C that exists: whole squares in place, others by way of a square of scratch.
template <class Unit>
RAT_INLINE void product_part(Product32 p, int64_t rows, int64_t cols, bool stream) {
  if (rows >= panel_width && cols >= panel_width) return stream ? product_streamed<Unit>(p) : Unit::product(p, true);
  const bool lower_half = rows > tile;
  if (cols >= panel_width && rows == tile) return Unit::product(p, false);
  alignas(64) float own[square] = {};
  float* const c = p.c;
  const int64_t c_stride = p.c_stride;
  if (p.start) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(p.start + r * p.start_stride, cols, own + r * panel_width);
    p.start = own;
    p.start_stride = panel_width;
  }
  p.c = own;
  p.c_stride = panel_width;
  Unit::product(p, lower_half);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(own + r * panel_width, cols, c + r * c_stride);
}

#undef RAT_INLINE
}  // namespace rat::kernels::cpu::bf16
#pragma GCC pop_options
