// A block of query rows of one head, and the keys that any of them sees: the unit of work of the CPU attention kernels.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/matmul/sgemm.h"
#include "kernels/range_attention/range_attention.h"

namespace rat::kernels::cpu {

// Rows per block: a block of scores stays within about half a megabyte. A function of the shape alone.
inline int64_t query_rows(const AttentionShape& shape) {
  const int64_t seen = shape.range.window < 0 ? shape.keys : std::min(shape.keys, shape.range.window + 64);
  return std::clamp<int64_t>((int64_t{1} << 17) / std::max<int64_t>(1, seen), 16, 128);
}

inline float score_scale(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_size)); }

struct QueryBlock {
  int64_t b, h;
  int64_t begin, end;           // query tokens
  int64_t first_key, last_key;  // keys [first_key, last_key)
  int64_t row0;                 // row of token 0 of sequence b
  int64_t head_at;              // first column of this head; its queries are at head_at % width

  QueryBlock(const AttentionShape& shape, int64_t b_, int64_t h_, int64_t begin_)
      : b(b_),
        h(h_),
        begin(begin_),
        end(std::min(begin_ + query_rows(shape), shape.tokens)),
        first_key(shape.range.begin(begin_)),
        last_key(shape.range.end(end - 1)),
        row0(b_ * shape.tokens),
        head_at(h_ * shape.head_size) {}

  int64_t rows() const { return end - begin; }
  int64_t keys() const { return last_key - first_key; }
  const float* query(const RangeAttentionArgs& a, int64_t t) const { return a.q.row(row0 + t) + head_at % a.q.cols; }
  const float* own_query(const RangeAttentionArgs& a, int64_t t) const {
    return a.own_q.row(row0 + t) + head_at % a.own_q.cols;
  }
  template <class T>
  T* head_row(const Rows<T>& rows, int64_t t) const {
    return rows.row(row0 + t) + head_at;
  }
};

// Per thread, reused from block to block.
struct BlockScratch {
  std::vector<float> scores, grad_scores, own;

  void fit(const QueryBlock& block) {
    const auto cells = static_cast<std::size_t>(block.rows() * block.keys());
    if (scores.size() < cells) scores.resize(cells);
    if (own.size() < static_cast<std::size_t>(block.rows())) own.resize(static_cast<std::size_t>(block.rows()));
  }
};

// scores (rows, keys) = q k^T / sqrt P, masked cells included.
inline void block_scores(const RangeAttentionArgs& a, const QueryBlock& block, float* scores) {
  if (block.keys() == 0) return;
  sgemm_on_this_thread(false, true, block.rows(), block.keys(), a.shape.head_size, score_scale(a.shape),
                       block.query(a, block.begin), a.q.stride, a.k.row(block.b, block.first_key) + block.head_at,
                       a.k.stride, 0.0f, scores, block.keys());
}

}  // namespace rat::kernels::cpu
