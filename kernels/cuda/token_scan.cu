#include "kernels/cuda/token_scan.h"

#include "kernels/cuda/segments.cuh"

namespace rat::kernels::cuda {
namespace {

using namespace segments;

// Of a row of D values those of one thread: two neighbours in each half of a head, which rotations turn with each
// other.
struct Quad {
  unsigned low, high;

  __device__ Pack<bf16, 4> packed(const bf16* row) const {
    return {make_uint2(load<2>(row + low).raw, load<2>(row + high).raw)};
  }
  __device__ void read(const bf16* row, float (&out)[4]) const { unpack(packed(row), out); }
  __device__ void write(bf16* row, const float (&in)[4]) const {
    const auto both = pack<bf16, 4>(in);
    *reinterpret_cast<unsigned*>(row + low) = both.raw.x;
    *reinterpret_cast<unsigned*>(row + high) = both.raw.y;
  }
  __device__ void read(const float* row, float (&out)[4]) const {
    const float2 first = *reinterpret_cast<const float2*>(row + low),
                 second = *reinterpret_cast<const float2*>(row + high);
    out[0] = first.x, out[1] = first.y, out[2] = second.x, out[3] = second.y;
  }
  __device__ void write(float* row, const float (&in)[4]) const {
    *reinterpret_cast<float2*>(row + low) = make_float2(in[0], in[1]);
    *reinterpret_cast<float2*>(row + high) = make_float2(in[2], in[3]);
  }
};

// Which segment of which sequence a thread walks, and which channels of it.
struct Place {
  Quad quad;
  int64_t row0, segment;  // its first row; its number among those of all sequences
  int token0, count, pair;
  bool exists;

  __device__ explicit Place(const RatShape& s) {
    const unsigned quads = static_cast<unsigned>(s.channels() / 4), per_head = static_cast<unsigned>(s.head_size / 4);
    const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x, segments = segments_of(s.tokens);
    const unsigned mine = static_cast<unsigned>(item % quads);
    segment = item / quads;
    exists = segment < s.batch * segments;
    pair = static_cast<int>(mine % per_head * 2);
    quad.low = mine / per_head * static_cast<unsigned>(s.head_size) + static_cast<unsigned>(pair);
    quad.high = quad.low + static_cast<unsigned>(s.head_size / 2);
    token0 = static_cast<int>(segment % segments * kSegment);
    count = static_cast<int>(min(int64_t{kSegment}, s.tokens - token0));
    row0 = segment / segments * s.tokens + token0;
  }
};

// What a segment makes of a state: (decay, added key, added value), each (segments of all sequences, D). Once they are
// joined, the latter two are the states that segments start from.
struct Ends {
  float *decay, *k, *v;
  int64_t D;

  __device__ Ends(float* workspace, const RatShape& s) : D(s.channels()) {
    const int64_t plane = s.batch * segments_of(s.tokens) * D;
    decay = workspace, k = workspace + plane, v = workspace + 2 * plane;
  }
  __device__ void write(const Place& at, const float (&decays)[4], const float (&k_end)[4],
                        const float (&v_end)[4]) const {
    at.quad.write(decay + at.segment * D, decays);
    at.quad.write(k + at.segment * D, k_end);
    at.quad.write(v + at.segment * D, v_end);
  }
  __device__ void read(const Place& at, float (&k_state)[4], float (&v_state)[4]) const {
    at.quad.read(k + at.segment * D, k_state);
    at.quad.read(v + at.segment * D, v_state);
  }
};

// Rows of a projected tensor.
struct Columns {
  const bf16 *k, *v, *g;
  int64_t stride;
  __device__ Columns(const TokenScanArgs& a, const Place& at) : stride(a.proj_stride) {
    const bf16* row = a.proj + at.row0 * stride;
    const int64_t D = a.shape.channels();
    k = row + 2 * D, v = row + 3 * D, g = row + 4 * D;
  }
};

// What kAhead tokens from `first` on bring to the states; beyond the segment its last token again.
struct Inputs {
  Pack<bf16, 4> k[kAhead], v[kAhead], g[kAhead];

  __device__ __forceinline__ Inputs(const Columns& in, const Place& at, int first) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int64_t row = min(first + u, at.count - 1) * in.stride;
      k[u] = at.quad.packed(in.k + row), v[u] = at.quad.packed(in.v + row), g[u] = at.quad.packed(in.g + row);
    }
  }
};

__device__ __forceinline__ void turn(float (&x)[4], const float4& by, float direction) {
  const float sine[2] = {by.y * direction, by.w * direction}, cosine[2] = {by.x, by.z};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float low = x[i], high = x[i + 2];
    x[i] = low * cosine[i] - high * sine[i];
    x[i + 2] = high * cosine[i] + low * sine[i];
  }
}
// cos, sin of the two pairs at a token.
__device__ __forceinline__ float4 turns_at(const float2* rope, int64_t token, int half, int pair) {
  return *reinterpret_cast<const float4*>(rope + token * half + pair);
}

__global__ void __launch_bounds__(kThreads) segment_ends_kernel(TokenScanArgs a) {
  const Place at(a.shape);
  if (!at.exists) return;
  const Columns in(a, at);
  float decay[4] = {1, 1, 1, 1}, k_end[4] = {}, v_end[4] = {};
  for (int first = 0; first < at.count; first += kAhead) {
    const Inputs rows(in, at, first);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u >= at.count) break;
      float key[4], value[4], gate[4];
      unpack(rows.k[u], key), unpack(rows.v[u], value), unpack(rows.g[u], gate);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float shut = Gate(gate[i]).shut;
        decay[i] = fmaf(-shut, decay[i], decay[i]);
        k_end[i] = fmaf(-shut, k_end[i] - key[i], k_end[i]);
        v_end[i] = fmaf(-shut, v_end[i] - value[i], v_end[i]);
      }
    }
  }
  Ends(a.workspace, a.shape).write(at, decay, k_end, v_end);
}

__global__ void __launch_bounds__(kThreads) scan_segments_kernel(TokenScanArgs a) {
  const Place at(a.shape);
  if (!at.exists) return;
  const Columns in(a, at);
  const int64_t D = a.shape.channels();
  const int half = static_cast<int>(a.shape.head_size) / 2;
  bf16 *queries = a.proj + at.row0 * in.stride + D, *keys = a.keys + at.row0 * D, *values = a.values + at.row0 * D;
  float k_state[4], v_state[4];
  Ends(a.workspace, a.shape).read(at, k_state, v_state);
  for (int first = 0; first < at.count; first += kAhead) {
    const Inputs rows(in, at, first);
    Pack<bf16, 4> q[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) q[u] = at.quad.packed(queries + min(first + u, at.count - 1) * in.stride);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (first + u >= at.count) break;
      float key[4], value[4], gate[4];
      unpack(rows.k[u], key), unpack(rows.v[u], value), unpack(rows.g[u], gate);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float shut = Gate(gate[i]).shut;
        key[i] = k_state[i] = fmaf(-shut, k_state[i] - key[i], k_state[i]);
        v_state[i] = fmaf(-shut, v_state[i] - value[i], v_state[i]);
      }
      if (a.rope != nullptr) {
        float query[4];
        unpack(q[u], query);
        const float4 by = turns_at(a.rope, at.token0 + first + u, half, at.pair);
        turn(key, by, 1.0f), turn(query, by, 1.0f);
        at.quad.write(queries + (first + u) * in.stride, query);
      }
      at.quad.write(keys + (first + u) * D, key);
      at.quad.write(values + (first + u) * D, v_state);
    }
  }
  if (a.state_k == nullptr || at.token0 + at.count < a.shape.tokens) return;
  const int64_t sequence = at.row0 / a.shape.tokens;
  at.quad.write(a.state_k + sequence * D, k_state);
  at.quad.write(a.state_v + sequence * D, v_state);
}

// What a segment makes of the gradient that comes from behind it: gate[t] c[t] at its first token.
__global__ void __launch_bounds__(kThreads) gradient_ends_kernel(TokenScanBackwardArgs a) {
  const Place at(a.forward.shape);
  if (!at.exists) return;
  const Columns in(a.forward, at);
  const int64_t D = a.forward.shape.channels();
  const bf16 *to_k = a.grad_keys + at.row0 * D, *to_v = a.grad_values + at.row0 * D;
  float decay[4] = {1, 1, 1, 1}, k_end[4] = {}, v_end[4] = {};
  for (int last = at.count - 1; last >= 0; last -= kAhead) {
    Pack<bf16, 4> k[kAhead], v[kAhead], g[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int t = max(last - u, 0);
      k[u] = at.quad.packed(to_k + t * D), v[u] = at.quad.packed(to_v + t * D),
      g[u] = at.quad.packed(in.g + t * in.stride);
    }
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if (last - u < 0) break;
      float key[4], value[4], gate[4];
      unpack(k[u], key), unpack(v[u], value), unpack(g[u], gate);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float open = Gate(gate[i]).open;
        decay[i] *= open;
        k_end[i] = open * (key[i] + k_end[i]), v_end[i] = open * (value[i] + v_end[i]);
      }
    }
  }
  Ends(a.forward.workspace, a.forward.shape).write(at, decay, k_end, v_end);
}

// One token of a segment on the way back, as it is asked for and as it is used.
struct GradientRow {
  Pack<bf16, 4> g, k, v, to_k, to_v, k_before, v_before;
};

__global__ void __launch_bounds__(kThreads) scan_gradient_kernel(TokenScanBackwardArgs a) {
  constexpr int ahead = 4;
  const TokenScanArgs& f = a.forward;
  const Place at(f.shape);
  if (!at.exists) return;
  const Columns in(f, at);
  const int64_t D = f.shape.channels();
  const int half = static_cast<int>(f.shape.head_size) / 2;
  const bf16 *keys = f.keys + at.row0 * D, *values = f.values + at.row0 * D;
  const bf16 *to_k = a.grad_keys + at.row0 * D, *to_v = a.grad_values + at.row0 * D;
  bf16* out = a.grad_proj + at.row0 * a.grad_proj_stride;
  float k_carry[4], v_carry[4];
  Ends(f.workspace, f.shape).read(at, k_carry, v_carry);
  for (int last = at.count - 1; last >= 0; last -= ahead) {
    GradientRow rows[ahead];
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int t = max(last - u, 0), before = at.token0 + t > 0 ? t - 1 : t;
      GradientRow& row = rows[u];
      row.g = at.quad.packed(in.g + t * in.stride), row.k = at.quad.packed(in.k + t * in.stride);
      row.v = at.quad.packed(in.v + t * in.stride);
      row.to_k = at.quad.packed(to_k + t * D), row.to_v = at.quad.packed(to_v + t * D);
      row.k_before = at.quad.packed(keys + before * D), row.v_before = at.quad.packed(values + before * D);
    }
#pragma unroll
    for (int u = 0; u < ahead; ++u) {
      const int t = last - u;
      if (t < 0) break;
      float g[4], k[4], v[4], grad_k[4], grad_v[4], k_before[4], v_before[4];
      unpack(rows[u].g, g), unpack(rows[u].k, k), unpack(rows[u].v, v);
      unpack(rows[u].to_k, grad_k), unpack(rows[u].to_v, grad_v);
      unpack(rows[u].k_before, k_before), unpack(rows[u].v_before, v_before);
      const int token = at.token0 + t;
      if (f.rope != nullptr && token > 0) turn(k_before, turns_at(f.rope, token - 1, half, at.pair), -1.0f);
      const float exists = token > 0 ? 1.0f : 0.0f;  // before the first token the states are 0
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const auto [open, shut] = Gate(g[i]);
        const float k_now = grad_k[i] + k_carry[i], v_now = grad_v[i] + v_carry[i];
        g[i] = (fmaf(exists, k_before[i], -k[i]) * k_now + fmaf(exists, v_before[i], -v[i]) * v_now) * open * shut;
        grad_k[i] = shut * k_now, grad_v[i] = shut * v_now;
        k_carry[i] = open * k_now, v_carry[i] = open * v_now;
      }
      bf16* row = out + t * a.grad_proj_stride;
      at.quad.write(row + 2 * D, grad_k);
      at.quad.write(row + 3 * D, grad_v);
      at.quad.write(row + 4 * D, g);
    }
  }
}

Status check(const char* op, const TokenScanArgs& a) {
  RAT_CUDA_TRY(check_shape(op, a.shape));
  const int64_t D = a.shape.channels();
  if (!a.shape.over_tokens() || a.shape.head_size % 4 != 0)
    return refuse("%s: heads of %lld with offset %lld; it scans whole sequences (offset 1), heads of a multiple of 4",
                  op, static_cast<long long>(a.shape.head_size), static_cast<long long>(a.shape.offset));
  if (a.proj_stride < 5 * D || a.proj_stride % 2 != 0)
    return refuse("%s: a row stride of %lld for 5 x %lld columns; at least as many, and even", op,
                  static_cast<long long>(a.proj_stride), static_cast<long long>(D));
  return {};
}

unsigned walks(const RatShape& s) { return blocks_of(s.batch * segments_of(s.tokens) * (s.channels() / 4)); }

}  // namespace

int64_t token_scan_workspace(const RatShape& s) { return 3 * s.batch * segments_of(s.tokens) * s.channels(); }

Status token_scan(const TokenScanArgs& a, cudaStream_t stream) {
  constexpr const char* op = "token_scan";
  RAT_CUDA_TRY(check(op, a));
  segment_ends_kernel<<<walks(a.shape), kThreads, 0, stream>>>(a);
  RAT_CUDA_TRY(launched(op));
  RAT_CUDA_TRY((join<2, false>(op, a.shape.batch, a.shape.tokens, a.shape.channels(), a.workspace, stream)));
  scan_segments_kernel<<<walks(a.shape), kThreads, 0, stream>>>(a);
  return launched(op);
}

Status token_scan_backward(const TokenScanBackwardArgs& a, cudaStream_t stream) {
  constexpr const char* op = "token_scan_backward";
  const RatShape& s = a.forward.shape;
  RAT_CUDA_TRY(check(op, a.forward));
  if (a.grad_proj_stride < 5 * s.channels() || a.grad_proj_stride % 2 != 0)
    return refuse("%s: a row stride of %lld for 5 x %lld gradients; at least as many, and even", op,
                  static_cast<long long>(a.grad_proj_stride), static_cast<long long>(s.channels()));
  gradient_ends_kernel<<<walks(s), kThreads, 0, stream>>>(a);
  RAT_CUDA_TRY(launched(op));
  RAT_CUDA_TRY((join<2, true>(op, s.batch, s.tokens, s.channels(), a.forward.workspace, stream)));
  scan_gradient_kernel<<<walks(s), kThreads, 0, stream>>>(a);
  return launched(op);
}

}  // namespace rat::kernels::cuda
