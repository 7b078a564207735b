// Products of bf16 operands with f32 sums, by AMX tiles or by AVX-512, on the same packed data:
// a panel is 32 columns as [k / 32][parts][2 tiles][16 pairs of k][16 columns][2], and A is converted to rows of bf16 as
// [k / 32][parts][32].
// In parts, x is x0 + x1 (16 significant bits) or x0 + x1 + x2 (24, all that f32 has), each rounded to bf16, and a b is the
// sum of the products ai bj with i + j < parts: one, three or six. What is left out is below 2^-16 or 2^-24 of |a| |b|.
#include <algorithm>
#include <cstdint>

#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/matmul/bf16_tiles.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")

namespace rat::kernels::cpu {
namespace {

using namespace bf16;  // NOLINT: what these kernels are made of

constexpr int64_t block_rows = 128;
constexpr int64_t outer_depth = 256;  // of K at a time in weight gradients
constexpr int64_t outer_cells = int64_t{1} << 18, outer_parts = 2;

int64_t panel_cols() { return panel_width; }
template <int Parts>
int64_t panel_bytes(int64_t k) {
  return rounded(k, step) / step * square * 2 * Parts;
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
      product_part<Unit>({a + r * stride, stride, Unit::parts * step, depth / step / Unit::parts, panel,
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
        unit.product({a_columns + r * stride, stride, Unit::parts * step, whole / step / Unit::parts,
                      panels + j * whole, c, n_wide, i > 0 ? c : nullptr, n_wide},
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
  return {panel_cols,     panel_bytes<Unit::parts>, pack_panel<Unit::parts>, multiply<Unit>, outer<Unit>, block_rows,
          outer_cells,    outer_parts};
}

// Linux gives a process the tile registers when it asks.
bool amx_usable() {
  constexpr long request_permission = 0x1023, tile_data = 18;
  return __builtin_cpu_supports("avx512bf16") && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

Avx512Products avx512_products() {
  static const bool intel = __builtin_cpu_is("intel");
  return intel ? Avx512Products::widened : Avx512Products::dots;
}

const PanelKernels* avx512_bf16_panels(Avx512Products how) {
  using enum Avx512Products;
  static constexpr PanelKernels by_dots = kernels_of<Avx512<dots>>(), by_widening = kernels_of<Avx512<widened>>();
  static const bool usable = __builtin_cpu_supports("avx512bf16");
  return !usable ? nullptr : how == dots ? &by_dots : &by_widening;
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
Avx512Products avx512_products() { return Avx512Products::dots; }
const PanelKernels* avx512_bf16_panels(Avx512Products) { return nullptr; }
const PanelKernels* amx_panels(int) { return nullptr; }
}  // namespace rat::kernels::cpu

#endif
