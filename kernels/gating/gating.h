// The sigmoid gates of the recurrent mixers: activation in place, the output gate, and their gradients.
//
//   sigmoid:      x = 1 / (1 + exp(-(x + bias)))
//   output_gate:  mixed = gate * y
//
// Shapes: all (N, D); bias (D) or empty.
// Trap: gradients are with respect to the value BEFORE the sigmoid, written in terms of the gate after it.
#pragma once

#include <span>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct SigmoidArgs {
  Output x;  // in place
  std::span<const float> bias;
};

struct OutputGateArgs {
  Input gate, y;
  Output mixed;
};

// grad_y = gate * grad_mixed; grad_gate = grad_mixed * y * gate * (1 - gate).
struct OutputGateBackwardArgs {
  Input gate, y, grad_mixed;
  Output grad_y;
  Output grad_gate;
};

// In place grad *= gate * (1 - gate); grad_bias[d] += sum over rows.
struct GateGradientArgs {
  Input gate;
  Output grad;
  std::span<float> grad_bias;
};

[[nodiscard]] Status sigmoid(const SigmoidArgs& args, const Exec& exec);
[[nodiscard]] Status output_gate(const OutputGateArgs& args, const Exec& exec);
[[nodiscard]] Status output_gate_backward(const OutputGateBackwardArgs& args, const Exec& exec);
[[nodiscard]] Status gate_gradient(const GateGradientArgs& args, const Exec& exec);

}  // namespace rat::kernels
