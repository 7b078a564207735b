// Gated linear recurrence inside each chunk; the state restarts at every chunk boundary.
//
//   state[b,t,d] = gate[b,t,d] * state[b,t-1,d] + (1 - gate[b,t,d]) * input[b,t,d % W]
//   with state[b,t-1,d] = 0 whenever t % L == 0
//
// Source: Wei et al., RAT, arXiv:2507.04416, the two lines marked "Intra-chunk RNN" (g there, gate here).
// Shapes: gate, state (B*T, D); input (B*T, W) with W dividing D: keys shared by groups of heads are read by every head
//         of the group (head h reads group h % G, so channel d reads column d % W). Row b*T + t is token t of sequence
//         b.
// Trap:   gate multiplies the OLD state. GLA-style code passes log(gate); this op takes gate itself, in [0, 1].
// Cost:   4 flops per element; memory-bound on every device.
#pragma once

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

struct GatedScanArgs {
  Input gate;             // (B*T, D)
  Input input;            // (B*T, W)
  Output state;           // (B*T, D) out; every element written; no overlap with the inputs
  int64_t tokens = 0;     // T
  int64_t chunk_len = 0;  // L; the last chunk may be shorter
  Input previous = {};    // (B, D) the state that each sequence's first chunk goes on from, may be `state`; none: 0
};

// Gradients of sum(state * grad_state):
//   carried[t] = grad_state[t] + gate[t+1] * carried[t+1]      (inside the chunk)
//   grad_input = sum over the channels that read it of (1 - gate) * carried
//   grad_gate  = (state[t-1] - input[t]) * carried
struct GatedScanBackwardArgs {
  Input gate, input, state;
  Input grad_state;            // (B*T, D)
  Output grad_input;           // (B*T, W) out
  Output grad_gate;            // (B*T, D) out
  bool add_grad_gate = false;  // add to grad_gate: the gate of keys and values is the same
  int64_t tokens = 0;
  int64_t chunk_len = 0;
};

[[nodiscard]] Status gated_scan(const GatedScanArgs& args, const Exec& exec);
[[nodiscard]] Status gated_scan_backward(const GatedScanBackwardArgs& args, const Exec& exec);

}  // namespace rat::kernels
