// Backward attention. Weights are recomputed from the log-sum-exp; with m[t] = grad_out[t] . out[t], every score's
// gradient is p (dp - m), the own key's included, because the softmax is joint.
#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/range_attention/query_block.h"
#include "kernels/range_attention/softmax_rows.h"

namespace rat::kernels::cpu {
namespace {

// dest = x * scale, or dest += x * scale: the first head of a group writes the query gradient that the others add to.
void scaled(bool add, float scale, const float* x, float* dest, int64_t n) {
  if (!add) std::fill_n(dest, n, 0.0f);
  axpy(scale, x, dest, n);
}

void own_key_backward(const RangeAttentionBackwardArgs& args, const QueryBlock& block, bool add_query) {
  const RangeAttentionArgs& a = args.forward;
  const int64_t head = a.shape.head_size;
  const float scale = score_scale(a.shape);
  const float* lse = a.lse.row(block.b * a.shape.heads + block.h);
  for (int64_t t = block.begin; t < block.end; ++t) {
    const float* query = block.own_query(a, t);
    const float* key = block.head_row(a.own_k, t);
    const float* grad_out = block.head_row(args.grad_out, t);
    const float weight = std::exp(scale * dot(query, key, head) - lse[t]);
    const float mean_grad = dot(grad_out, block.head_row(a.out, t), head);
    const float grad_score = weight * (dot(grad_out, block.head_row(a.own_v, t), head) - mean_grad) * scale;
    scaled(add_query, grad_score, key, args.grad_own_q.row(block.row0 + t) + block.head_at % args.grad_own_q.cols,
           head);
    scaled(false, grad_score, query, block.head_row(args.grad_own_k, t), head);
    scaled(false, weight, grad_out, block.head_row(args.grad_own_v, t), head);
  }
}

void keys_backward(const RangeAttentionBackwardArgs& args, const QueryBlock& block, bool add_query) {
  static thread_local BlockScratch scratch;
  const RangeAttentionArgs& a = args.forward;
  const int64_t head = a.shape.head_size, rows = block.rows(), keys = block.keys();
  float* grad_q = args.grad_q.row(block.row0 + block.begin) + block.head_at % args.grad_q.cols;
  if (keys == 0) {
    for (int64_t r = 0; r < rows && !add_query; ++r) std::fill_n(grad_q + r * args.grad_q.stride, head, 0.0f);
    return;
  }
  scratch.fit(block);
  if (scratch.grad_scores.size() < scratch.scores.size()) scratch.grad_scores.resize(scratch.scores.size());
  float* weights = scratch.scores.data();
  float* grad_scores = scratch.grad_scores.data();
  const float* grad_out = block.head_row(args.grad_out, block.begin);
  const float* lse = a.lse.row(block.b * a.shape.heads + block.h);

  block_scores(a, block, weights);
  sgemm_on_this_thread(false, true, rows, keys, head, 1.0f, grad_out, args.grad_out.stride,
                       a.v.row(block.b, block.first_key) + block.head_at, a.v.stride, 0.0f, grad_scores, keys);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t t = block.begin + r;
    weights_from_lse(weights + r * keys, keys, a.shape.range.begin(t) - block.first_key,
                     a.shape.range.end(t) - block.first_key, lse[t]);
    const float mean_grad = dot(block.head_row(args.grad_out, t), block.head_row(a.out, t), head);
    softmax_gradient(weights + r * keys, grad_scores + r * keys, keys, mean_grad, score_scale(a.shape));
  }
  sgemm_on_this_thread(false, false, rows, head, keys, 1.0f, grad_scores, keys,
                       a.k.row(block.b, block.first_key) + block.head_at, a.k.stride, add_query ? 1.0f : 0.0f, grad_q,
                       args.grad_q.stride);
  sgemm_on_this_thread(true, false, keys, head, rows, 1.0f, grad_scores, keys, block.query(a, block.begin), a.q.stride,
                       1.0f, args.grad_k.row(block.b, block.first_key) + block.head_at, args.grad_k.stride);
  sgemm_on_this_thread(true, false, keys, head, rows, 1.0f, weights, keys, grad_out, args.grad_out.stride, 1.0f,
                       args.grad_v.row(block.b, block.first_key) + block.head_at, args.grad_v.stride);
}

// One head: own keys of all tokens first, because gradients of chunk ends are added on top of them.
void head_backward(const RangeAttentionBackwardArgs& args, int64_t b, int64_t h, bool add_query) {
  const AttentionShape& shape = args.forward.shape;
  const int64_t rows = query_rows(shape);
  if (args.forward.own_k.data != nullptr)
    for (int64_t t = 0; t < shape.tokens; t += rows) own_key_backward(args, QueryBlock(shape, b, h, t), add_query);
  for (int64_t t = 0; t < shape.tokens; t += rows) keys_backward(args, QueryBlock(shape, b, h, t), add_query);
}

}  // namespace

// Heads that share queries are one unit of work, in order: sums need no atomics and have one order.
Status range_attention_backward(const RangeAttentionBackwardArgs& args) {
  const AttentionShape& shape = args.forward.shape;
  const int64_t groups = args.forward.q.cols / shape.head_size;
  parallel_for(shape.batch * groups, [&](int64_t i) {
    const int64_t b = i / groups, group = i % groups;
    for (int64_t h = group; h < shape.heads; h += groups) head_backward(args, b, h, h != group);
  });
  return ok();
}

}  // namespace rat::kernels::cpu
