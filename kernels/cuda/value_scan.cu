#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/segments.cuh"
#include "kernels/cuda/value_scan.h"

namespace rat::kernels::cuda {
namespace {

using namespace segments;

constexpr int kWide = 4;  // channels of a thread

// Which segment of which sequence a thread walks, and which channels of it.
struct Place {
  int64_t row0, segment, column;
  int token0, count;
  bool exists;

  __device__ explicit Place(const ValueScanArgs& a) {
    const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x, all = segments_of(a.tokens),
                  pieces = a.channels / kWide;
    segment = item / pieces, column = item % pieces * kWide;
    exists = segment < a.batch * all;
    token0 = static_cast<int>(segment % all * kSegment);
    count = static_cast<int>(min(int64_t{kSegment}, a.tokens - token0));
    row0 = segment / all * a.tokens + token0;
  }
};

struct Ends {  // (decay, added) of a segment's channels; then the state that it starts from in the second
  float *decay, *added;
  __device__ Ends(const ValueScanArgs& a, const Place& at) {
    const int64_t plane = a.batch * segments_of(a.tokens) * a.channels;
    decay = a.workspace + at.segment * a.channels + at.column, added = decay + plane;
  }
};

// Rows of the projected tensor, of a thread's channels.
struct Columns {
  const bf16 *z, *v, *g;
  int64_t stride;
  __device__ Columns(const ValueScanArgs& a, const Place& at) : stride(3 * a.channels) {
    z = a.proj + at.row0 * stride + at.column, v = z + a.channels, g = v + a.channels;
  }
};

__global__ void __launch_bounds__(kThreads) ends_kernel(ValueScanArgs a) {
  const Place at(a);
  if (!at.exists) return;
  const Columns in(a, at);
  float bias[kWide], decay[kWide] = {1, 1, 1, 1}, end[kWide] = {};
  load<kWide>(a.bias + at.column, bias);
  for (int first = 0; first < at.count; first += kAhead) {
    Pack<bf16, kWide> v[kAhead], g[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int64_t row = min(first + u, at.count - 1) * in.stride;
      v[u] = load<kWide>(in.v + row), g[u] = load<kWide>(in.g + row);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u >= at.count) break;
      float value[kWide], gate[kWide];
      unpack(v[u], value), unpack(g[u], gate);
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float shut = Gate(gate[i] + bias[i]).shut;
        decay[i] = fmaf(-shut, decay[i], decay[i]);
        end[i] = fmaf(-shut, end[i] - value[i], end[i]);
      }
    }
  }
  const Ends ends(a, at);
  store<kWide>(ends.decay, decay);
  store<kWide>(ends.added, end);
}

__global__ void __launch_bounds__(kThreads) scan_kernel(ValueScanArgs a) {
  const Place at(a);
  if (!at.exists) return;
  const Columns in(a, at);
  const int64_t to = at.row0 * a.channels + at.column;
  float bias[kWide], state[kWide];
  load<kWide>(a.bias + at.column, bias);
  load<kWide>(Ends(a, at).added, state);
  for (int first = 0; first < at.count; first += kAhead) {
    Pack<bf16, kWide> z[kAhead], v[kAhead], g[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int64_t row = min(first + u, at.count - 1) * in.stride;
      z[u] = load<kWide>(in.z + row), v[u] = load<kWide>(in.v + row), g[u] = load<kWide>(in.g + row);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u >= at.count) break;
      float y[kWide], value[kWide], gate[kWide];
      unpack(z[u], y), unpack(v[u], value), unpack(g[u], gate);
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        state[i] = fmaf(-Gate(gate[i] + bias[i]).shut, state[i] - value[i], state[i]);
        y[i] = sigmoid<bf16>(y[i]) * state[i];
      }
      store<kWide>(a.states + to + (first + u) * a.channels, state);
      store<kWide>(a.y + to + (first + u) * a.channels, y);
    }
  }
  if (a.last_state != nullptr && at.token0 + at.count == a.tokens)
    store<kWide>(a.last_state + at.row0 / a.tokens * a.channels + at.column, state);
}

// What a segment makes of the gradient that comes from behind it: gate[t] c[t] at its first token.
__global__ void __launch_bounds__(kThreads) gradient_ends_kernel(ValueScanBackwardArgs a) {
  const ValueScanArgs& f = a.forward;
  const Place at(f);
  if (!at.exists) return;
  const Columns in(f, at);
  const bf16* grad_y = a.grad_y + at.row0 * f.channels + at.column;
  float bias[kWide], decay[kWide] = {1, 1, 1, 1}, end[kWide] = {};
  load<kWide>(f.bias + at.column, bias);
  for (int last = at.count - 1; last >= 0; last -= kAhead) {
    Pack<bf16, kWide> z[kAhead], g[kAhead], to_y[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int t = max(last - u, 0);
      z[u] = load<kWide>(in.z + t * in.stride), g[u] = load<kWide>(in.g + t * in.stride);
      to_y[u] = load<kWide>(grad_y + t * f.channels);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (last - u < 0) break;
      float logit[kWide], gate[kWide], grad[kWide];
      unpack(z[u], logit), unpack(g[u], gate), unpack(to_y[u], grad);
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float open = Gate(gate[i] + bias[i]).open;
        decay[i] *= open;
        end[i] = open * fmaf(grad[i], sigmoid<bf16>(logit[i]), end[i]);
      }
    }
  }
  const Ends ends(f, at);
  store<kWide>(ends.decay, decay);
  store<kWide>(ends.added, end);
}

// One token of a segment on the way back, as it is asked for and as it is used.
struct GradientRow {
  Pack<bf16, kWide> z, v, g, grad_y, state, before;
};

__global__ void __launch_bounds__(kThreads) gradient_kernel(ValueScanBackwardArgs a) {
  constexpr int ahead = 4;
  const ValueScanArgs& f = a.forward;
  const Place at(f);
  if (!at.exists) return;
  const Columns in(f, at);
  const int64_t D = f.channels, rows = at.row0 * D + at.column;
  const bf16 *grad_y = a.grad_y + rows, *states = f.states + rows;
  bf16* const out = a.grad_proj + at.row0 * in.stride + at.column;
  const Ends ends(f, at);
  float bias[kWide], carry[kWide], bias_grad[kWide] = {};
  load<kWide>(f.bias + at.column, bias);
  load<kWide>(ends.added, carry);
  for (int last = at.count - 1; last >= 0; last -= ahead) {
    GradientRow asked[ahead];
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int t = max(last - u, 0), before = at.token0 + t > 0 ? t - 1 : t;
      asked[u] = {load<kWide>(in.z + t * in.stride), load<kWide>(in.v + t * in.stride),
                  load<kWide>(in.g + t * in.stride), load<kWide>(grad_y + t * D),
                  load<kWide>(states + t * D),       load<kWide>(states + before * D)};
    }
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int t = last - u;
      if (t < 0) break;
      float z[kWide], v[kWide], g[kWide], grad[kWide], state[kWide], before[kWide];
      unpack(asked[u].z, z), unpack(asked[u].v, v), unpack(asked[u].g, g);
      unpack(asked[u].grad_y, grad), unpack(asked[u].state, state), unpack(asked[u].before, before);
      const float exists = at.token0 + t > 0 ? 1.0f : 0.0f;  // before the first token the state is 0
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        const float seen = sigmoid<bf16>(z[i]), of_gate = grad[i] * state[i] * seen;
        const Gate gate(g[i] + bias[i]);
        const float now = fmaf(grad[i], seen, carry[i]);
        z[i] = fmaf(-seen, of_gate, of_gate);
        g[i] = fmaf(exists, before[i], -v[i]) * now * gate.open * gate.shut;
        v[i] = gate.shut * now;
        carry[i] = gate.open * now;
        bias_grad[i] += g[i];
      }
      bf16* const row = out + t * in.stride;
      store<kWide>(row, z);
      store<kWide>(row + D, v);
      store<kWide>(row + 2 * D, g);
    }
  }
  store<kWide>(ends.decay, bias_grad);  // to be summed over the segments; nothing reads the decays any more
}

__global__ void __launch_bounds__(kThreads) value_step_kernel(const ValueStepArgs a) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= a.batch * a.channels / kWide) return;
  const int64_t b = item * kWide / a.channels, column = item * kWide % a.channels;
  const bf16* const row = a.proj + b * 3 * a.channels + column;
  float state[kWide], bias[kWide], z[kWide], v[kWide], g[kWide];
  load<kWide>(a.state + item * kWide, state);
  load<kWide>(a.bias + column, bias);
  wait_for_previous();
  start_next();
  const bool fresh = *a.position == a.ahead;
  load<kWide>(row, z);
  load<kWide>(row + a.channels, v);
  load<kWide>(row + 2 * a.channels, g);
#pragma unroll
  for (int i = 0; i < kWide; ++i) {
    if (fresh) state[i] = 0.0f;
    state[i] = fmaf(-Gate(g[i] + bias[i]).shut, state[i] - v[i], state[i]);
    z[i] = sigmoid<bf16>(z[i]) * state[i];
  }
  store<kWide>(a.state + item * kWide, state);
  store<kWide>(a.y + item * kWide, z);
}

Status check(const char* op, int64_t batch, int64_t tokens, int64_t channels) {
  if (batch >= 1 && tokens >= 1 && channels >= 8 && channels % 8 == 0) return {};
  return refuse("%s: %lld sequences of %lld tokens and %lld channels; at least 1 each, channels a multiple of 8", op,
                static_cast<long long>(batch), static_cast<long long>(tokens), static_cast<long long>(channels));
}

int64_t all_segments(int64_t batch, int64_t tokens) { return batch * segments_of(tokens); }
unsigned walks(const ValueScanArgs& a) { return blocks_of(all_segments(a.batch, a.tokens) * (a.channels / kWide)); }

}  // namespace

int64_t value_scan_workspace(int64_t batch, int64_t tokens, int64_t channels) {
  const int64_t segments = all_segments(batch, tokens);
  return 2 * segments * channels + column_sums_workspace(segments, channels);
}

Status value_scan(const ValueScanArgs& a, cudaStream_t stream) {
  constexpr const char* op = "value_scan";
  RAT_CUDA_TRY(check(op, a.batch, a.tokens, a.channels));
  ends_kernel<<<walks(a), kThreads, 0, stream>>>(a);
  RAT_CUDA_TRY(launched(op));
  RAT_CUDA_TRY((join<1, false>(op, a.batch, a.tokens, a.channels, a.workspace, stream)));
  scan_kernel<<<walks(a), kThreads, 0, stream>>>(a);
  return launched(op);
}

Status value_scan_backward(const ValueScanBackwardArgs& a, cudaStream_t stream) {
  constexpr const char* op = "value_scan_backward";
  const ValueScanArgs& f = a.forward;
  RAT_CUDA_TRY(check(op, f.batch, f.tokens, f.channels));
  gradient_ends_kernel<<<walks(f), kThreads, 0, stream>>>(a);
  RAT_CUDA_TRY(launched(op));
  RAT_CUDA_TRY((join<1, true>(op, f.batch, f.tokens, f.channels, f.workspace, stream)));
  gradient_kernel<<<walks(f), kThreads, 0, stream>>>(a);
  RAT_CUDA_TRY(launched(op));
  const int64_t segments = all_segments(f.batch, f.tokens);
  return column_sums(f.workspace, segments, f.channels, f.workspace + 2 * segments * f.channels, a.grad_bias, stream,
                     true);
}

Status value_step(const ValueStepArgs& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("value_step", a.batch, 1, a.channels));
  return launch_early({"value_step", blocks_of(a.batch * a.channels / kWide), kThreads, 0, stream}, value_step_kernel, a);
}

}  // namespace rat::kernels::cuda
