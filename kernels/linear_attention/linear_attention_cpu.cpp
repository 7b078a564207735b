// Linear attention tile by tile: inside a tile as masked attention, earlier tiles through the state.
#include <limits>

#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/linear_attention/tiles.h"

namespace rat::kernels::cpu {
namespace {

LinearScratch& scratch_for(int64_t P) {
  static thread_local LinearScratch scratch;
  scratch.fit(P);
  return scratch;
}

// state (2 P, P) += features^T rows
void add_outer(const LinearTile& tile, const float* features, const float* rows, int64_t stride, float* state) {
  const int64_t P = tile.a.head_size;
  sgemm_on_this_thread(true, false, 2 * P, P, tile.rows(), 1.0f, features, 2 * P, rows, stride, 1.0f, state, P);
}

// One state per head and span, in the caller's buffer. `sum(tile, state)` adds a tile's part.
// Afterwards states[bh][span] is the sum over all earlier (or, backwards, later) spans.
template <class Sum>
float* span_states(const LinearAttentionArgs& a, const LinearPlan& plan, bool backwards, std::vector<float>& states,
                   const Sum& sum) {
  const int64_t size = plan.state_size(), heads = plan.heads_total(a);
  const auto total = static_cast<std::size_t>(heads * plan.spans * size);
  if (states.size() < total) states.resize(total);
  std::fill_n(states.begin(), total, 0.0f);
  if (plan.spans < 2) return states.data();
  // The sum over span s is put where the next span (in the walk's direction) will start from.
  parallel_for(heads * (plan.spans - 1), [&](int64_t i) {
    const int64_t bh = i % heads, span = i / heads + (backwards ? 1 : 0), next = span + (backwards ? -1 : 1);
    float* state = states.data() + (bh * plan.spans + next) * size;
    for_each_linear_tile(a, plan, bh, span, backwards, [&](const LinearTile& tile) { sum(tile, state); });
  });
  parallel_for(heads, [&](int64_t bh) {
    for (int64_t i = 1; i < plan.spans; ++i) {
      const int64_t span = backwards ? plan.spans - 1 - i : i, before = span + (backwards ? 1 : -1);
      const float* from = states.data() + (bh * plan.spans + before) * size;
      float* to = states.data() + (bh * plan.spans + span) * size;
      for (int64_t j = 0; j < size; ++j) to[j] += from[j];
    }
  });
  return states.data();
}

void add_keys(const LinearTile& tile, float* state) {
  LinearScratch& scratch = scratch_for(tile.a.head_size);
  tile.key_features(scratch.k.data());
  add_outer(tile, scratch.k.data(), tile.key_row(tile.a.v), tile.a.v.stride, state);
}

// Writes the tile's rows of out and adds its keys to the state.
void attend_tile(const LinearTile& tile, float* state) {
  const LinearAttentionArgs& a = tile.a;
  const int64_t P = a.head_size, n = tile.rows();
  LinearScratch& scratch = scratch_for(P);
  float *q = scratch.q.data(), *k = scratch.k.data(), *scores = scratch.scores.data(), *out = tile.query_row(a.out);
  tile.query_features(q);
  tile.key_features(k);
  sgemm_on_this_thread(false, true, n, n, 2 * P, 1.0f, q, 2 * P, k, 2 * P, 0.0f, scores, n);
  keep_lower_triangle(scores, n);
  const float* v = tile.key_row(a.v);
  sgemm_on_this_thread(false, false, n, P, n, 1.0f, scores, n, v, a.v.stride, 0.0f, out, a.out.stride);
  sgemm_on_this_thread(false, false, n, P, 2 * P, 1.0f, q, 2 * P, state, P, 1.0f, out, a.out.stride);
  add_outer(tile, k, v, a.v.stride, state);
}

// Adds to grad_q of the tile; the state holds the keys before it.
void query_gradient(const LinearAttentionBackwardArgs& args, const LinearTile& tile, float* state) {
  const LinearAttentionArgs& a = tile.a;
  const int64_t P = a.head_size, n = tile.rows();
  LinearScratch& scratch = scratch_for(P);
  float *q = scratch.q.data(), *k = scratch.k.data(), *cells = scratch.grad_scores.data(), *grad = scratch.grad.data();
  tile.query_features(q);
  tile.key_features(k);
  const float *v = tile.key_row(a.v), *to_out = tile.query_row(args.grad_out);
  sgemm_on_this_thread(false, true, n, n, P, 1.0f, to_out, args.grad_out.stride, v, a.v.stride, 0.0f, cells, n);
  keep_lower_triangle(cells, n);
  sgemm_on_this_thread(false, false, n, 2 * P, n, 1.0f, cells, n, k, 2 * P, 0.0f, grad, 2 * P);
  sgemm_on_this_thread(false, true, n, 2 * P, P, 1.0f, to_out, args.grad_out.stride, state, P, 1.0f, grad, 2 * P);
  add_feature_gradient(n, P, q, grad, tile.query_row(args.grad_q), args.grad_q.stride);
  add_outer(tile, k, v, a.v.stride, state);
}

void add_queries(const LinearAttentionBackwardArgs& args, const LinearTile& tile, float* state) {
  LinearScratch& scratch = scratch_for(tile.a.head_size);
  tile.query_features(scratch.q.data());
  add_outer(tile, scratch.q.data(), tile.query_row(args.grad_out), args.grad_out.stride, state);
}

// Adds to grad_k and grad_v of the tile; the state holds phi(q)^T grad_out of the queries after it.
void key_gradient(const LinearAttentionBackwardArgs& args, const LinearTile& tile, float* state) {
  const LinearAttentionArgs& a = tile.a;
  const int64_t P = a.head_size, n = tile.rows();
  LinearScratch& scratch = scratch_for(P);
  float *q = scratch.q.data(), *k = scratch.k.data(), *scores = scratch.scores.data();
  float *cells = scratch.grad_scores.data(), *grad = scratch.grad.data();
  tile.query_features(q);
  tile.key_features(k);
  const float *v = tile.key_row(a.v), *to_out = tile.query_row(args.grad_out);
  const int64_t out_stride = args.grad_out.stride;
  sgemm_on_this_thread(false, true, n, n, 2 * P, 1.0f, q, 2 * P, k, 2 * P, 0.0f, scores, n);
  keep_lower_triangle(scores, n);
  sgemm_on_this_thread(false, true, n, n, P, 1.0f, to_out, out_stride, v, a.v.stride, 0.0f, cells, n);
  keep_lower_triangle(cells, n);
  float* grad_v = tile.key_row(args.grad_v);
  sgemm_on_this_thread(true, false, n, P, n, 1.0f, scores, n, to_out, out_stride, 1.0f, grad_v, args.grad_v.stride);
  sgemm_on_this_thread(false, false, n, P, 2 * P, 1.0f, k, 2 * P, state, P, 1.0f, grad_v, args.grad_v.stride);
  sgemm_on_this_thread(true, false, n, 2 * P, n, 1.0f, cells, n, q, 2 * P, 0.0f, grad, 2 * P);
  sgemm_on_this_thread(false, true, n, 2 * P, P, 1.0f, v, a.v.stride, state, P, 1.0f, grad, 2 * P);
  add_feature_gradient(n, P, k, grad, tile.key_row(args.grad_k), args.grad_k.stride);
  add_outer(tile, q, to_out, out_stride, state);
}

}  // namespace

Status linear_attention(const LinearAttentionArgs& args) {
  static thread_local std::vector<float> states;
  const LinearPlan plan(args);
  for (int64_t b = 0; b < plan.batch; ++b)  // tokens that see nothing
    for (int64_t t = 0; t < std::min(args.shift, args.tokens); ++t)
      std::fill_n(args.out.row(b * args.tokens + t), args.out.cols, 0.0f);
  if (plan.length == 0) return ok();
  float* const start = span_states(args, plan, false, states, add_keys);
  parallel_for(plan.heads_total(args) * plan.spans, [&](int64_t i) {
    float* state = start + i * plan.state_size();
    for_each_linear_tile(args, plan, i / plan.spans, i % plan.spans, false,
                         [&](const LinearTile& tile) { attend_tile(tile, state); });
  });
  return ok();
}

Status linear_attention_backward(const LinearAttentionBackwardArgs& args) {
  static thread_local std::vector<float> earlier, later;
  const LinearAttentionArgs& a = args.forward;
  const LinearPlan plan(a);
  if (plan.length == 0) return ok();
  float* const keys = span_states(a, plan, false, earlier, add_keys);
  parallel_for(plan.heads_total(a) * plan.spans, [&](int64_t i) {
    float* state = keys + i * plan.state_size();
    for_each_linear_tile(a, plan, i / plan.spans, i % plan.spans, false,
                         [&](const LinearTile& tile) { query_gradient(args, tile, state); });
  });
  float* const queries = span_states(a, plan, true, later,
                                     [&](const LinearTile& tile, float* state) { add_queries(args, tile, state); });
  // Heads that share keys and values add to the same gradients: one unit of work, in order.
  const int64_t groups = a.k.cols / a.head_size;
  parallel_for(plan.batch * groups * plan.spans, [&](int64_t i) {
    const int64_t bg = i / plan.spans, span = i % plan.spans;
    for (int64_t h = bg % groups; h < a.heads; h += groups) {
      const int64_t bh = bg / groups * a.heads + h;
      float* state = queries + (bh * plan.spans + span) * plan.state_size();
      for_each_linear_tile(a, plan, bh, span, true,
                           [&](const LinearTile& tile) { key_gradient(args, tile, state); });
    }
  });
  return ok();
}

Status linear_weights(const LinearWeightsArgs& args) {
  static thread_local std::vector<float> all_keys;
  const LinearAttentionArgs& a = args.forward;
  const int64_t T = a.tokens, P = a.head_size;
  all_keys.resize(static_cast<std::size_t>(T * 2 * P));
  float* const keys = all_keys.data();
  for (int64_t bh = 0; bh < a.q.rows / T * a.heads; ++bh) {
    const int64_t row0 = bh / a.heads * T, at = bh % a.heads * P;
    softmax_features(T, P, a.k.row(row0) + at % a.k.cols, a.k.stride, keys);
    parallel_ranges(T, LinearPlan::tile, [&](int64_t begin, int64_t end) {
      LinearScratch& scratch = scratch_for(P);
      softmax_features(end - begin, P, a.q.row(row0 + begin) + at, a.q.stride, scratch.q.data());
      sgemm_on_this_thread(false, true, end - begin, T, 2 * P, 1.0f, scratch.q.data(), 2 * P, keys, 2 * P, 0.0f,
                           args.weights.row(bh * T + begin), args.weights.stride);
      for (int64_t t = begin; t < end; ++t) {
        float* const shown = args.weights.row(bh * T + t);
        float* const unseen = shown + std::max<int64_t>(0, t - a.shift + 1);
        double sum = 0;
        for (const float* x = shown; x < unseen; ++x) sum += static_cast<double>(*x);
        for (float* x = shown; x < unseen; ++x) *x = static_cast<float>(static_cast<double>(*x) / sum);
        std::fill(unseen, shown + T, std::numeric_limits<float>::quiet_NaN());
      }
    });
  }
  return ok();
}

Status linear_absorb(const LinearAbsorbArgs& args) {
  const int64_t P = args.head_size, heads = args.k.cols / P, states = args.state.rows / (2 * P);
  const int64_t n = args.k.rows / (states / heads);  // rows of a sequence
  parallel_for(states, [&](int64_t i) {
    LinearScratch& scratch = scratch_for(P);
    const int64_t h = i % heads, first = i / heads * n;
    for (int64_t begin = 0; begin < n; begin += LinearPlan::tile) {
      const int64_t rows = std::min(LinearPlan::tile, n - begin);
      softmax_features(rows, P, args.k.row(first + begin) + h * P, args.k.stride, scratch.k.data());
      sgemm_on_this_thread(true, false, 2 * P, P, rows, 1.0f, scratch.k.data(), 2 * P,
                           args.v.row(first + begin) + h * P, args.v.stride, 1.0f, args.state.row(i * 2 * P),
                           args.state.stride);
    }
  });
  return ok();
}

Status linear_read(const LinearReadArgs& args) {
  const int64_t P = args.head_size, heads = args.q.cols / P, kv_heads = args.state.rows / (2 * P) / args.q.rows;
  parallel_ranges(args.q.rows * heads, std::max<int64_t>(1, 65536 / (P * P)), [&](int64_t first, int64_t last) {
    LinearScratch& scratch = scratch_for(P);
    for (int64_t i = first; i < last; ++i) {
      const int64_t b = i / heads, h = i % heads;
      softmax_features(1, P, args.q.row(b) + h * P, P, scratch.q.data());
      sgemm_on_this_thread(false, false, 1, P, 2 * P, 1.0f, scratch.q.data(), 2 * P,
                           args.state.row((b * kv_heads + h % kv_heads) * 2 * P), args.state.stride, 0.0f,
                           args.out.row(b) + h * P, P);
    }
  });
  return ok();
}

}  // namespace rat::kernels::cpu
