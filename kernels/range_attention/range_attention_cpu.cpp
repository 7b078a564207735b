// Forward attention: a block of query rows against the keys that any of them sees, as two small matrix products.
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/matmul/sgemm.h"
#include "kernels/range_attention/query_block.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/range_attention/softmax_rows.h"

namespace rat::kernels::cpu {
namespace {

// Scores of one block become its softmax weights; `lse` (T) may be null.
void block_weights(const RangeAttentionArgs& a, const QueryBlock& block, BlockScratch& scratch, float* lse) {
  float* scores = scratch.scores.data();
  block_scores(a, block, scores);
  const float scale = score_scale(a.shape);
  for (int64_t r = 0; r < block.rows(); ++r) {
    const int64_t t = block.begin + r;
    float* own = nullptr;
    if (a.own_k.data != nullptr) {
      own = &scratch.own[static_cast<std::size_t>(r)];
      *own = scale * dot(block.own_query(a, t), block.head_row(a.own_k, t), a.shape.head_size);
    }
    const float row_lse = softmax_row(scores + r * block.keys(), block.keys(), a.shape.range.begin(t) - block.first_key,
                                      a.shape.range.end(t) - block.first_key, own);
    if (lse) lse[t] = row_lse;
  }
}

void attend_block(const RangeAttentionArgs& a, const QueryBlock& block) {
  static thread_local BlockScratch scratch;
  scratch.fit(block);
  const int64_t head = a.shape.head_size, first = block.h * head;
  block_weights(a, block, scratch, a.lse.row(block.b * a.shape.heads + block.h));
  float* out = a.out.row(block.b * a.shape.tokens + block.begin) + first;
  if (block.keys() > 0) {
    sgemm_on_this_thread(false, false, block.rows(), head, block.keys(), 1.0f, scratch.scores.data(), block.keys(),
                         a.v.row(block.b, block.first_key) + first, a.v.stride, 0.0f, out, a.out.stride);
  } else {
    for (int64_t r = 0; r < block.rows(); ++r) std::fill_n(out + r * a.out.stride, head, 0.0f);
  }
  if (a.own_k.data == nullptr) return;
  for (int64_t r = 0; r < block.rows(); ++r)
    axpy(scratch.own[static_cast<std::size_t>(r)], block.head_row(a.own_v, block.begin + r), out + r * a.out.stride,
         head);
}

void show_block(const AttentionWeightsArgs& args, const QueryBlock& block) {
  static thread_local BlockScratch scratch;
  scratch.fit(block);
  const RangeAttentionArgs& a = args.forward;
  block_weights(a, block, scratch, nullptr);
  for (int64_t r = 0; r < block.rows(); ++r) {
    const int64_t t = block.begin + r;
    float* out = args.weights.row((block.b * a.shape.heads + block.h) * a.shape.tokens + t);
    std::fill_n(out, args.weights.cols, std::numeric_limits<float>::quiet_NaN());
    const float* weights = scratch.scores.data() + r * block.keys() - block.first_key;
    const int64_t begin = a.shape.range.begin(t), end = a.shape.range.end(t);
    std::copy(weights + begin, weights + end, out + begin);
    if (a.own_k.data != nullptr) out[a.shape.keys] = scratch.own[static_cast<std::size_t>(r)];
  }
}

// Calls body(block) for every block of query rows of every head.
template <class Body>
void for_each_query_block(const AttentionShape& shape, const Body& body) {
  const int64_t rows = query_rows(shape), blocks = (shape.tokens + rows - 1) / rows;
  parallel_for(shape.batch * shape.heads * blocks, [&](int64_t i) {
    const int64_t bh = i / blocks;
    body(QueryBlock(shape, bh / shape.heads, bh % shape.heads, i % blocks * rows));
  });
}

}  // namespace

Status range_attention(const RangeAttentionArgs& args) {
  for_each_query_block(args.shape, [&](const QueryBlock& block) { attend_block(args, block); });
  return ok();
}

Status attention_weights(const AttentionWeightsArgs& args) {
  for_each_query_block(args.forward.shape, [&](const QueryBlock& block) { show_block(args, block); });
  return ok();
}

Status attend_one(const AttendOneArgs& args) {
  const int64_t head = args.out.cols / args.heads, keys = args.k.rows;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head));
  const int64_t heads_per_block = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, keys * head));
  parallel_ranges(args.heads, heads_per_block, [&](int64_t first, int64_t last) {
    static thread_local std::vector<float> scores;
    scores.resize(static_cast<std::size_t>(keys));
    for (int64_t h = first; h < last; ++h) {
      const int64_t at = h * head, q_at = at % args.q.cols;
      for (int64_t j = 0; j < keys; ++j)
        scores[static_cast<std::size_t>(j)] = scale * dot(args.q.data + q_at, args.k.row(j) + at, head);
      float own = 0.0f;
      const bool has_own = args.own_k.data != nullptr;
      if (has_own) own = scale * dot(args.own_q.data + q_at, args.own_k.data + at, head);
      softmax_row(scores.data(), keys, 0, keys, has_own ? &own : nullptr);
      float* out = args.out.data + at;
      std::fill_n(out, head, 0.0f);
      for (int64_t j = 0; j < keys; ++j) axpy(scores[static_cast<std::size_t>(j)], args.v.row(j) + at, out, head);
      if (has_own) axpy(own, args.own_v.data + at, out, head);
    }
  });
  return ok();
}

}  // namespace rat::kernels::cpu
