// Backward attention. Weights are recomputed from the log-sum-exp; with m[t] = grad_out[t] . out[t], every score's
// gradient is p (dp - m), the own key's included, because the softmax is joint.
//
// Heads that share queries or keys are one group. The queries of a group are cut into parts, by shape alone, when there
// are too few groups to keep several cores busy; a part sums its gradients of keys and values apart, and the parts are
// added in order. So no sum depends on the number of threads.
#include "kernels/base/parallel.h"
#include "kernels/cpu_ops.h"
#include "kernels/range_attention/query_block.h"

namespace rat::kernels::cpu {
namespace {

constexpr int64_t wanted_units = 16;

// How the work is cut.
struct Plan {
  int64_t groups, heads_per_group;
  int64_t rows, blocks;             // of queries
  int64_t parts, blocks_per_part;   // of a group's queries
  int64_t kv_slots;                 // heads of a group that have keys of their own

  explicit Plan(const RangeAttentionArgs& a) {
    const AttentionShape& s = a.shape;
    groups = std::min(a.q.cols, s.kv_columns()) / s.head_size;
    heads_per_group = s.heads / groups;
    kv_slots = s.kv_columns() < s.channels() ? 1 : heads_per_group;
    rows = query_rows(a);
    blocks = (s.tokens + rows - 1) / rows;
    const int64_t wanted = (wanted_units + s.batch * groups - 1) / (s.batch * groups);
    blocks_per_part = (blocks + wanted - 1) / wanted;
    parts = (blocks + blocks_per_part - 1) / blocks_per_part;
  }
  int64_t first_token(int64_t part) const { return part * blocks_per_part * rows; }
  int64_t last_token(int64_t part, int64_t tokens) const { return std::min(first_token(part + 1), tokens); }  // past it
};

// Gradients of the keys that one part sees in one segment: (kv_slots, keys, P) for k and again for v.
struct Partial {
  int64_t first = 0, last = 0;  // keys
  int64_t at = 0;               // in the buffer
  int64_t keys() const { return last - first; }
};

class Backward {
 public:
  explicit Backward(const RangeAttentionBackwardArgs& args) : args_(args), a_(args.forward), plan_(a_) {}

  void run() {
    if (a_.own_k.data != nullptr) own_keys();
    if (plan_.parts > 1) lay_out();
    // The last parts see the most keys: they go first.
    parallel_for(a_.shape.batch * plan_.groups * plan_.parts, [&](int64_t i) {
      const int64_t bg = i % (a_.shape.batch * plan_.groups), part = plan_.parts - 1 - i / (a_.shape.batch * plan_.groups);
      part_of_group(bg / plan_.groups, bg % plan_.groups, part);
    });
    for (int64_t s = 0; s < a_.segments() && plan_.parts > 1; ++s) add_parts(s);
  }

 private:
  int64_t head_size() const { return a_.shape.head_size; }

  // Every token's own key, before gradients of other keys are added on top.
  void own_keys() {
    parallel_for(a_.shape.batch * plan_.groups * plan_.blocks, [&](int64_t i) {
      const int64_t bg = i / plan_.blocks;
      for (int64_t k = 0; k < plan_.heads_per_group; ++k)
        own_keys_of_block({a_, bg / plan_.groups, bg % plan_.groups + k * plan_.groups, i % plan_.blocks * plan_.rows},
                          k > 0 && a_.own_q.cols < a_.shape.channels());
    });
  }

  void own_keys_of_block(const QueryBlock& block, bool add_query) {
    static thread_local std::vector<float> weights, grads;
    const int64_t rows = block.rows(), n = head_size();
    weights.resize(static_cast<std::size_t>(rows)), grads.resize(static_cast<std::size_t>(2 * rows));
    const float scale = score_scale(a_.shape);
    const Input &q = a_.own_q, &k = a_.own_k, &v = a_.own_v, &grad = args_.grad_out;
    const float* lse = block.lse(a_);
    float *weight = weights.data(), *grad_score = grads.data(), *mean = grads.data() + rows;
    dot_rows(rows, n, scale, block.first_row(q), q.stride, block.first_row(k), k.stride, weight);
    dot_rows(rows, n, 1.0f, block.first_row(grad), grad.stride, block.first_row(v), v.stride, grad_score);
    dot_rows(rows, n, 1.0f, block.first_row(grad), grad.stride, block.first_row(a_.out), a_.out.stride, mean);
    for (int64_t r = 0; r < rows; ++r) {
      weight[r] = std::exp(weight[r] - lse[r]);
      grad_score[r] = weight[r] * (grad_score[r] - mean[r]) * scale;
    }
    const Output &to_q = args_.grad_own_q, &to_k = args_.grad_own_k, &to_v = args_.grad_own_v;
    scale_rows(add_query, rows, n, grad_score, block.first_row(k), k.stride, block.first_row(to_q), to_q.stride);
    scale_rows(false, rows, n, grad_score, block.first_row(q), q.stride, block.first_row(to_k), to_k.stride);
    scale_rows(false, rows, n, weight, block.first_row(grad), grad.stride, block.first_row(to_v), to_v.stride);
  }

  // Where each part's own sums lie: one buffer, which belongs to the calling thread and only grows.
  void lay_out() {
    const int64_t groups = a_.shape.batch * plan_.groups, segments = a_.segments();
    partials_.resize(static_cast<std::size_t>(groups * plan_.parts * segments));
    int64_t size = 0;
    for (int64_t i = 0; i < static_cast<int64_t>(partials_.size()); ++i) {
      const int64_t part = i / segments % plan_.parts;
      const KeyRange range = a_.segment(i % segments).range;
      Partial& partial = partials_[static_cast<std::size_t>(i)];
      partial = {range.begin(plan_.first_token(part)), range.end(plan_.last_token(part, a_.shape.tokens) - 1), size};
      size += 2 * plan_.kv_slots * partial.keys() * head_size();
    }
    if (buffer_.size() < static_cast<std::size_t>(size)) buffer_.resize(static_cast<std::size_t>(size));
  }
  const Partial& partial(int64_t bg, int64_t part, int64_t segment) const {
    return partials_[static_cast<std::size_t>((bg * plan_.parts + part) * a_.segments() + segment)];
  }

  // Where the gradients of keys [first, ...) of one head go: rows `stride` apart.
  struct Target {
    float *k, *v;
    int64_t k_stride, v_stride;
  };
  Target target(const QueryBlock& block, int64_t group, int64_t part, int64_t slot, const KeyTile& tile) {
    if (plan_.parts == 1) {
      const KeyGradients grad = args_.segment(tile.segment_index);
      return {grad.k.row(block.b, tile.first) + block.kv_at, grad.v.row(block.b, tile.first) + block.kv_at,
              grad.k.stride, grad.v.stride};
    }
    const Partial& own = partial(block.b * plan_.groups + group, part, tile.segment_index);
    float* k = buffer_.data() + own.at + (slot * own.keys() + tile.first - own.first) * head_size();
    return {k, k + plan_.kv_slots * own.keys() * head_size(), head_size(), head_size()};
  }

  void part_of_group(int64_t b, int64_t group, int64_t part) {
    for (int64_t s = 0; s < a_.segments() && plan_.parts > 1; ++s) {
      const Partial& own = partial(b * plan_.groups + group, part, s);
      std::fill_n(buffer_.data() + own.at, 2 * plan_.kv_slots * own.keys() * head_size(), 0.0f);
    }
    for (int64_t k = 0; k < plan_.heads_per_group; ++k)
      for (int64_t t = plan_.first_token(part); t < plan_.last_token(part, a_.shape.tokens); t += plan_.rows)
        keys_of_block({a_, b, group + k * plan_.groups, t}, group, part, plan_.kv_slots == 1 ? 0 : k,
                      k > 0 && a_.q.cols < a_.shape.channels());
  }

  void keys_of_block(const QueryBlock& block, int64_t group, int64_t part, int64_t slot, bool add_query) {
    static thread_local BlockScratch scratch;
    const int64_t rows = block.rows(), n = head_size();
    const Input& grad_out = args_.grad_out;
    const float* to_out = block.first_row(grad_out);
    float* grad_q = block.first_row(args_.grad_q);
    scratch.fit(rows, 0);
    dot_rows(rows, n, 1.0f, to_out, grad_out.stride, block.first_row(a_.out), a_.out.stride, scratch.mean_grad.data());
    for_each_tile(a_, block, [&](const KeyTile& tile) {
      const ScoreTile weights = tile_scores(a_, block, tile, scratch);
      if (scratch.grad_scores.size() < scratch.scores.size()) scratch.grad_scores.resize(scratch.scores.size());
      float* grad = scratch.grad_scores.data();
      const int64_t keys = tile.keys();
      const Dtype dtype = tile.of_size(a_.dtype);
      gemm_on_this_thread(dtype, false, true, rows, keys, n, 1.0f, to_out, grad_out.stride, tile.v(block),
                          tile.segment.v.stride, false, grad, keys);
      weights_from_lse(weights, block.lse(a_));
      softmax_gradient(weights, grad, scratch.mean_grad.data(), score_scale(a_.shape));
      gemm_on_this_thread(dtype, false, false, rows, n, keys, 1.0f, grad, keys, tile.k(block), tile.segment.k.stride,
                          add_query, grad_q, args_.grad_q.stride);
      add_query = true;
      const Target to = target(block, group, part, slot, tile);
      gemm_on_this_thread(dtype, true, false, keys, n, rows, 1.0f, grad, keys, block.first_row(a_.q), a_.q.stride, true,
                          to.k, to.k_stride);
      gemm_on_this_thread(dtype, true, false, keys, n, rows, 1.0f, weights.scores, keys, to_out, grad_out.stride, true,
                          to.v, to.v_stride);
    });
    for (int64_t r = 0; r < rows && !add_query; ++r) std::fill_n(grad_q + r * args_.grad_q.stride, n, 0.0f);  // no key
  }

  // Adds the parts' sums of one segment, in order, to the caller's.
  void add_parts(int64_t segment) {
    const int64_t keys = a_.segment(segment).keys, groups = a_.shape.batch * plan_.groups;
    const int64_t block = rows_per_block(head_size()), blocks = (keys + block - 1) / block;
    parallel_for(groups * plan_.kv_slots * blocks, [&](int64_t i) {
      const int64_t bg = i / blocks / plan_.kv_slots, slot = i / blocks % plan_.kv_slots;
      const int64_t head = bg % plan_.groups + slot * plan_.groups, kv_at = head * head_size() % a_.shape.kv_columns();
      const int64_t from = i % blocks * block, until = std::min(from + block, keys);
      const KeyGradients to = args_.segment(segment);
      for (int64_t part = 0; part < plan_.parts; ++part) {
        const Partial& own = partial(bg, part, segment);
        const int64_t first = std::max(from, own.first), count = std::min(until, own.last) - first;
        if (count <= 0) continue;
        const float* k = buffer_.data() + own.at + (slot * own.keys() + first - own.first) * head_size();
        add_rows(count, k, to.k.row(bg / plan_.groups, first) + kv_at, to.k.stride);
        add_rows(count, k + plan_.kv_slots * own.keys() * head_size(), to.v.row(bg / plan_.groups, first) + kv_at,
                 to.v.stride);
      }
    });
  }
  void add_rows(int64_t rows, const float* from, float* to, int64_t stride) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < head_size(); ++i) to[r * stride + i] += from[r * head_size() + i];
  }

  const RangeAttentionBackwardArgs& args_;
  const RangeAttentionArgs& a_;
  Plan plan_;
  static thread_local std::vector<Partial> partials_storage_;
  static thread_local std::vector<float> buffer_storage_;
  std::vector<Partial>& partials_ = partials_storage_;
  std::vector<float>& buffer_ = buffer_storage_;
};

thread_local std::vector<Partial> Backward::partials_storage_;
thread_local std::vector<float> Backward::buffer_storage_;

}  // namespace

Status range_attention_backward(const RangeAttentionBackwardArgs& args) {
  Backward(args).run();
  return ok();
}

}  // namespace rat::kernels::cpu
