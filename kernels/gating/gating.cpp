#include "kernels/gating/gating.h"

namespace rat::kernels {

Status sigmoid(const SigmoidArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("sigmoid", "x", args.x, args.x.rows, args.x.cols));
  if (!args.bias.empty() && static_cast<int64_t>(args.bias.size()) != args.x.cols)
    return fail(ErrorCode::shape_mismatch, "sigmoid: the bias has {} values but rows have {}", args.bias.size(),
                args.x.cols);
  return exec.run(&Backend::sigmoid, "sigmoid", args);
}

Status output_gate(const OutputGateArgs& args, const Exec& exec) {
  const int64_t rows = args.gate.rows, cols = args.gate.cols;
  RAT_TRY(expect_shape("output_gate", "gate", args.gate, rows, cols));
  RAT_TRY(expect_shape("output_gate", "y", args.y, rows, cols));
  RAT_TRY(expect_shape("output_gate", "mixed", args.mixed, rows, cols));
  return exec.run(&Backend::output_gate, "output_gate", args);
}

Status output_gate_backward(const OutputGateBackwardArgs& args, const Exec& exec) {
  const int64_t rows = args.gate.rows, cols = args.gate.cols;
  RAT_TRY(expect_shape("output_gate_backward", "gate", args.gate, rows, cols));
  RAT_TRY(expect_shape("output_gate_backward", "y", args.y, rows, cols));
  RAT_TRY(expect_shape("output_gate_backward", "grad_mixed", args.grad_mixed, rows, cols));
  RAT_TRY(expect_shape("output_gate_backward", "grad_y", args.grad_y, rows, cols));
  RAT_TRY(expect_shape("output_gate_backward", "grad_gate", args.grad_gate, rows, cols));
  return exec.run(&Backend::output_gate_backward, "output_gate_backward", args);
}

Status gate_gradient(const GateGradientArgs& args, const Exec& exec) {
  RAT_TRY(expect_shape("gate_gradient", "gate", args.gate, args.gate.rows, args.gate.cols));
  RAT_TRY(expect_shape("gate_gradient", "grad", args.grad, args.gate.rows, args.gate.cols));
  if (static_cast<int64_t>(args.grad_bias.size()) != args.gate.cols)
    return fail(ErrorCode::shape_mismatch, "gate_gradient: grad_bias has {} values but rows have {}",
                args.grad_bias.size(), args.gate.cols);
  return exec.run(&Backend::gate_gradient, "gate_gradient", args);
}

}  // namespace rat::kernels
