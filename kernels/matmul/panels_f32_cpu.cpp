#include <algorithm>

#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/panels_f32_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

// A panel is [k][2 vectors]. A block of 256 of its rows fits the first-level cache and is used for all rows of a block.
HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// Registers decide how many rows of C are held at a time: 32 with AVX-512, 16 before.
#if HWY_TARGET <= HWY_AVX3
constexpr int64_t kRows = 8;
#else
constexpr int64_t kRows = 4;
#endif
constexpr int64_t kDepth = 256;     // of K at a time
constexpr int64_t kOuterRows = 8;   // of A^T per packed panel

int64_t PanelCols() { return 2 * static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>())); }

// acc[R][2] += a[r, 0..k) times panel (k, 2 vectors); element (r, i) of a is a[r * row_step + i * k_step].
template <int64_t R, class D, class V>
HWY_INLINE void MultiplyAdd(D d, const float* HWY_RESTRICT a, int64_t row_step, int64_t k_step, int64_t k,
                            const float* HWY_RESTRICT panel, V (&acc)[R][2]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < k; ++i) {
    const auto b0 = hn::Load(d, panel), b1 = hn::Load(d, panel + lanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; ++r) {
      const auto x = hn::Set(d, a[r * row_step]);
      acc[r][0] = hn::MulAdd(x, b0, acc[r][0]);
      acc[r][1] = hn::MulAdd(x, b1, acc[r][1]);
    }
    a += k_step;
    panel += 2 * lanes;
  }
}

struct Micro {
  const float* a;
  int64_t row_step, k_step, k;
  const float* panel;
  float* c;
  int64_t c_stride, cols;
  const float* start;
  int64_t start_stride;
};

template <int64_t R>
HWY_INLINE void MultiplyRows(const Micro& m) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  V acc[R][2];
  const bool whole = m.cols == 2 * lanes;
  HWY_ALIGN float edge[2 * HWY_MAX_BYTES / sizeof(float)] = {};
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r) acc[r][0] = acc[r][1] = hn::Zero(d);
  if (m.k_step == 1)
    MultiplyAdd<R>(d, m.a, m.row_step, 1, m.k, m.panel, acc);
  else
    MultiplyAdd<R>(d, m.a, 1, kOuterRows, m.k, m.panel, acc);
  // Added last: what was summed before and this block's sum are rounded apart, which keeps long sums accurate.
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r) {
    const float* from = m.start ? m.start + r * m.start_stride : nullptr;
    if (from && !whole) {
      std::copy_n(from, m.cols, edge);
      from = edge;
    }
    if (from) {
      acc[r][0] = hn::Add(acc[r][0], hn::LoadU(d, from));
      acc[r][1] = hn::Add(acc[r][1], hn::LoadU(d, from + lanes));
    }
    float* to = whole ? m.c + r * m.c_stride : edge;
    hn::StoreU(acc[r][0], d, to);
    hn::StoreU(acc[r][1], d, to + lanes);
    if (!whole) std::copy_n(edge, m.cols, m.c + r * m.c_stride);
  }
}

// All rows of a block against one panel.
HWY_NOINLINE void MultiplyPanel(Micro m, int64_t rows) {
  const auto advance = [&](int64_t r) {
    m.a += r * m.row_step;
    m.c += r * m.c_stride;
    if (m.start) m.start += r * m.start_stride;
    rows -= r;
  };
  for (; rows >= kRows; advance(kRows)) MultiplyRows<kRows>(m);
  if (rows >= 4) MultiplyRows<4>(m), advance(4);
  for (; rows > 0; advance(1)) MultiplyRows<1>(m);
}

void PackPanel(const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, float* HWY_RESTRICT panel) {
  const int64_t width = PanelCols();
  if (!transposed) {
    for (int64_t i = 0; i < k; ++i) {
      std::copy_n(b + i * stride, cols, panel + i * width);
      std::fill(panel + i * width + cols, panel + (i + 1) * width, 0.0f);
    }
    return;
  }
  constexpr int64_t step = 16;  // of k: one cache line of every row
  for (int64_t i = 0; i < k; i += step) {
    const int64_t count = std::min(step, k - i);
    for (int64_t j = 0; j < width; ++j)
      for (int64_t l = 0; l < count; ++l)
        panel[(i + l) * width + j] = j < cols ? b[j * stride + i + l] : 0.0f;
  }
}

void MultiplyBlock(const cpu::PanelBlock& block) {
  static thread_local Scratch scratch;
  const int64_t width = PanelCols();
  constexpr int64_t stride = kDepth + 16;  // rows of A must not share cache sets
  float* const a = scratch.ensure<float>(block.rows * stride);
  const auto* const panels = static_cast<const float*>(block.panels);
  for (int64_t i = 0; i < block.k; i += kDepth) {
    const int64_t depth = std::min(kDepth, block.k - i);
    for (int64_t r = 0; r < block.rows; ++r) std::copy_n(block.a + r * block.a_stride + i, depth, a + r * stride);
    for (int64_t j = 0; j < block.cols; j += width) {
      const float* start = i > 0 ? block.c + j : block.start ? block.start + j : nullptr;
      MultiplyPanel({a, stride, 1, depth, panels + j * block.k + i * width, block.c + j, block.c_stride,
                     std::min(width, block.cols - j), start, i > 0 ? block.c_stride : block.start_stride},
                    block.rows);
    }
  }
}

void OuterProduct(const cpu::OuterBlock& block) {
  static thread_local Scratch scratch;
  const int64_t width = PanelCols(), m8 = (block.m + kOuterRows - 1) / kOuterRows * kOuterRows;
  const int64_t n_wide = (block.n + width - 1) / width * width;
  float* const a = scratch.ensure<float>(kDepth * (m8 + n_wide));
  float* const b = a + kDepth * m8;
  for (int64_t i = 0; i < block.k; i += kDepth) {
    const int64_t depth = std::min(kDepth, block.k - i);
    for (int64_t t = 0; t < depth; ++t) {  // a: [m / 8][depth][8]
      const float* row = block.a + (i + t) * block.a_stride;
      for (int64_t r = 0; r + kOuterRows <= block.m; r += kOuterRows)
        std::copy_n(row + r, kOuterRows, a + r * depth + t * kOuterRows);
      const int64_t last = block.m / kOuterRows * kOuterRows;
      if (last < block.m) std::copy_n(row + last, block.m - last, a + last * depth + t * kOuterRows);
    }
    for (int64_t j = 0; j < block.n; j += width)
      PackPanel(block.b + i * block.b_stride + j, block.b_stride, false, depth, std::min(width, block.n - j),
                b + j * depth);
    const bool add = block.add || i > 0;
    for (int64_t j = 0; j < block.n; j += width)
      for (int64_t r = 0; r < block.m; r += kOuterRows) {
        float* c = block.c + r * block.c_stride + j;
        MultiplyPanel({a + r * depth, 1, kOuterRows, depth, b + j * depth, c, block.c_stride,
                       std::min(width, block.n - j), add ? c : nullptr, block.c_stride},
                      std::min(kOuterRows, block.m - r));
      }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(PanelCols);
HWY_EXPORT(PackPanel);
HWY_EXPORT(MultiplyBlock);
HWY_EXPORT(OuterProduct);

namespace cpu {

const PanelKernels& f32_panels() {
  static const PanelKernels kernels{
      .panel_cols = [] { return HWY_DYNAMIC_DISPATCH(PanelCols)(); },
      .panel_bytes =
          [](int64_t k) { return HWY_DYNAMIC_DISPATCH(PanelCols)() * k * static_cast<int64_t>(sizeof(float)); },
      .pack =
          [](const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, void* panel) {
            HWY_DYNAMIC_DISPATCH(PackPanel)(b, stride, transposed, k, cols, static_cast<float*>(panel));
          },
      .multiply = [](const PanelBlock& block) { HWY_DYNAMIC_DISPATCH(MultiplyBlock)(block); },
      .outer = [](const OuterBlock& block) { HWY_DYNAMIC_DISPATCH(OuterProduct)(block); },
      .outer_cells = int64_t{1} << 16,
      .outer_parts = 1};
  return kernels;
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
