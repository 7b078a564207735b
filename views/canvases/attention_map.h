// What the columns of an attention probe mean, for one layer and head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/mixer_list.h"
#include "core/trace/snapshot.h"

namespace rat::views {

// One layer and head of a trace, with what its columns mean.
struct AttentionMap {
  const TraceSnapshot* trace = nullptr;
  const ProbeTensor* tensor = nullptr;
  LayerConfig layer;
  int layer_index = 0, head = 0;
  int64_t chunk = 0;  // L; 0: columns are tokens

  int64_t queries() const { return tensor->shape[1]; }
  int64_t keys() const { return tensor->shape[2]; }
  bool by_chunk() const { return chunk > 0; }
  bool own_state(int64_t col) const { return by_chunk() && col == keys() - 1; }
  float weight(int64_t row, int64_t col) const { return tensor->row(head, row)[static_cast<std::size_t>(col)]; }
  // Cells that no query may see: NaN by design. More NaN than that are broken weights.
  int64_t masked_cells() const {
    int64_t masked = 0;
    const auto type = find_mixer_type(layer.kind);
    if (!type || !(*type)->columns_seen) return 0;
    LayerConfig here = layer;
    if (by_chunk()) here.chunk = chunk;  // L >= T is one chunk of the trace
    for (int64_t t = 0; t < queries(); ++t) masked += keys() - (*type)->columns_seen(here, t);
    return masked;
  }
  // Tokens behind a column, as the query at `row` sees them.
  std::pair<int64_t, int64_t> span(int64_t row, int64_t col) const {
    if (!by_chunk()) return {col, col + 1};
    if (own_state(col)) return {row / chunk * chunk, row + 1};
    return {col * chunk, std::min((col + 1) * chunk, trace->token_count())};
  }
};

}  // namespace rat::views
