#include "kernels/range_attention/range_attention.h"

namespace rat::kernels {
namespace {

// Everything but the outputs, which differ between forward, backward and display.
Status check_inputs(const char* op, const RangeAttentionArgs& a) {
  const AttentionShape& s = a.shape;
  if (s.batch < 1 || s.tokens < 1 || s.heads < 1 || s.head_size < 1)
    return fail(ErrorCode::shape_mismatch, "{}: batch {}, tokens {}, heads {} and head size {} must be at least 1", op,
                s.batch, s.tokens, s.heads, s.head_size);
  if (s.range.chunk_len < 1 || s.range.end(s.tokens - 1) > s.keys)
    return fail(ErrorCode::shape_mismatch, "{}: the last of {} tokens sees {} keys but there are {}", op, s.tokens,
                s.range.chunk_len < 1 ? -1 : s.range.end(s.tokens - 1), s.keys);
  const int64_t rows = s.batch * s.tokens, width = a.q.cols;
  if (s.keys > 0 && (a.k.data == nullptr || a.v.data == nullptr))
    return fail(ErrorCode::invalid_argument, "{}: keys or values have no memory", op);
  if (width < 1 || s.channels() % width != 0 || width % s.head_size != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of size {} cannot share queries of width {}", op, s.heads,
                s.head_size, width);
  RAT_TRY(expect_shape(op, "q", a.q, rows, width));
  if (a.own_k.data == nullptr) {
    if (s.range.end(0) < 1) return fail(ErrorCode::invalid_argument, "{}: token 0 sees no key at all", op);
    return ok();
  }
  RAT_TRY(expect_shape(op, "own_q", a.own_q, rows, width));
  RAT_TRY(expect_shape(op, "own_k", a.own_k, rows, s.channels()));
  return expect_shape(op, "own_v", a.own_v, rows, s.channels());
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
  if (f.shape.keys > 0 && (args.grad_k.data == nullptr || args.grad_v.data == nullptr))
    return fail(ErrorCode::invalid_argument, "{}: gradients of keys or values have no memory", op);
  return exec.run(&Backend::range_attention_backward, op, args);
}

Status attention_weights(const AttentionWeightsArgs& args, const Exec& exec) {
  constexpr const char* op = "attention_weights";
  const AttentionShape& s = args.forward.shape;
  RAT_TRY(check_inputs(op, args.forward));
  RAT_TRY(expect_shape(op, "weights", args.weights, s.batch * s.heads * s.tokens,
                       s.keys + (args.forward.own_k.data != nullptr ? 1 : 0)));
  return exec.run(&Backend::attention_weights, op, args);
}

Status attend_one(const AttendOneArgs& args, const Exec& exec) {
  constexpr const char* op = "attend_one";
  const int64_t channels = args.out.cols, width = args.q.cols;
  if (args.heads < 1 || channels % args.heads != 0 || width < 1 || channels % width != 0 ||
      width % (channels / args.heads) != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of {} channels cannot read queries of width {}", op,
                args.heads, channels, width);
  if (args.own_k.data == nullptr && args.k.rows == 0)
    return fail(ErrorCode::invalid_argument, "{}: the query sees no key at all", op);
  RAT_TRY(expect_shape(op, "q", args.q, 1, width));
  RAT_TRY(expect_shape(op, "k", args.k, args.k.rows, channels));
  RAT_TRY(expect_shape(op, "v", args.v, args.k.rows, channels));
  RAT_TRY(expect_shape(op, "out", args.out, 1, channels));
  if (args.own_k.data != nullptr) {
    RAT_TRY(expect_shape(op, "own_q", args.own_q, 1, width));
    RAT_TRY(expect_shape(op, "own_k", args.own_k, 1, channels));
    RAT_TRY(expect_shape(op, "own_v", args.own_v, 1, channels));
  }
  return exec.run(&Backend::attend_one, op, args);
}

}  // namespace rat::kernels
