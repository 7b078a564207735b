// A recurrence over whole sequences in segments of tokens that are walked side by side, twice: for what each makes of a
// state, and, once those were joined in order, from the state that each starts with. Results do not depend on timing.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda::segments {

constexpr int kThreads = 128;
constexpr int kSegment = 32;  // tokens
constexpr int kAhead = 8;     // tokens whose rows a thread asks for at a time

RAT_HD inline int64_t segments_of(int64_t tokens) { return (tokens + kSegment - 1) / kSegment; }
inline unsigned blocks_of(int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

// The gate and 1 - gate, each to its last digits where it is small: over a whole sequence both count.
struct Gate {
  float open, shut;
  __device__ explicit Gate(float g) {
    const float e = __expf(fminf(g, 80.0f));  // beyond it e * 0 is no number
    shut = __fdividef(1.0f, 1.0f + e);
    open = e * shut;
  }
};

// Ends of segments, (decay, what is added to each of the states) of (segments of all sequences, D) each, become the
// states that segments start from, from the first on or, backward, from the last. A thread has one channel of one
// sequence.
template <int kStates, bool kBackward>
__global__ void __launch_bounds__(kThreads) join_kernel(int64_t batch, int64_t segments, int64_t D, float* ends) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x, plane = batch * segments * D;
  if (item >= batch * D) return;
  const int64_t first = item / D * segments * D + item % D;
  const auto cell = [&](int64_t i) { return first + (kBackward ? segments - 1 - i : i) * D; };
  float state[kStates] = {};
  for (int64_t begin = 0; begin < segments; begin += kAhead) {
    float decay[kAhead], added[kStates][kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int64_t from = cell(min(begin + u, segments - 1));
      decay[u] = ends[from];
#pragma unroll
      for (int i = 0; i < kStates; ++i) added[i][u] = ends[(i + 1) * plane + from];
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (begin + u >= segments) break;
#pragma unroll
      for (int i = 0; i < kStates; ++i) {
        ends[(i + 1) * plane + cell(begin + u)] = state[i];
        state[i] = fmaf(decay[u], state[i], added[i][u]);
      }
    }
  }
}

template <int kStates, bool kBackward>
Status join(const char* op, int64_t batch, int64_t tokens, int64_t channels, float* ends, cudaStream_t stream) {
  join_kernel<kStates, kBackward>
      <<<blocks_of(batch * channels), kThreads, 0, stream>>>(batch, segments_of(tokens), channels, ends);
  return launched(op);
}

}  // namespace rat::kernels::cuda::segments
