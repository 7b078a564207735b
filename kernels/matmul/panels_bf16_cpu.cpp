// Products of bf16 operands with f32 sums, by AMX tiles or by AVX-512 bf16 dot products, on the same packed data:
// a panel is 32 columns as [k / 32][parts][2 tiles][16 pairs of k][16 columns][2], and A is converted to rows of bf16 as
// [k / 32][parts][32].
// In parts, x is x0 + x1 (16 significant bits) or x0 + x1 + x2 (24, all that f32 has), each rounded to bf16, and a b is the
// sum of the products ai bj with i + j < parts: one, three or six. What is left out is below 2^-16 or 2^-24 of |a| |b|.
#include <algorithm>
#include <cstdint>

#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace rat::kernels::cpu {
namespace {

constexpr int64_t tile = 16, step = 32, panel_width = 2 * tile;
constexpr int64_t step_elements = step * panel_width;  // of a panel
constexpr int64_t outer_depth = 256;                   // of K at a time in weight gradients
constexpr int64_t outer_cells = int64_t{1} << 18, outer_parts = 2;

int64_t rounded(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

__mmask16 first_lanes(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << static_cast<unsigned>(n)) - 1);
}

__m512i two_to_bf16(__m512 high, __m512 low) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);  // NOLINT: vectors of one size
}

// What is left of x when its first `parts` parts are taken away.
__m512 rest(__m512 x, int parts) {
  for (; parts > 0; --parts) {
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(x);  // NOLINT: vectors of one size
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16)));
  }
  return x;
}

// Dword j: (even[j], odd[j]) as bf16.
__m512i interleaved(__m512 even, __m512 odd) {
  alignas(64) static constexpr uint16_t order[32] = {0,  16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8,  24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(order), two_to_bf16(odd, even));
}

void transpose_16x16(__m512i (&r)[16]) {
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
void load_pairs(const float* b, int64_t stride, int64_t rows, __mmask16 cols, int part, __m512i (&out)[16]) {
  for (int64_t p = 0; p < 16; ++p) {
    const __m512 even =
        2 * p < rows ? _mm512_maskz_loadu_ps(cols, b + 2 * p * stride) : _mm512_setzero_ps();
    const __m512 odd =
        2 * p + 1 < rows ? _mm512_maskz_loadu_ps(cols, b + (2 * p + 1) * stride) : _mm512_setzero_ps();
    out[p] = interleaved(rest(even, part), rest(odd, part));
  }
}

int64_t panel_cols() { return panel_width; }
template <int Parts>
int64_t panel_bytes(int64_t k) {
  return rounded(k, step) / step * step_elements * 2 * Parts;
}

// Sixteen columns and 32 of k, as one tile. `transposed`: b is (cols, k), rows of b are columns here.
void load_tile(const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, int part, __m512i (&r)[16]) {
  if (!transposed) return load_pairs(b, stride, k, first_lanes(cols), part, r);
  const __mmask16 first = first_lanes(k), second = first_lanes(k - 16);
  for (int64_t c = 0; c < tile; ++c) {
    const float* row = b + c * stride;
    r[c] = c < cols ? two_to_bf16(rest(_mm512_maskz_loadu_ps(second, row + 16), part),
                                  rest(_mm512_maskz_loadu_ps(first, row), part))
                    : _mm512_setzero_si512();
  }
  transpose_16x16(r);
}

template <int Parts>
void pack_panel(const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, void* panel) {
  auto* out = static_cast<uint16_t*>(panel);
  __m512i r[16];
  for (int64_t i = 0; i < k; i += step)
    for (int part = 0; part < Parts; ++part)
      for (int64_t j = 0; j < panel_width; j += tile) {
        const float* from = transposed ? b + j * stride + i : b + i * stride + j;
        load_tile(from, stride, transposed, k - i, cols - j, part, r);
        for (int64_t p = 0; p < tile; ++p, out += 2 * tile) _mm512_store_si512(out, r[p]);
      }
}

// Rows of bf16, `depth` columns padded with zeros to whole steps.
template <int Parts>
void to_bf16_rows(const float* x, int64_t stride, int64_t rows, int64_t depth, uint16_t* out, int64_t out_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < depth; i += step) {
      const float* from = x + r * stride + i;
      const __m512 first = _mm512_maskz_loadu_ps(first_lanes(depth - i), from);
      const __m512 second = _mm512_maskz_loadu_ps(first_lanes(depth - i - 16), from + 16);
      for (int part = 0; part < Parts; ++part)
        _mm512_storeu_si512(out + r * out_stride + i * Parts + part * step,
                            two_to_bf16(rest(second, part), rest(first, part)));
    }
}

// out (cols, depth) = transpose of x (depth, cols); columns padded to 32, depth to whole steps.
template <int Parts>
void to_bf16_columns(const float* x, int64_t stride, int64_t depth, int64_t cols, uint16_t* out, int64_t out_stride) {
  __m512i r[16];
  for (int64_t i = 0; i < depth; i += step)
    for (int64_t j = 0; j < rounded(cols, panel_width); j += tile)
      for (int part = 0; part < Parts; ++part) {
        load_pairs(x + i * stride + j, stride, depth - i, first_lanes(cols - j), part, r);
        transpose_16x16(r);
        for (int64_t c = 0; c < tile; ++c)
          _mm512_storeu_si512(out + (j + c) * out_stride + i * Parts + part * step, r[c]);
      }
}

// 32 x 32 values of C: a (32 rows of bf16) times one panel. `start` null: zero. The functions that take it are inlined: a
// copy of it in memory would be read by one wide load, which waits until every store of the square before has drained.
#define RAT_INLINE inline __attribute__((always_inline))
struct Product32 {
  const uint16_t* a;
  int64_t a_stride;
  int64_t steps;  // of 32 of k
  const uint16_t* panel;
  float* c;
  int64_t c_stride;
  const float* start;
  int64_t start_stride;
};

// Tiles: 0 to 3 are the square's quarters, 4 and 5 two of A, 6 and 7 two of a panel.
template <bool Lower>
RAT_INLINE void load_a(const uint16_t* upper, const uint16_t* lower, std::size_t row_bytes) {
  _tile_loadd(4, upper, row_bytes);
  if constexpr (Lower) _tile_loadd(5, lower, row_bytes);
}

RAT_INLINE void load_b(const uint16_t* b) {
  _tile_loadd(6, b, 64);
  _tile_loadd(7, b + step_elements / 2, 64);
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
    load_b(b + 2 * step_elements);
    multiply_tiles<Lower>();
  }
  if constexpr (Parts >= 2) {
    load_b(b + step_elements);
    multiply_tiles<Lower>();
  }
  load_b(b);
  multiply_tiles<Lower>();
  if constexpr (Parts >= 2) {
    load_a<Lower>(a + step, lower + step, row_bytes);
    multiply_tiles<Lower>();
  }
  if constexpr (Parts == 3) {
    load_b(b + step_elements);
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
  for (int64_t s = 0; s < p.steps; ++s, a += Parts * step, lower += Parts * step, b += Parts * step_elements)
    multiply_step<Parts, Lower>(a, lower, a_bytes, b);
  _tile_stored(0, p.c, c_bytes);
  _tile_stored(1, p.c + tile, c_bytes);
  if constexpr (Lower) {
    _tile_stored(2, p.c + tile * p.c_stride, c_bytes);
    _tile_stored(3, p.c + tile * p.c_stride + tile, c_bytes);
  }
}

RAT_INLINE void product_avx512(const Product32& p, bool lower_half) {
  for (int64_t r = 0; r < (lower_half ? panel_width : tile); r += 8) {
    __m512 acc[8][2];
    for (int64_t i = 0; i < 8; ++i) {
      const float* start = p.start ? p.start + (r + i) * p.start_stride : nullptr;
      acc[i][0] = start ? _mm512_loadu_ps(start) : _mm512_setzero_ps();
      acc[i][1] = start ? _mm512_loadu_ps(start + tile) : _mm512_setzero_ps();
    }
    for (int64_t s = 0; s < p.steps; ++s)
      for (int64_t pair = 0; pair < tile; ++pair) {
        const uint16_t* b = p.panel + s * step_elements + pair * 2 * tile;
        const auto b0 = (__m512bh)_mm512_load_si512(b);                      // NOLINT: vectors of one size
        const auto b1 = (__m512bh)_mm512_load_si512(b + step_elements / 2);  // NOLINT
        for (int64_t i = 0; i < 8; ++i) {
          int32_t two;
          __builtin_memcpy(&two, p.a + (r + i) * p.a_stride + s * step + 2 * pair, sizeof(two));
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
  static RAT_INLINE void product(const Product32& p, bool lower_half) {
    lower_half ? product_amx<Parts, true>(p) : product_amx<Parts, false>(p);
  }
};

struct Avx512 {
  static constexpr int parts = 1;
  Avx512() {}
  static RAT_INLINE void product(const Product32& p, bool lower_half) { product_avx512(p, lower_half); }
};

// A whole square, written past the caches: a wide C would be read into them first, and its rows often share their sets.
template <class Unit>
RAT_INLINE void product_streamed(Product32 p) {
  alignas(64) float square[panel_width * panel_width];
  float* c = p.c;
  const int64_t c_stride = p.c_stride;
  p.c = square;
  p.c_stride = panel_width;
  Unit::product(p, true);
  for (const float* from = square; from < square + panel_width * panel_width; from += panel_width, c += c_stride) {
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
  alignas(64) float square[panel_width * panel_width] = {};
  float* const c = p.c;
  const int64_t c_stride = p.c_stride;
  if (p.start) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(p.start + r * p.start_stride, cols, square + r * panel_width);
    p.start = square;
    p.start_stride = panel_width;
  }
  p.c = square;
  p.c_stride = panel_width;
  Unit::product(p, lower_half);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(square + r * panel_width, cols, c + r * c_stride);
}

// Such stores need whole, aligned cache lines, and a sum must not start from memory.
bool can_stream(const PanelBlock& block) {
  return block.start == nullptr && block.c_stride % tile == 0 && reinterpret_cast<uintptr_t>(block.c) % 64 == 0;
}

template <class Unit>
void multiply(const PanelBlock& block) {
  static thread_local Scratch scratch;
  const int64_t depth = rounded(block.k, step) * Unit::parts, stride = depth + step;  // rows must not share cache sets
  auto* const a = scratch.ensure<uint16_t>(rounded(block.rows, panel_width) * stride);
  to_bf16_rows<Unit::parts>(block.a, block.a_stride, block.rows, block.k, a, stride);
  const Unit unit;
  const bool stream = block.stream && can_stream(block);
  for (int64_t j = 0; j < block.cols; j += panel_width) {
    const auto* panel = static_cast<const uint16_t*>(block.panels) + j * depth;
    for (int64_t r = 0; r < block.rows; r += panel_width)
      product_part<Unit>({a + r * stride, stride, depth / step / Unit::parts, panel,
                          block.c + r * block.c_stride + j, block.c_stride,
                          block.start ? block.start + r * block.start_stride + j : nullptr, block.start_stride},
                         std::min(panel_width, block.rows - r), std::min(panel_width, block.cols - j), stream);
  }
  if (stream) _mm_sfence();
}

// sums (m, n) = a^T b over all of k; both padded to 32.
template <class Unit>
void outer_sums(const float* a, int64_t a_stride, int64_t m, const float* b, int64_t b_stride, int64_t n, int64_t k,
                float* sums, uint16_t* a_columns, uint16_t* panels) {
  constexpr int64_t stride = outer_depth + step;  // rows must not share cache sets
  const int64_t n_wide = rounded(n, panel_width);
  const Unit unit;
  constexpr int64_t at_once = outer_depth / Unit::parts / step * step;
  for (int64_t i = 0; i < k; i += at_once) {
    const int64_t depth = std::min(at_once, k - i), whole = rounded(depth, step) * Unit::parts;
    to_bf16_columns<Unit::parts>(a + i * a_stride, a_stride, depth, m, a_columns, stride);
    for (int64_t s = 0; s < depth; s += step)  // in the order of memory
      for (int64_t j = 0; j < n; j += panel_width)
        pack_panel<Unit::parts>(b + (i + s) * b_stride + j, b_stride, false, std::min(step, depth - s),
                          std::min(panel_width, n - j), panels + j * whole + s * panel_width * Unit::parts);
    for (int64_t j = 0; j < n; j += panel_width)
      for (int64_t r = 0; r < m; r += panel_width) {
        float* c = sums + r * n_wide + j;
        unit.product({a_columns + r * stride, stride, whole / step / Unit::parts, panels + j * whole, c, n_wide, i > 0 ? c : nullptr,
                      n_wide},
                     true);
      }
  }
}

template <class Unit>
void outer(const OuterBlock& block) {
  static thread_local Scratch scratch;
  const bool swap = block.m > block.n;  // the operand that is transposed should be the narrower one
  const int64_t m = swap ? block.n : block.m, n = swap ? block.m : block.n;
  const int64_t m_wide = rounded(m, panel_width), n_wide = rounded(n, panel_width);
  const int64_t columns = m_wide * (outer_depth + step), panels = n_wide * outer_depth;
  float* const sums = scratch.ensure<float>(m_wide * n_wide + (columns + panels) / 2);
  auto* const a_columns = reinterpret_cast<uint16_t*>(sums + m_wide * n_wide);
  if (swap)
    outer_sums<Unit>(block.b, block.b_stride, m, block.a, block.a_stride, n, block.k, sums, a_columns,
                     a_columns + columns);
  else
    outer_sums<Unit>(block.a, block.a_stride, m, block.b, block.b_stride, n, block.k, sums, a_columns,
                     a_columns + columns);
  const int64_t i_step = swap ? 1 : n_wide, j_step = swap ? n_wide : 1;
  for (int64_t i0 = 0; i0 < block.m; i0 += tile)  // squares, so that either order reads whole cache lines
    for (int64_t j0 = 0; j0 < block.n; j0 += tile)
      for (int64_t i = i0; i < std::min(i0 + tile, block.m); ++i) {
        float* c = block.c + i * block.c_stride;
        for (int64_t j = j0; j < std::min(j0 + tile, block.n); ++j)
          c[j] = (block.add ? c[j] : 0.0f) + sums[i * i_step + j * j_step];
      }
}

template <class Unit>
constexpr PanelKernels kernels_of() {
  return {panel_cols,     panel_bytes<Unit::parts>, pack_panel<Unit::parts>, multiply<Unit>, outer<Unit>, outer_cells,
          outer_parts};
}

// Linux gives a process the tile registers when it asks.
bool amx_usable() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return __builtin_cpu_supports("avx512bf16") && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

const PanelKernels* avx512_bf16_panels() {
  static constexpr PanelKernels kernels = kernels_of<Avx512>();
  static const bool usable = __builtin_cpu_supports("avx512bf16");
  return usable ? &kernels : nullptr;
}

const PanelKernels* amx_panels(int parts) {
  static constexpr PanelKernels kernels[] = {kernels_of<Amx<1>>(), kernels_of<Amx<2>>(), kernels_of<Amx<3>>()};
  static const bool usable = amx_usable();
  return usable ? &kernels[parts - 1] : nullptr;
}

}  // namespace rat::kernels::cpu
#pragma GCC pop_options

#else

namespace rat::kernels::cpu {
const PanelKernels* avx512_bf16_panels() { return nullptr; }
const PanelKernels* amx_panels(int) { return nullptr; }
}  // namespace rat::kernels::cpu

#endif
