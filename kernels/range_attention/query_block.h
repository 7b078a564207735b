// A block of query rows of one head, and tiles of the keys that any of them sees: the CPU kernels' unit of work.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/matmul/panels.h"
#include "kernels/matmul/sgemm.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/range_attention/softmax_rows.h"

namespace rat::kernels::cpu {

// Rows per block. Where keys are tokens, few: half of a tile on the diagonal and a window's corner are wasted work. Where
// a key stands for a chunk (RAT), more: that waste is small, and so are the products. A function of the shape alone.
inline int64_t query_rows(const RangeAttentionArgs& a) { return a.shape.range.chunk_len == 1 ? 64 : 128; }

inline float score_scale(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_size)); }

struct QueryBlock {
  int64_t b, h;
  int64_t begin, end;      // query tokens
  int64_t row0;            // row of token 0 of sequence b
  int64_t head_at, kv_at;  // first column of this head, in out and in keys; its queries are at head_at % width

  QueryBlock(const RangeAttentionArgs& a, int64_t b_, int64_t h_, int64_t begin_)
      : b(b_),
        h(h_),
        begin(begin_),
        end(std::min(begin_ + query_rows(a), a.shape.tokens)),
        row0(b_ * a.shape.tokens),
        head_at(h_ * a.shape.head_size),
        kv_at(head_at % a.shape.kv_columns()) {}

  int64_t rows() const { return end - begin; }
  // Rows of this block in a (B*T, cols) tensor whose heads are shared when there are fewer columns than channels.
  template <class T>
  T* first_row(const Rows<T>& rows) const {
    return rows.row(row0 + begin) + head_at % rows.cols;
  }
  float* lse(const RangeAttentionArgs& a) const { return a.lse.row(b * a.shape.heads + h) + begin; }
};

// Per thread, reused from block to block.
struct BlockScratch {
  std::vector<float> scores, grad_scores, max, sum, own, mean_grad;
  std::vector<int32_t> begin, end;

  void fit(int64_t rows, int64_t keys) {
    const auto n = static_cast<std::size_t>(rows), cells = static_cast<std::size_t>(rows * keys);
    if (scores.size() < cells) scores.resize(cells);
    if (begin.size() >= n) return;
    begin.resize(n), end.resize(n);
    for (auto* per_row : {&max, &sum, &own, &mean_grad}) per_row->resize(n);
  }
};

struct KeyTile {
  int64_t segment_index;
  KeySegment segment;
  int64_t first, last;  // keys of the segment

  int64_t keys() const { return last - first; }
  const float* k(const QueryBlock& block) const { return segment.k.row(block.b, first) + block.kv_at; }
  const float* v(const QueryBlock& block) const { return segment.v.row(block.b, first) + block.kv_at; }
  // Of its products: laying out few keys for another dtype takes longer than multiplying them in f32, and without the
  // matrix unit any.
  Dtype of_size(Dtype dtype) const { return keys() < 64 || amx_panels(1) == nullptr ? Dtype::f32 : dtype; }
};

// Calls body(tile) for tiles of nearly equal size, at most 512 keys, that cover what the block sees, in order.
template <class Body>
void for_each_tile(const RangeAttentionArgs& a, const QueryBlock& block, const Body& body) {
  constexpr int64_t most = 512;
  for (int64_t i = 0; i < a.segments(); ++i) {
    const KeySegment segment = a.segment(i);
    const int64_t first = segment.range.begin(block.begin), last = segment.range.end(block.end - 1);
    const int64_t tiles = (last - first + most - 1) / most;
    const int64_t size = tiles == 0 ? 1 : ((last - first + tiles - 1) / tiles + 15) / 16 * 16;
    for (int64_t k = first; k < last; k += size) body(KeyTile{i, segment, k, std::min(k + size, last)});
  }
}

// Scores of a tile, q k^T / sqrt P with unseen cells included, and which cells of each row are seen.
inline ScoreTile tile_scores(const RangeAttentionArgs& a, const QueryBlock& block, const KeyTile& tile,
                             BlockScratch& scratch) {
  scratch.fit(block.rows(), tile.keys());
  gemm_on_this_thread(tile.of_size(a.score_dtype), false, true, block.rows(), tile.keys(), a.shape.head_size,
                      score_scale(a.shape), block.first_row(a.q), a.q.stride, tile.k(block), tile.segment.k.stride,
                      false, scratch.scores.data(), tile.keys());
  for (int64_t r = 0; r < block.rows(); ++r) {
    const auto column = [&](int64_t key) {
      return static_cast<int32_t>(std::clamp(key, tile.first, tile.last) - tile.first);
    };
    const KeyRange& range = tile.segment.range;
    scratch.begin[static_cast<std::size_t>(r)] = column(range.begin(block.begin + r));
    scratch.end[static_cast<std::size_t>(r)] = column(range.end(block.begin + r));
  }
  return {scratch.scores.data(), block.rows(), tile.keys(), scratch.begin.data(), scratch.end.data()};
}

}  // namespace rat::kernels::cpu
