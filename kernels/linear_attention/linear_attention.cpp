#include "kernels/linear_attention/linear_attention.h"

namespace rat::kernels {
namespace {

Status check(const char* op, const LinearAttentionArgs& a) {
  if (a.tokens < 1 || a.heads < 1 || a.head_size < 1 || a.shift < 0)
    return fail(ErrorCode::shape_mismatch,
                "{}: tokens {}, heads {} and head size {} must be at least 1, and the shift {} at least 0", op,
                a.tokens, a.heads, a.head_size, a.shift);
  const int64_t rows = a.q.rows, channels = a.heads * a.head_size, kv = a.k.cols;
  if (rows < 1 || rows % a.tokens != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} rows are not sequences of {} tokens", op, rows, a.tokens);
  if (kv < 1 || channels % kv != 0 || kv % a.head_size != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} heads of size {} cannot share keys of width {}", op, a.heads,
                a.head_size, kv);
  RAT_TRY(expect_shape(op, "q", a.q, rows, channels));
  RAT_TRY(expect_shape(op, "k", a.k, rows, kv));
  return expect_shape(op, "v", a.v, rows, kv);
}

// `rows` of keys or queries, as many for each sequence that has a state.
Status check_state(const char* op, int64_t head_size, const Input& state, int64_t kv, int64_t rows) {
  if (head_size < 1 || kv < 1 || kv % head_size != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} columns are not heads of size {}", op, kv, head_size);
  const int64_t batch = state.rows / (2 * kv);
  if (batch < 1 || rows % batch != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} rows are not the same number for each of {} states", op, rows,
                batch);
  return expect_shape(op, "state", state, batch * 2 * kv, head_size);
}

}  // namespace

Status linear_attention(const LinearAttentionArgs& args, const Exec& exec) {
  RAT_TRY(check("linear_attention", args));
  RAT_TRY(expect_shape("linear_attention", "out", args.out, args.q.rows, args.q.cols));
  return exec.run(&Backend::linear_attention, "linear_attention", args);
}

Status linear_attention_backward(const LinearAttentionBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "linear_attention_backward";
  const LinearAttentionArgs& f = args.forward;
  RAT_TRY(check(op, f));
  RAT_TRY(expect_shape(op, "grad_out", args.grad_out, f.q.rows, f.q.cols));
  RAT_TRY(expect_shape(op, "grad_q", args.grad_q, f.q.rows, f.q.cols));
  RAT_TRY(expect_shape(op, "grad_k", args.grad_k, f.q.rows, f.k.cols));
  RAT_TRY(expect_shape(op, "grad_v", args.grad_v, f.q.rows, f.k.cols));
  return exec.run(&Backend::linear_attention_backward, op, args);
}

Status linear_weights(const LinearWeightsArgs& args, const Exec& exec) {
  constexpr const char* op = "linear_weights";
  RAT_TRY(check(op, args.forward));
  RAT_TRY(expect_shape(op, "weights", args.weights, args.forward.q.rows * args.forward.heads, args.forward.tokens));
  return exec.run(&Backend::linear_weights, op, args);
}

Status linear_absorb(const LinearAbsorbArgs& args, const Exec& exec) {
  RAT_TRY(check_state("linear_absorb", args.head_size, args.state, args.k.cols, args.k.rows));
  RAT_TRY(expect_shape("linear_absorb", "k", args.k, args.k.rows, args.k.cols));
  RAT_TRY(expect_shape("linear_absorb", "v", args.v, args.k.rows, args.k.cols));
  return exec.run(&Backend::linear_absorb, "linear_absorb", args);
}

Status linear_read(const LinearReadArgs& args, const Exec& exec) {
  constexpr const char* op = "linear_read";
  const int64_t batch = args.q.rows, kv = batch > 0 ? args.state.rows / 2 / batch : 0;
  RAT_TRY(check_state(op, args.head_size, args.state, kv, batch));
  if (args.q.cols % kv != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} channels cannot share the state of {}", op, args.q.cols, kv);
  RAT_TRY(expect_shape(op, "q", args.q, batch, args.q.cols));
  RAT_TRY(expect_shape(op, "out", args.out, batch, args.q.cols));
  return exec.run(&Backend::linear_read, op, args);
}

}  // namespace rat::kernels
