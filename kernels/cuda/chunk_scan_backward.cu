// A block is one group of heads of one chunk, a warp (or half of one: `Lanes`) one head at a time. The chunk is walked in segments of S tokens,
// the last first: forwards to recover the states, then backwards. Chunks longer than S first leave the states at the
// segment starts in the workspace. Sums over the heads of the group go through shared memory in a fixed order.
#include <algorithm>

#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// Tokens per segment: what their gates and state differences take in registers decides.
template <class T, int N>
constexpr int kSegment = sizeof(T) * N >= 16 ? 8 : 16;

// Blocks per multiprocessor: for the common bf16 head size of 128 a third one is worth the few registers it spills.
template <class T, int N>
constexpr int kBlocks = sizeof(T) * N == 8 && N == 4 ? 3 : 2;

template <class T>
int64_t segment_tokens(int64_t head_size) {
  const int64_t n = head_size <= 32 ? 1 : std::max<int64_t>(4, head_size / 32);  // channels of a lane, as launched below
  return static_cast<int64_t>(sizeof(T)) * n >= 16 ? 8 : 16;
}

template <class T>
int64_t segments_per_chunk(const RatShape& s) {
  const int64_t tokens = segment_tokens<T>(s.head_size);
  return (std::min(s.chunk_len, s.tokens) + tokens - 1) / tokens;
}

// N > 1: the lanes cover the head, so its size is known to the compiler.
template <int N, int Lanes>
__device__ __forceinline__ int head_size_of(const RatShape& s) {
  return N > 1 ? N * Lanes : static_cast<int>(s.head_size);
}

// Both halves of a warp go through the same steps; one without a head of its own reads that of another and writes nothing.
template <class T, int N, int Lanes>
class HeadWalk {
  static constexpr int S = kSegment<T, N>;

 public:
  __device__ HeadWalk(const ChunkScanBackwardArgs<T>& args, int64_t sequence_chunk, int head, bool exists, int segments)
      : a(args), s(args.shape), h(head), lane(threadIdx.x % Lanes), P(head_size_of<N, Lanes>(s)) {
    chunks = s.chunks();
    b = sequence_chunk / chunks;
    c = sequence_chunk % chunks;
    first = c * s.chunk_len;
    length = static_cast<int>(min(s.chunk_len, s.tokens - first));
    row0 = b * s.tokens + first;
    reads = N > 1 || lane * N < P;
    writes = exists && reads;
    channel = h * P + lane * N;
    shared_channel = (h % static_cast<int>(s.groups)) * P + lane * N;
    scale = rsqrtf(static_cast<float>(P));
    bias_sums = a.workspace + sequence_chunk * s.channels() + channel;
    checkpoints = a.workspace + s.batch * chunks * s.channels() +
                  (sequence_chunk * s.heads + h) * (segments - 1) * 2 * P + lane * N;
#pragma unroll
    for (int i = 0; i < N; ++i) bias[i] = 0.0f;
    if (reads) load<N>(a.gate_bias + channel, bias);
  }

  // States at the starts of segments 1 .. segments-1.
  __device__ void leave_checkpoints() {
    float k_state[N] = {}, v_state[N] = {};
    for (int t = 0; t + 1 < length; ++t) {
      float gate[N], v[N], k[N];
      step(t, gate, v, k);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v_state[i] = fmaf(gate[i], v_state[i] - v[i], v[i]);
        k_state[i] = fmaf(gate[i], k_state[i] - k[i], k[i]);
      }
      if ((t + 1) % S == 0) keep((t + 1) / S, k_state, v_state);
    }
  }

  // grad_q_sums, grad_k_sums: (S, P) of these lanes; the first head writes, later ones add.
  // Whole: all tokens of the segment exist, so nothing branches.
  template <bool Whole>
  __device__ void segment(int index, int last_segment, bool add, float* grad_q_sums, float* grad_k_sums) {
    float k_state[N] = {}, v_state[N] = {};
    if (index > 0) recall(index, k_state, v_state);
    float own_probability, lane_delta;
    own_weights<Whole>(index, own_probability, lane_delta);

    Pack<T, N> gates[S], v_diff[S], k_diff[S];
    float lane_score_grad = 0.0f;
#pragma unroll
    for (int half = 0; half < S; half += S / 2) {
      Pack<T, N> vs[S / 2], ks[S / 2], grads[S / 2];
#pragma unroll
      for (int u = 0; u < S / 2; ++u) {
        const int t = index * S + half + u;
        gates[half + u] = vs[u] = ks[u] = grads[u] = Pack<T, N>{};
        if (!reads || (!Whole && t >= length)) continue;
        const T* row = a.proj + (row0 + t) * a.proj_stride;
        gates[half + u] = load<N>(row + s.gate_column() + channel);
        vs[u] = load<N>(row + s.value_column() + channel);
        ks[u] = load<N>(row + s.key_column() + shared_channel);
        grads[u] = load<N>(a.grad_out + (row0 + t) * s.channels() + channel);
      }
#pragma unroll
      for (int u = 0; u < S / 2; ++u) {
        const int at = half + u;
        const bool inside = Whole || index * S + at < length;
        float gate[N], v[N], k[N], grad[N], dot = 0.0f;
        unpack(gates[at], gate);
        unpack(vs[u], v);
        unpack(ks[u], k);
        unpack(grads[u], grad);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float shut = sigmoid<T>(-gate[i] - bias[i]);
          const float dv = v_state[i] - v[i], dk = k_state[i] - k[i];
          v_state[i] = fmaf(-shut, dv, v_state[i]);
          k_state[i] = fmaf(-shut, dk, k_state[i]);
          v[i] = dv;
          k[i] = dk;
          gate[i] = inside ? shut : 0.0f;  // beyond the chunk the gate is open: backwards, the carry passes
          dot = fmaf(grad[i], v_state[i], dot);
        }
        gates[at] = pack<T, N>(gate);  // from here on 1 - gate, which keeps its precision when the gate is near 1
        v_diff[at] = pack<T, N>(v);
        k_diff[at] = pack<T, N>(k);
        dot = sum_over_lanes<Lanes>(dot);
        if (lane == at) lane_score_grad = own_probability * (dot - lane_delta) * scale;
        const float score_grad = of_token(lane_score_grad, at);
        float grad_q[N];
#pragma unroll
        for (int i = 0; i < N; ++i) grad_q[i] = score_grad * k_state[i];
        accumulate(grad_q_sums + at * P, grad_q, add);
      }
    }
    backwards<Whole>(index, last_segment, add, gates, v_diff, k_diff, own_probability, lane_score_grad, grad_k_sums);
  }

 private:
  template <bool Whole>
  __device__ void backwards(int index, int last_segment, bool add, const Pack<T, N> (&gates)[S],
                            const Pack<T, N> (&v_diff)[S], const Pack<T, N> (&k_diff)[S], float own_probability,
                            float lane_score_grad, float* grad_k_sums) {
    float k_carry[N] = {}, v_carry[N] = {}, bias_grad[N] = {};
    if (index == last_segment) chunk_end_gradient(k_carry, v_carry);
    else recall(index + 1, k_carry, v_carry);  // left there by the segment after this one
#pragma unroll
    for (int half = S / 2; half >= 0; half -= S / 2) {
      Pack<T, N> grads[S / 2], queries[S / 2];
#pragma unroll
      for (int u = 0; u < S / 2; ++u) {
        grads[u] = queries[u] = Pack<T, N>{};
        const int64_t row = row0 + index * S + half + u;
        if (!reads || (!Whole && index * S + half + u >= length)) continue;
        grads[u] = load<N>(a.grad_out + row * s.channels() + channel);
        queries[u] = load<N>(a.proj + row * a.proj_stride + s.query_column() + shared_channel);
      }
#pragma unroll
      for (int u = S / 2 - 1; u >= 0; --u) {
        const int at = half + u, t = index * S + at;
        const float p = of_token(own_probability, at);
        const float score_grad = of_token(lane_score_grad, at);
        float grad[N], q[N], shut[N], dv[N], dk[N], grad_v[N], grad_gate[N], grad_k[N];
        unpack(grads[u], grad);
        unpack(queries[u], q);
        unpack(gates[at], shut);
        unpack(v_diff[at], dv);
        unpack(k_diff[at], dk);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float v_grad = fmaf(p, grad[i], v_carry[i]), k_grad = fmaf(score_grad, q[i], k_carry[i]);
          grad_v[i] = shut[i] * v_grad;
          grad_k[i] = shut[i] * k_grad;
          v_carry[i] = v_grad - grad_v[i];
          k_carry[i] = k_grad - grad_k[i];
          grad_gate[i] = (dv[i] * grad_v[i] + dk[i] * grad_k[i]) * (1.0f - shut[i]);
          bias_grad[i] += grad_gate[i];
        }
        if (writes && (Whole || t < length)) {
          T* out = a.grad_proj + (row0 + t) * a.grad_proj_stride;
          store<N>(out + s.value_column() + channel, grad_v);
          store<N>(out + s.gate_column() + channel, grad_gate);
        }
        accumulate(grad_k_sums + at * P, grad_k, add);
      }
    }
    if (index > 0) keep(index, k_carry, v_carry);
    if (!writes) return;
    if (index != last_segment) {
      float sum[N];
      load<N>(bias_sums, sum);
#pragma unroll
      for (int i = 0; i < N; ++i) bias_grad[i] += sum[i];
    }
    store<N>(bias_sums, bias_grad);
  }

  __device__ static float of_token(float lane_value, int at) {
    return __shfl_sync(0xffffffffu, lane_value, at, Lanes);
  }

  __device__ void step(int t, float (&gate)[N], float (&v)[N], float (&k)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) gate[i] = v[i] = k[i] = 0.0f;
    if (reads) {
      const T* row = a.proj + (row0 + t) * a.proj_stride;
      load<N>(row + s.gate_column() + channel, gate);
      load<N>(row + s.value_column() + channel, v);
      load<N>(row + s.key_column() + shared_channel, k);
    }
#pragma unroll
    for (int i = 0; i < N; ++i) gate[i] = sigmoid<T>(gate[i] + bias[i]);
  }

  // Lane i holds the softmax weight of the own key, and delta, of token i of the segment.
  template <bool Whole>
  __device__ void own_weights(int index, float& own_probability, float& lane_delta) {
    own_probability = lane_delta = 0.0f;
    const int t = index * S + lane;
    if ((Lanes != S && lane >= S) || (!Whole && t >= length)) return;
    const int64_t at = (b * s.heads + h) * s.tokens + first + t;
    own_probability = __expf(a.own_score[(row0 + t) * s.heads + h] - a.lse[at]);
    lane_delta = a.delta[at];
  }

  __device__ void chunk_end_gradient(float (&k_carry)[N], float (&v_carry)[N]) {
    if (c >= s.keys()) return;  // no later token sees this chunk's end
    if (reads) {
      load<N>(a.grad_keys.at(b, h, c) + lane * N, k_carry);
      load<N>(a.grad_values.at(b, h, c) + lane * N, v_carry);
    }
    Turn<N, Lanes> turn;
    turn.read(a.rope == nullptr ? nullptr : a.rope + c * (P / 2), lane, P);
    turn.apply(k_carry, lane, P, true);
  }

  __device__ void accumulate(float* sums, float (&values)[N], bool add) {
    if (!writes) return;
    if (add) {
      float sum[N];
      load<N>(sums + lane * N, sum);
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] += sum[i];
    }
    store<N>(sums + lane * N, values);
  }

  __device__ void keep(int segment, const float (&k)[N], const float (&v)[N]) {
    if (!writes) return;
    store<N>(checkpoints + (segment - 1) * 2 * P, k);
    store<N>(checkpoints + (segment - 1) * 2 * P + P, v);
  }
  __device__ void recall(int segment, float (&k)[N], float (&v)[N]) {
    if (!writes) return;
    load<N>(checkpoints + (segment - 1) * 2 * P, k);
    load<N>(checkpoints + (segment - 1) * 2 * P + P, v);
  }

  const ChunkScanBackwardArgs<T>& a;
  const RatShape& s;
  int h, lane, P, length, channel, shared_channel;
  int64_t chunks, b, c, first, row0;
  bool reads, writes;
  float scale;
  float bias[N];
  float *bias_sums, *checkpoints;
};

// Adds the walkers' sums of one segment and writes the query and key columns, `Together` channel pairs a thread.
template <class T, int Together>
__device__ void write_group(const ChunkScanBackwardArgs<T>& a, int64_t sequence_chunk, int group, int P, int segment_first,
                            int tokens, int segment_size, int walkers, const float* grad_q_sums, const float* grad_k_sums) {
  const RatShape& s = a.shape;
  const int half = P / 2, cells = half / Together;  // of a token
  const int64_t b = sequence_chunk / s.chunks(), c = sequence_chunk % s.chunks();
  const int64_t row0 = b * s.tokens + c * s.chunk_len + segment_first;
  const auto add = [](const float* from, float (&to)[Together]) {
    float values[Together];
    load<Together>(from, values);
#pragma unroll
    for (int j = 0; j < Together; ++j) to[j] += values[j];
  };
#pragma unroll 4
  for (int cell = threadIdx.x; cell < tokens * cells; cell += blockDim.x) {
    const int t = cell / cells, i = cell % cells * Together;
    const float* rotated = a.grad_q_rot + (row0 + t) * s.group_width() + group * P + i;
    float low[Together], high[Together], q_low[Together] = {}, q_high[Together] = {}, k_low[Together] = {},
                                         k_high[Together] = {};
    load<Together>(rotated, low);
    load<Together>(rotated + half, high);
    for (int w = 0; w < walkers; ++w) {
      const int at = (w * segment_size + t) * P + i;
      add(grad_q_sums + at, q_low);
      add(grad_q_sums + at + half, q_high);
      add(grad_k_sums + at, k_low);
      add(grad_k_sums + at + half, k_high);
    }
#pragma unroll
    for (int j = 0; j < Together; ++j) {
      const float2 turn = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[c * half + i + j];
      q_low[j] += low[j] * turn.x + high[j] * turn.y;
      q_high[j] += high[j] * turn.x - low[j] * turn.y;
    }
    T* out = a.grad_proj + (row0 + t) * a.grad_proj_stride + group * P + i;
    store<Together>(out + s.query_column(), q_low);
    store<Together>(out + s.query_column() + half, q_high);
    store<Together>(out + s.key_column(), k_low);
    store<Together>(out + s.key_column() + half, k_high);
  }
}

// `walkers`: how many heads of the group are walked at a time.
template <class T, int N, int Lanes>
__global__ void __launch_bounds__(kThreads, kBlocks<T, N>)
    chunk_scan_backward_kernel(ChunkScanBackwardArgs<T> a, int segments, int walkers) {
  constexpr int S = kSegment<T, N>;
  static_assert(S <= Lanes, "a lane holds what belongs to one token of the segment");
  extern __shared__ __align__(16) float sums[];  // (2, walkers, S, P): queries, then keys
  const RatShape& s = a.shape;
  const int walker = threadIdx.x / Lanes, P = head_size_of<N, Lanes>(s);
  const int G = static_cast<int>(s.groups), group = static_cast<int>(blockIdx.x % G);
  const int heads = static_cast<int>(s.heads) / G;
  const int64_t sequence_chunk = blockIdx.x / G;
  const int64_t first = sequence_chunk % s.chunks() * s.chunk_len;
  const int length = static_cast<int>(min(s.chunk_len, s.tokens - first));
  const int last = (length + S - 1) / S - 1;
  float* grad_q_sums = sums + walker * S * P;
  float* grad_k_sums = grad_q_sums + walkers * S * P;
  // For each head of this walker: body(walk, whether it is the first). A warp's halves do as many.
  const auto for_each_head = [&](const auto& body) {
    for (int before = 0; before + static_cast<int>(threadIdx.x / 32) * (32 / Lanes) < heads; before += walkers) {
      const bool exists = walker < walkers && before + walker < heads;
      const int i = exists ? before + walker : heads - 1;
      body(HeadWalk<T, N, Lanes>(a, sequence_chunk, group + i * G, exists, segments), before == 0);
    }
  };
  if (last > 0) for_each_head([](auto walk, bool) { walk.leave_checkpoints(); });
  for (int index = last; index >= 0; --index) {
    for_each_head([&](auto walk, bool is_first) {
      if ((index + 1) * S <= length) walk.template segment<true>(index, last, !is_first, grad_q_sums, grad_k_sums);
      else walk.template segment<false>(index, last, !is_first, grad_q_sums, grad_k_sums);
    });
    __syncthreads();
    write_group<T, (N > 1 ? 2 : 1)>(a, sequence_chunk, group, P, index * S, min(S, length - index * S), S, walkers, sums,
                                    sums + walkers * S * P);
    __syncthreads();
  }
}

template <class T, int N, int Lanes = 32>
Status launch(const ChunkScanBackwardArgs<T>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const auto kernel = chunk_scan_backward_kernel<T, N, Lanes>;
  const int walkers = static_cast<int>(std::min<int64_t>(kThreads / Lanes, s.heads / s.groups));
  const auto threads = static_cast<unsigned>((walkers * Lanes + 31) / 32 * 32);
  const int shared = static_cast<int>(2 * walkers * kSegment<T, N> * s.head_size * static_cast<int64_t>(sizeof(float)));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
                       "chunk_scan_backward: shared memory"));
  const auto blocks = static_cast<unsigned>(s.batch * s.chunks() * s.groups);
  kernel<<<blocks, threads, static_cast<std::size_t>(shared), stream>>>(a, static_cast<int>(segments_per_chunk<T>(s)),
                                                                        walkers);
  RAT_CUDA_TRY(launched("chunk_scan_backward"));
  const int64_t walks = s.batch * s.chunks();
  return column_sums(a.workspace, walks, s.channels(),
                     a.workspace + walks * s.channels() * (1 + 2 * (segments_per_chunk<T>(s) - 1)), a.grad_gate_bias,
                     stream, a.add_gate_bias);
}

}  // namespace

template <class T>
int64_t chunk_scan_backward_workspace(const RatShape& s) {
  const int64_t walks = s.batch * s.chunks();
  return walks * s.channels() * (1 + 2 * (segments_per_chunk<T>(s) - 1)) + column_sums_workspace(walks, s.channels());
}

template <class T>
Status chunk_scan_backward(const ChunkScanBackwardArgs<T>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("chunk_scan_backward", a.shape));
  if (a.proj_stride < a.shape.proj_width() || a.grad_proj_stride < a.shape.proj_width())
    return refuse("chunk_scan_backward: row strides %lld and %lld must be at least the %lld projected columns",
                  static_cast<long long>(a.proj_stride), static_cast<long long>(a.grad_proj_stride),
                  static_cast<long long>(a.shape.proj_width()));
  switch (a.shape.head_size) {
    case 64: return launch<T, 4, 16>(a, stream);
    case 128: return launch<T, 4>(a, stream);
    case 256: return launch<T, 8>(a, stream);
    default: return launch<T, 1>(a, stream);
  }
}

template int64_t chunk_scan_backward_workspace<float>(const RatShape&);
template int64_t chunk_scan_backward_workspace<bf16>(const RatShape&);
template Status chunk_scan_backward<float>(const ChunkScanBackwardArgs<float>&, cudaStream_t);
template Status chunk_scan_backward<bf16>(const ChunkScanBackwardArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
