#include "kernels/range_attention/range_attention.h"

namespace rat::kernels {
namespace {

Status check_segment(const char* op, const KeySegment& segment, int64_t tokens, int64_t index) {
  if (segment.range.chunk_len < 1 || segment.range.first < 0 || segment.range.end(tokens - 1) > segment.keys)
    return fail(ErrorCode::shape_mismatch, "{}: the last of {} tokens sees {} keys of segment {} but there are {}", op,
                tokens, segment.range.chunk_len < 1 ? -1 : segment.range.end(tokens - 1), index, segment.keys);
  if (segment.keys > 0 && (segment.k.data == nullptr || segment.v.data == nullptr))
    return fail(ErrorCode::invalid_argument, "{}: keys or values of segment {} have no memory", op, index);
  return ok();
}

// Everything but the outputs, which differ between forward, backward and display.
Status check_inputs(const char* op, const RangeAttentionArgs& a) {
  const AttentionShape& s = a.shape;
  if (s.batch < 1 || s.tokens < 1 || s.heads < 1 || s.head_size < 1)
    return fail(ErrorCode::shape_mismatch, "{}: batch {}, tokens {}, heads {} and head size {} must be at least 1", op,
                s.batch, s.tokens, s.heads, s.head_size);
  if (a.more_count < 0 || a.more_count > static_cast<int64_t>(a.more.size()))
    return fail(ErrorCode::invalid_argument, "{}: {} further segments of keys; there may be 0 to {}", op, a.more_count,
                a.more.size());
  for (int64_t i = 0; i < a.segments(); ++i) RAT_TRY(check_segment(op, a.segment(i), s.tokens, i));
  const int64_t rows = s.batch * s.tokens, width = a.q.cols, kv = s.kv_columns();
  if (width < 1 || s.channels() % width != 0 || width % s.head_size != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of size {} cannot share queries of width {}", op, s.heads,
                s.head_size, width);
  if (s.channels() % kv != 0 || kv % s.head_size != 0 || (kv != s.channels() && width != s.channels()))
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of size {} with queries of width {} cannot share keys of {}",
                op, s.heads, s.head_size, width, kv);
  RAT_TRY(expect_shape(op, "q", a.q, rows, width));
  if (a.own_k.data == nullptr) {
    for (int64_t i = 0; i < a.segments(); ++i)
      if (a.segment(i).range.begin(0) < a.segment(i).range.end(0)) return ok();
    return fail(ErrorCode::invalid_argument, "{}: token 0 sees no key at all", op);
  }
  RAT_TRY(expect_shape(op, "own_q", a.own_q, rows, width));
  RAT_TRY(expect_shape(op, "own_k", a.own_k, rows, s.channels()));
  return expect_shape(op, "own_v", a.own_v, rows, s.channels());
}

// Columns of the displayed weights, the own key's not counted.
int64_t columns(const RangeAttentionArgs& a) {
  int64_t columns = a.shape.keys;
  for (int64_t i = 1; i < a.segments(); ++i) {
    const KeySegment segment = a.segment(i);
    columns = std::max(columns, segment.first_column + (segment.keys - 1) * segment.column_step + 1);
  }
  return columns;
}

}  // namespace

Status range_attention(const RangeAttentionArgs& args, const Exec& exec) {
  constexpr const char* op = "range_attention";
  RAT_TRY(check_inputs(op, args));
  RAT_TRY(expect_shape(op, "out", args.out, args.shape.batch * args.shape.tokens, args.shape.channels()));
  RAT_TRY(expect_shape(op, "lse", args.lse, args.shape.batch * args.shape.heads, args.shape.tokens));
  return exec.run(&Backend::range_attention, op, args);
}

Status range_attention_backward(const RangeAttentionBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "range_attention_backward";
  const RangeAttentionArgs& f = args.forward;
  const int64_t rows = f.shape.batch * f.shape.tokens, channels = f.shape.channels();
  RAT_TRY(check_inputs(op, f));
  RAT_TRY(expect_shape(op, "out", f.out, rows, channels));
  RAT_TRY(expect_shape(op, "lse", f.lse, f.shape.batch * f.shape.heads, f.shape.tokens));
  RAT_TRY(expect_shape(op, "grad_out", args.grad_out, rows, channels));
  RAT_TRY(expect_shape(op, "grad_q", args.grad_q, rows, f.q.cols));
  if (f.own_k.data != nullptr) {
    RAT_TRY(expect_shape(op, "grad_own_q", args.grad_own_q, rows, f.q.cols));
    RAT_TRY(expect_shape(op, "grad_own_k", args.grad_own_k, rows, channels));
    RAT_TRY(expect_shape(op, "grad_own_v", args.grad_own_v, rows, channels));
  }
  for (int64_t i = 0; i < f.segments(); ++i)
    if (f.segment(i).keys > 0 && (args.segment(i).k.data == nullptr || args.segment(i).v.data == nullptr))
      return fail(ErrorCode::invalid_argument, "{}: gradients of keys or values of segment {} have no memory", op, i);
  return exec.run(&Backend::range_attention_backward, op, args);
}

Status attention_weights(const AttentionWeightsArgs& args, const Exec& exec) {
  constexpr const char* op = "attention_weights";
  const AttentionShape& s = args.forward.shape;
  RAT_TRY(check_inputs(op, args.forward));
  RAT_TRY(expect_shape(op, "weights", args.weights, s.batch * s.heads * s.tokens,
                       columns(args.forward) + (args.forward.own_k.data != nullptr ? 1 : 0)));
  return exec.run(&Backend::attention_weights, op, args);
}

Status attend_one(const AttendOneArgs& args, const Exec& exec) {
  constexpr const char* op = "attend_one";
  const int64_t batch = args.q.rows, channels = args.out.cols, width = args.q.cols;
  const int64_t kv = args.k.rows > 0 ? args.k.cols : channels;
  if (args.heads < 1 || channels % args.heads != 0 || width < 1 || channels % width != 0 ||
      width % (channels / args.heads) != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of {} channels cannot read queries of width {}", op,
                args.heads, channels, width);
  if (args.own_k.data == nullptr && args.k.rows == 0)
    return fail(ErrorCode::invalid_argument, "{}: the query sees no key at all", op);
  if (batch < 1 || args.k.rows % batch != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} keys are not the same number for each of {} queries", op,
                args.k.rows, batch);
  RAT_TRY(expect_shape(op, "q", args.q, batch, width));
  if (kv < 1 || channels % kv != 0 || kv % (channels / args.heads) != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of {} channels cannot share keys of width {}", op, args.heads,
                channels, kv);
  RAT_TRY(expect_shape(op, "k", args.k, args.k.rows, kv));
  RAT_TRY(expect_shape(op, "v", args.v, args.k.rows, kv));
  RAT_TRY(expect_shape(op, "out", args.out, batch, channels));
  if (args.own_k.data != nullptr) {
    RAT_TRY(expect_shape(op, "own_q", args.own_q, batch, width));
    RAT_TRY(expect_shape(op, "own_k", args.own_k, batch, channels));
    RAT_TRY(expect_shape(op, "own_v", args.own_v, batch, channels));
  }
  return exec.run(&Backend::attend_one, op, args);
}

}  // namespace rat::kernels
