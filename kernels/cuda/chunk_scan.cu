#include "kernels/cuda/chunk_scan.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/device_math.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// Tokens whose loads are in flight together: 4 streams of them per thread hide the memory latency.
template <class T, int N>
constexpr int kAhead = sizeof(T) * N >= 16 ? 4 : 8;

// `Lanes` lanes are one head of one chunk; each owns N channels and walks the chunk with its states in registers. The two
// heads of a warp go through the same steps: those beyond the shorter chunk, or the last walk, change nothing.
template <class T, int N, int Lanes>
__global__ void __launch_bounds__(kThreads) chunk_scan_kernel(ChunkScanArgs<T> a, int64_t walks) {
  constexpr int U = kAhead<T, N>;
  const RatShape& s = a.shape;
  const int64_t slot = int64_t{blockIdx.x} * (kThreads / Lanes) + threadIdx.x / Lanes, walk = min(slot, walks - 1);
  const int lane = threadIdx.x % Lanes;
  const int H = static_cast<int>(s.heads), P = static_cast<int>(s.head_size), G = static_cast<int>(s.groups);
  const int L = static_cast<int>(s.chunk_len);
  const int h = static_cast<int>(walk % H);
  const int64_t sequence_chunk = walk / H;
  const int64_t chunks = s.chunks();
  const int64_t b = sequence_chunk / chunks, c = sequence_chunk % chunks;
  const int64_t first = c * L;
  const int length = static_cast<int>(min(int64_t{L}, s.tokens - first));
  const int longest = Lanes == 32 ? length : max(length, __shfl_xor_sync(0xffffffffu, length, 16));
  const int shortest = Lanes == 32 ? length : min(length, __shfl_xor_sync(0xffffffffu, length, 16));
  const bool active = slot < walks && lane * N < P;
  const int channel = h * P + lane * N, shared_channel = (h % G) * P + lane * N;
  const int64_t row0 = b * s.tokens + first;
  const T* base = a.proj + row0 * a.proj_stride;
  const float scale = rsqrtf(static_cast<float>(P));
  const float2* turns = a.rope == nullptr ? nullptr : a.rope + c * (P / 2);

  float bias[N] = {}, k_state[N] = {}, v_state[N] = {};
  if (active) load<N>(a.gate_bias + channel, bias);
  Turn<N, Lanes> turn;
  turn.read(turns, lane, P);
  const auto batch = [&](int from, auto whole) {  // U tokens; `whole`: all of them exist, so nothing branches
    Pack<T, N> gates[U], values[U], keys[U], queries[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      gates[u] = values[u] = keys[u] = queries[u] = Pack<T, N>{};
      if (!active || (!whole.value && from + u >= length)) continue;
      const T* row = base + (from + u) * a.proj_stride;
      gates[u] = load<N>(row + s.gate_column() + channel);
      values[u] = load<N>(row + s.value_column() + channel);
      keys[u] = load<N>(row + s.key_column() + shared_channel);
      queries[u] = load<N>(row + s.query_column() + shared_channel);
    }
    float dots[U];
#pragma unroll
    for (int u = 0; u < U; ++u) {
      dots[u] = 0.0f;
      if (!whole.value && from + u >= length) continue;
      float gate[N], v[N], k[N], q[N], dot = 0.0f;
      unpack(gates[u], gate);
      unpack(values[u], v);
      unpack(keys[u], k);
      unpack(queries[u], q);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        gate[i] = sigmoid<T>(gate[i] + bias[i]);
        v_state[i] = fmaf(gate[i], v_state[i] - v[i], v[i]);
        k_state[i] = fmaf(gate[i], k_state[i] - k[i], k[i]);
        dot = fmaf(q[i], k_state[i], dot);
      }
      dots[u] = active ? dot : 0.0f;
      if (active) store<N>(a.own_v + (row0 + from + u) * s.channels() + channel, v_state);
    }
#pragma unroll
    for (int u = 0; u < U; ++u) dots[u] = sum_over_lanes<Lanes>(dots[u]);
    float mine = 0.0f;  // lane u writes token u
#pragma unroll
    for (int u = 0; u < U; ++u)
      if (lane == u) mine = dots[u];
    if (slot < walks && lane < U && (whole.value || from + lane < length)) a.own_score[(row0 + from + lane) * H + h] = mine * scale;
    const bool first_of_group = active && h < G;  // heads 0 .. G-1
    if (!__any_sync(0xffffffffu, first_of_group)) return;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      float q[N];
      unpack(queries[u], q);
      turn.apply(q, lane, P, false);
      if (first_of_group && (whole.value || from + u < length)) store<N>(a.q_rot + (row0 + from + u) * s.group_width() + channel, q);
    }
  };
  int from = 0;
  for (; from + U <= shortest; from += U) batch(from, std::true_type{});
  for (; from < longest; from += U) batch(from, std::false_type{});
  if (a.state_k != nullptr && c == chunks - 1 && active) {
    store<N>(a.state_k + b * s.channels() + channel, k_state);
    store<N>(a.state_v + b * s.channels() + channel, v_state);
  }
  turn.apply(k_state, lane, P, false);
  if (!active || length < L) return;
  store<N>(a.keys.at(b, h, c) + lane * N, k_state);
  store<N>(a.values.at(b, h, c) + lane * N, v_state);
}

__global__ void rope_table_kernel(float2* table, int64_t chunks, int half, double base) {
  const int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= chunks * half) return;
  const double angle = static_cast<double>(at / half) * pow(base, -static_cast<double>(at % half) / half);
  double sine, cosine;
  sincos(angle, &sine, &cosine);
  table[at] = make_float2(static_cast<float>(cosine), static_cast<float>(sine));
}

template <class T, int N, int Lanes = 32>
Status launch(const ChunkScanArgs<T>& a, cudaStream_t stream) {
  constexpr int together = kThreads / Lanes;
  const int64_t walks = a.shape.batch * a.shape.chunks() * a.shape.heads;
  const auto blocks = static_cast<unsigned>((walks + together - 1) / together);
  chunk_scan_kernel<T, N, Lanes><<<blocks, kThreads, 0, stream>>>(a, walks);
  return launched("chunk_scan");
}

}  // namespace

Status rope_table(float2* table, int64_t chunks, int64_t head_size, double base, cudaStream_t stream) {
  if (chunks < 1 || head_size < 2 || head_size % 2 != 0)
    return refuse("rope_table: %lld chunks of head size %lld", static_cast<long long>(chunks),
                  static_cast<long long>(head_size));
  const int64_t cells = chunks * (head_size / 2);
  rope_table_kernel<<<static_cast<unsigned>((cells + 255) / 256), 256, 0, stream>>>(table, chunks,
                                                                                     static_cast<int>(head_size / 2), base);
  return launched("rope_table");
}

template <class T>
Status chunk_scan(const ChunkScanArgs<T>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_shape("chunk_scan", a.shape));
  if (a.proj_stride < a.shape.proj_width())
    return refuse("chunk_scan: row stride %lld is below the %lld projected columns", static_cast<long long>(a.proj_stride),
                  static_cast<long long>(a.shape.proj_width()));
  switch (a.shape.head_size) {
    case 64: return launch<T, 4, 16>(a, stream);
    case 128: return launch<T, 4>(a, stream);
    case 256: return launch<T, 8>(a, stream);
    default: return launch<T, 1>(a, stream);
  }
}

template Status chunk_scan<float>(const ChunkScanArgs<float>&, cudaStream_t);
template Status chunk_scan<bf16>(const ChunkScanArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
