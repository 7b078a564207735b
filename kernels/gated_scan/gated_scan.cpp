#include "kernels/gated_scan/gated_scan.h"

namespace rat::kernels {
namespace {

Status check_sizes(const char* op, const Input& gate, const Input& input, int64_t tokens, int64_t chunk_len) {
  if (chunk_len < 1)
    return fail(ErrorCode::invalid_argument, "{}: chunk_len is {}; it must be at least 1", op, chunk_len);
  if (tokens < 1 || gate.rows % tokens != 0)
    return fail(ErrorCode::shape_mismatch, "{}: {} rows are not whole sequences of {} tokens", op, gate.rows, tokens);
  if (input.cols < 1 || gate.cols % input.cols != 0)
    return fail(ErrorCode::shape_mismatch, "{}: the input width {} does not divide the gate width {}", op, input.cols,
                gate.cols);
  return ok();
}

}  // namespace

Status gated_scan(const GatedScanArgs& args, const Exec& exec) {
  constexpr const char* op = "gated_scan";
  RAT_TRY(check_sizes(op, args.gate, args.input, args.tokens, args.chunk_len));
  RAT_TRY(expect_shape(op, "gate", args.gate, args.gate.rows, args.gate.cols));
  RAT_TRY(expect_shape(op, "input", args.input, args.gate.rows, args.input.cols));
  RAT_TRY(expect_shape(op, "state", args.state, args.gate.rows, args.gate.cols));
  if (args.previous.data != nullptr)
    RAT_TRY(expect_shape(op, "previous", args.previous, args.gate.rows / args.tokens, args.gate.cols));
  return exec.run(&Backend::gated_scan, op, args);
}

Status gated_scan_backward(const GatedScanBackwardArgs& args, const Exec& exec) {
  constexpr const char* op = "gated_scan_backward";
  const int64_t rows = args.gate.rows, channels = args.gate.cols;
  RAT_TRY(check_sizes(op, args.gate, args.input, args.tokens, args.chunk_len));
  RAT_TRY(expect_shape(op, "gate", args.gate, rows, channels));
  RAT_TRY(expect_shape(op, "input", args.input, rows, args.input.cols));
  RAT_TRY(expect_shape(op, "state", args.state, rows, channels));
  RAT_TRY(expect_shape(op, "grad_state", args.grad_state, rows, channels));
  RAT_TRY(expect_shape(op, "grad_input", args.grad_input, rows, args.input.cols));
  RAT_TRY(expect_shape(op, "grad_gate", args.grad_gate, rows, channels));
  return exec.run(&Backend::gated_scan_backward, op, args);
}

}  // namespace rat::kernels
