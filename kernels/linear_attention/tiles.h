// How the CPU kernels of linear attention walk a sequence: tiles of 64 tokens, in spans that may start apart.
//
// In shifted coordinates a query sees all keys up to its own index: query j is token j + shift, key j is token j, for
// 0 <= j < T - shift. A span is a run of tiles; where there are few heads, a sequence has several, whose states at the
// start are summed first. All cuts are by shape alone.
#pragma once

#include <algorithm>
#include <vector>

#include "kernels/linear_attention/features.h"
#include "kernels/linear_attention/linear_attention.h"
#include "kernels/matmul/sgemm.h"

namespace rat::kernels::cpu {

struct LinearPlan {
  static constexpr int64_t tile = 64, wanted_units = 16;
  int64_t P, batch, length;   // of the shifted sequence; 0: no token sees any
  int64_t spans, span_length;

  explicit LinearPlan(const LinearAttentionArgs& a)
      : P(a.head_size), batch(a.q.rows / a.tokens), length(std::max<int64_t>(0, a.tokens - a.shift)) {
    const int64_t tiles = (length + tile - 1) / tile;
    const int64_t wanted = std::max<int64_t>(1, wanted_units / (batch * a.heads));
    const int64_t per_span = std::max<int64_t>(1, (tiles + wanted - 1) / wanted);
    span_length = per_span * tile;
    spans = (length + span_length - 1) / span_length;
  }
  int64_t state_size() const { return 2 * P * P; }
  int64_t heads_total(const LinearAttentionArgs& a) const { return batch * a.heads; }
};

// Tile [begin, end) of one head in shifted coordinates.
struct LinearTile {
  const LinearAttentionArgs& a;
  int64_t b, h, begin, end;

  int64_t rows() const { return end - begin; }
  template <class T>
  T* query_row(const Rows<T>& x) const {  // also out and its gradient
    return x.row(b * a.tokens + begin + a.shift) + h * a.head_size;
  }
  template <class T>
  T* key_row(const Rows<T>& x) const {  // also values
    return x.row(b * a.tokens + begin) + h * a.head_size % x.cols;
  }
  void query_features(float* to) const { softmax_features(rows(), a.head_size, query_row(a.q), a.q.stride, to); }
  void key_features(float* to) const { softmax_features(rows(), a.head_size, key_row(a.k), a.k.stride, to); }
};

// Tiles of a span in order, or from its end.
template <class Body>
void for_each_linear_tile(const LinearAttentionArgs& a, const LinearPlan& plan, int64_t bh, int64_t span, bool backwards,
                          const Body& body) {
  const int64_t first = span * plan.span_length, last = std::min(first + plan.span_length, plan.length);
  const int64_t tiles = (last - first + plan.tile - 1) / plan.tile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t begin = first + (backwards ? tiles - 1 - i : i) * plan.tile;
    body(LinearTile{a, bh / a.heads, bh % a.heads, begin, std::min(begin + plan.tile, last)});
  }
}

// Zeroes the cells of keys after the query.
inline void keep_lower_triangle(float* cells, int64_t n) {
  for (int64_t i = 0; i < n; ++i) std::fill(cells + i * n + i + 1, cells + (i + 1) * n, 0.0f);
}

// Per thread, reused.
struct LinearScratch {
  std::vector<float> q, k, grad, scores, grad_scores, state;
  explicit LinearScratch(int64_t P) { fit(P); }
  LinearScratch() = default;
  void fit(int64_t P) {
    constexpr int64_t C = LinearPlan::tile;
    const auto at_least = [](std::vector<float>& x, int64_t n) {
      if (x.size() < static_cast<std::size_t>(n)) x.resize(static_cast<std::size_t>(n));
    };
    for (auto* features : {&q, &k, &grad}) at_least(*features, C * 2 * P);
    for (auto* cells : {&scores, &grad_scores}) at_least(*cells, C * C);
    at_least(state, 2 * P * P);
  }
};

}  // namespace rat::kernels::cpu
