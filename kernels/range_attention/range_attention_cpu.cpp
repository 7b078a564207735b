// Forward attention: a block of query rows against tiles of the keys that any of them sees, as two small matrix
// products per tile under a running maximum.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/range_attention/query_block.h"

namespace rat::kernels::cpu {
namespace {

// scratch.own[r] = the score of row r's own key.
void own_scores(const RangeAttentionArgs& a, const QueryBlock& block, BlockScratch& scratch) {
  dot_rows(block.rows(), a.shape.head_size, score_scale(a.shape), block.first_row(a.own_q), a.own_q.stride,
           block.first_row(a.own_k), a.own_k.stride, scratch.own.data());
}

// `out` and `lse` are the block's first rows. Running maximum and sum start from the own key where there is one.
void attend_block(const RangeAttentionArgs& a, const QueryBlock& block, float* out, int64_t out_stride, float* lse,
                  BlockScratch& scratch) {
  const int64_t head = a.shape.head_size, rows = block.rows();
  scratch.fit(rows, 0);
  float *max = scratch.max.data(), *sum = scratch.sum.data();
  const bool own = a.own_k.data != nullptr;
  std::fill_n(sum, rows, own ? 1.0f : 0.0f);
  if (own) {
    own_scores(a, block, scratch);
    std::copy_n(scratch.own.data(), rows, max);
    for (int64_t r = 0; r < rows; ++r)
      std::copy_n(block.first_row(a.own_v) + r * a.own_v.stride, head, out + r * out_stride);
  }
  bool started = own;
  for_each_tile(a, block, [&](const KeyTile& tile) {
    const ScoreTile scores = tile_scores(a, block, tile, scratch);
    softmax_tile(scores, max, sum, out, out_stride, head);
    gemm_on_this_thread(tile.of_size(a.dtype), false, false, rows, head, tile.keys(), 1.0f, scores.scores,
                        tile.keys(), tile.v(block), tile.segment.v.stride, started, out, out_stride);
    started = true;
  });
  finish_softmax(rows, max, sum, out, out_stride, head, lse);
}

void show_block(const AttentionWeightsArgs& args, const QueryBlock& block) {
  static thread_local BlockScratch scratch;
  static thread_local std::vector<float> out, lse;
  const RangeAttentionArgs& a = args.forward;
  out.resize(static_cast<std::size_t>(block.rows() * a.shape.head_size));
  lse.resize(static_cast<std::size_t>(block.rows()));
  attend_block(a, block, out.data(), a.shape.head_size, lse.data(), scratch);
  float* const shown = args.weights.row((block.b * a.shape.heads + block.h) * a.shape.tokens + block.begin);
  const int64_t stride = args.weights.stride;
  for (int64_t r = 0; r < block.rows(); ++r) {
    std::fill_n(shown + r * stride, args.weights.cols, std::numeric_limits<float>::quiet_NaN());
    if (a.own_k.data != nullptr)
      shown[r * stride + args.weights.cols - 1] =
          std::exp(scratch.own[static_cast<std::size_t>(r)] - lse[static_cast<std::size_t>(r)]);
  }
  for_each_tile(a, block, [&](const KeyTile& tile) {
    const ScoreTile scores = tile_scores(a, block, tile, scratch);
    weights_from_lse(scores, lse.data());
    for (int64_t r = 0; r < block.rows(); ++r)
      for (int64_t j = scores.begin[r]; j < scores.end[r]; ++j)
        shown[r * stride + tile.segment.first_column + (tile.first + j) * tile.segment.column_step] =
            scores.scores[r * tile.keys() + j];
  });
}

// Calls body(block) for every block of query rows of every head, the longest ones first.
template <class Body>
void for_each_query_block(const RangeAttentionArgs& a, const Body& body) {
  const int64_t rows = query_rows(a), blocks = (a.shape.tokens + rows - 1) / rows;
  const int64_t heads = a.shape.batch * a.shape.heads;
  parallel_for(heads * blocks, [&](int64_t i) {
    const int64_t bh = i % heads, block = blocks - 1 - i / heads;
    body(QueryBlock(a, bh / a.shape.heads, bh % a.shape.heads, block * rows));
  });
}

}  // namespace

Status range_attention(const RangeAttentionArgs& args) {
  for_each_query_block(args, [&](const QueryBlock& block) {
    static thread_local BlockScratch scratch;
    attend_block(args, block, block.first_row(args.out), args.out.stride, block.lse(args), scratch);
  });
  return ok();
}

Status attention_weights(const AttentionWeightsArgs& args) {
  for_each_query_block(args.forward, [&](const QueryBlock& block) { show_block(args, block); });
  return ok();
}

Status attend_one(const AttendOneArgs& args) {
  const int64_t B = args.q.rows, head = args.out.cols / args.heads, keys = args.k.rows / B;
  constexpr int64_t enough = 1 << 14;  // values of keys, that handing them to another core costs little
  const int64_t heads_per_block = std::max<int64_t>(1, enough / std::max<int64_t>(1, keys * head));
  const bool own = args.own_k.data != nullptr;
  parallel_ranges(B * args.heads, heads_per_block, [&](int64_t first, int64_t last) {
    static thread_local std::vector<float> scores;
    if (scores.size() < static_cast<std::size_t>(keys)) scores.resize(static_cast<std::size_t>(keys));
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / args.heads, at = i % args.heads * head, q_at = at % args.q.cols;
      const int64_t kv_at = keys > 0 ? at % args.k.cols : 0;
      attend_one_head({.n = head,
                       .keys = keys,
                       .scale = 1.0f / std::sqrt(static_cast<float>(head)),
                       .q = args.q.row(b) + q_at,
                       .k = args.k.row(b) + kv_at,
                       .v = args.v.row(b) + kv_at,
                       .k_stride = B * args.k.stride,
                       .v_stride = B * args.v.stride,
                       .own_q = own ? args.own_q.row(b) + q_at : nullptr,
                       .own_k = own ? args.own_k.row(b) + at : nullptr,
                       .own_v = own ? args.own_v.row(b) + at : nullptr,
                       .scores = scores.data(),
                       .out = args.out.row(b) + at});
    }
  });
  return ok();
}

}  // namespace rat::kernels::cpu
