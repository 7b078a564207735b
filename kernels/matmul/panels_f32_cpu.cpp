#include <hwy/cache_control.h>

#include <algorithm>

#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/matmul/panels_f32_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_loop.h"

// A panel is [k][up to kVectors vectors]: the last one of a matrix has as many as it needs. All rows of a block go by
// it, kDepth of its rows at a time, which come from the second-level cache ahead of their use.
HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

// Registers decide how much of C is held at a time: there are 32 with AVX-512, 16 before.
#if HWY_TARGET <= HWY_AVX3
constexpr int64_t kRows = 8, kVectors = 3;
#else
constexpr int64_t kRows = 4, kVectors = 2;
#endif
constexpr int64_t kDepth = 256;    // of K at a time
constexpr int64_t kOuterRows = 8;  // of A^T per packed panel
constexpr int64_t kAhead = 16;     // rows of a panel

int64_t Lanes() { return static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>())); }
int64_t PanelCols() { return kVectors * Lanes(); }
int64_t Vectors(int64_t cols) { return (cols + Lanes() - 1) / Lanes(); }

// acc[R][V] += a[r, 0..k) times panel (k, V vectors); element (r, i) of a is a[r * row_step + i * k_step].
template <int64_t R, int64_t V, class D, class Vec>
HWY_INLINE void MultiplyAdd(D d, const float* HWY_RESTRICT a, int64_t row_step, int64_t k_step, int64_t k,
                            const float* HWY_RESTRICT panel, Vec (&acc)[R][V]) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < k; ++i) {
    Vec b[V];
#pragma GCC unroll 3
    for (int64_t v = 0; v < V; ++v) {
      b[v] = hn::Load(d, panel + v * lanes);
      hwy::Prefetch(panel + (kAhead * V + v) * lanes);
    }
#pragma GCC unroll 8
    for (int64_t r = 0; r < R; ++r) {
      const auto x = hn::Set(d, a[r * row_step]);
#pragma GCC unroll 3
      for (int64_t v = 0; v < V; ++v) acc[r][v] = hn::MulAdd(x, b[v], acc[r][v]);
    }
    a += k_step;
    panel += V * lanes;
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

template <int64_t R, int64_t V>
HWY_INLINE void MultiplyRows(const Micro& m) {
  const hn::ScalableTag<float> d;
  using Vec = hn::Vec<decltype(d)>;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  Vec acc[R][V];
  const bool whole = m.cols == V * lanes;
  HWY_ALIGN float edge[V * HWY_MAX_BYTES / sizeof(float)] = {};
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int64_t v = 0; v < V; ++v) {
      acc[r][v] = hn::Zero(d);
      hwy::Prefetch(m.c + r * m.c_stride + v * lanes);  // stores wait for lines that are far away
    }
  if (m.k_step == 1)
    MultiplyAdd<R, V>(d, m.a, m.row_step, 1, m.k, m.panel, acc);
  else
    MultiplyAdd<R, V>(d, m.a, 1, kOuterRows, m.k, m.panel, acc);
  // Added last: what was summed before and this block's sum are rounded apart, which keeps long sums accurate.
#pragma GCC unroll 8
  for (int64_t r = 0; r < R; ++r) {
    const float* from = m.start ? m.start + r * m.start_stride : nullptr;
    if (from && !whole) {
      std::copy_n(from, m.cols, edge);
      from = edge;
    }
    float* to = whole ? m.c + r * m.c_stride : edge;
#pragma GCC unroll 3
    for (int64_t v = 0; v < V; ++v) {
      if (from) acc[r][v] = hn::Add(acc[r][v], hn::LoadU(d, from + v * lanes));
      hn::StoreU(acc[r][v], d, to + v * lanes);
    }
    if (!whole) std::copy_n(edge, m.cols, m.c + r * m.c_stride);
  }
}

// All rows of a block against one panel of V vectors.
template <int64_t V>
HWY_NOINLINE void MultiplyPanelOf(Micro m, int64_t rows) {
  const auto advance = [&](int64_t r) {
    m.a += r * m.row_step;
    m.c += r * m.c_stride;
    if (m.start) m.start += r * m.start_stride;
    rows -= r;
  };
  for (; rows >= kRows; advance(kRows)) MultiplyRows<kRows, V>(m);
  if (rows >= 4) MultiplyRows<4, V>(m), advance(4);
  for (; rows > 0; advance(1)) MultiplyRows<1, V>(m);
}

void MultiplyPanel(const Micro& m, int64_t rows) {
  const int64_t vectors = Vectors(m.cols);
  if (vectors == 1) return MultiplyPanelOf<1>(m, rows);
  if (vectors == 2) return MultiplyPanelOf<2>(m, rows);
  MultiplyPanelOf<kVectors>(m, rows);
}

void PackPanel(const float* b, int64_t stride, bool transposed, int64_t k, int64_t cols, float* HWY_RESTRICT panel) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = Lanes(), width = Vectors(cols) * lanes;
  if (!transposed) {
    for (int64_t i = 0; i < k; ++i) {
      const float* row = b + i * stride;
      float* to = panel + i * width;
      int64_t j = 0;
      for (; j + lanes <= cols; j += lanes) hn::Store(hn::LoadU(d, row + j), d, to + j);
      for (; j < width; ++j) to[j] = j < cols ? row[j] : 0.0f;
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
  const int64_t width = PanelCols();
  const auto* const panels = static_cast<const float*>(block.panels);
  for (int64_t i = 0; i < block.k; i += kDepth) {
    const int64_t depth = std::min(kDepth, block.k - i);
    for (int64_t j = 0; j < block.cols; j += width) {
      const float* start = i > 0 ? block.c + j : block.start ? block.start + j : nullptr;
      const int64_t cols = std::min(width, block.cols - j);
      const float* const panel = panels + j * block.k + i * Vectors(cols) * Lanes();
      MultiplyPanel({block.a + i, block.a_stride, 1, depth, panel, block.c + j, block.c_stride, cols, start,
                     i > 0 ? block.c_stride : block.start_stride},
                    block.rows);
    }
  }
}

// Columns of a (depth, m) in groups of kOuterRows: [m / kOuterRows][depth][kOuterRows].
void PackColumns(const float* a, int64_t stride, int64_t depth, int64_t m, float* HWY_RESTRICT out) {
  constexpr int64_t together = 16;  // rows of a: that many are read side by side
  for (int64_t first = 0; first < depth; first += together)
    for (int64_t r = 0; r < m; r += kOuterRows) {
      const int64_t count = std::min(kOuterRows, m - r);
      for (int64_t t = first; t < std::min(first + together, depth); ++t) {
        const float* from = a + t * stride + r;
        float* to = out + r * depth + t * kOuterRows;
        if (count == kOuterRows)  // a size the compiler knows: one load and one store
          std::copy_n(from, kOuterRows, to);
        else
          std::copy_n(from, count, to);
      }
    }
}

void OuterProduct(const cpu::OuterBlock& block) {
  static thread_local Scratch scratch;
  const int64_t width = PanelCols(), m8 = (block.m + kOuterRows - 1) / kOuterRows * kOuterRows;
  const int64_t n_wide = Vectors(block.n) * Lanes();
  float* const a = scratch.ensure<float>(kDepth * (m8 + n_wide));
  float* const b = a + kDepth * m8;
  for (int64_t i = 0; i < block.k; i += kDepth) {
    const int64_t depth = std::min(kDepth, block.k - i);
    PackColumns(block.a + i * block.a_stride, block.a_stride, depth, block.m, a);
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
      .block_rows = 64,
      .outer_cells = int64_t{1} << 16,
      .outer_parts = 1};
  return kernels;
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
