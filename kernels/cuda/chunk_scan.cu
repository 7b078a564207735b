// A block is one group of heads of one chunk, which it walks one after the other; a chunk that is longer than S tokens in
// segments of S. The rows of the next walk are copied to shared memory meanwhile, states stay in registers.
#include "kernels/cuda/chunk_scan.h"

#include <algorithm>

#include "kernels/cuda/group_rows.cuh"

namespace rat::kernels::cuda {
namespace {

using group::wide;

// Long: chunks of several segments. Each walk then fetches the keys and queries of its segment, which otherwise come once.
template <class T, int N, int Warps, bool Long>
class GroupScan {
  static constexpr int S = group::kSegment<T>, kParts = Long ? 4 : 2;  // values, gates (, keys, queries)
  using Rows = group::Tile<T, N, Warps>;
  using Channels = group::Channels<T, N, Warps>;

 public:
  // Shared memory: two walks' rows; the group's keys and queries; sums of scores on their way between warps.
  __host__ __device__ static std::size_t shared_bytes(int head_size) {
    return sizeof(T) * (2 * kParts + (Long ? 0 : 2)) * S * head_size + sizeof(float) * 2 * Warps * S;
  }

  __device__ GroupScan(const ChunkScanArgs<T>& args, unsigned char* shared)
      : a(args), s(args.shape), channels(args.shape), P(channels.head_size) {
    const int G = static_cast<int>(s.groups);
    first_head = static_cast<int>(blockIdx.x % G);
    b = blockIdx.x / G / s.chunks();
    c = blockIdx.x / G % s.chunks();
    length = static_cast<int>(min(s.chunk_len, s.tokens - c * s.chunk_len));
    row0 = b * s.tokens + c * s.chunk_len;
    rows = reinterpret_cast<T*>(shared);
    exchange = reinterpret_cast<float*>(rows + (2 * kParts + (Long ? 0 : 2)) * S * P);
    placed = Channels::placed(channels.first, P / 2);
    const float2* turns = a.rope == nullptr ? nullptr : a.rope + c * (P / 2) + min(channels.first, channels.partner);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      turn[j] = turns == nullptr ? make_float2(1.0f, 0.0f) : turns[j];
      if (channels.first < channels.partner) turn[j].y = -turn[j].y;
    }
  }

  __device__ void run() {
    const int heads = static_cast<int>(s.heads / s.groups), segments = Long ? (length + S - 1) / S : 1;
    if (!Long) fetch_shared(shared_part(0), shared_part(1), 0);
    fetch(0, 0, 0);
    float closing[N], next_bias[N];
    load<N>(a.gate_bias + head(0) * P + channels.first, next_bias);
    float k_state[N], v_state[N];
    for (int i = 0, n = 0; i < heads; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        closing[j] = -0.5f * next_bias[j];
        k_state[j] = v_state[j] = 0.0f;
      }
      for (int index = 0; index < segments; ++index, ++n) {
        group::arrive<Warps>();
        const bool same_head = index + 1 < segments;
        if (same_head || i + 1 < heads) fetch((n + 1) % 2, same_head ? i : i + 1, same_head ? index + 1 : 0);
        if (!same_head && i + 1 < heads) load<N>(a.gate_bias + head(i + 1) * P + channels.first, next_bias);
        T *values = part(n % 2, 0), *gates = part(n % 2, 1);
        T *keys = Long ? part(n % 2, 2) : shared_part(0), *queries = Long ? part(n % 2, 3) : shared_part(1);
        const int tokens = min(S, length - index * S);
        if (tokens == S) walk<true>(i, index, tokens, n, closing, values, gates, keys, queries, k_state, v_state);
        else walk<false>(i, index, tokens, n, closing, values, gates, keys, queries, k_state, v_state);
        if (i == heads - 1) write_queries(queries, index, tokens);
      }
      finish_head(i, k_state, v_state);
    }
  }

 private:
  // One head, one segment: v~ takes the place of the values.
  template <bool Whole>
  __device__ void walk(int i, int index, int tokens, int n, const float (&closing)[N], T* values, const T* gates,
                       const T* keys, const T* queries, float (&k_state)[N], float (&v_state)[N]) {
    float dots[S];
#pragma unroll
    for (int t = 0; t < S; ++t) {
      float gate[N] = {}, v[N] = {}, k[N] = {}, q[N] = {};
      if (channels.owns) {
        load<N>(values + t * P + placed, v);
        load<N>(gates + t * P + placed, gate);
        load<N>(keys + t * P + placed, k);
        load<N>(queries + t * P + placed, q);
      }
      dots[t] = 0.0f;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float shut = sigmoid_of_twice<T>(fmaf(-0.5f, gate[j], closing[j]));
        if (!Whole) shut = t < tokens ? shut : 0.0f;  // beyond the chunk its last state stays
        v_state[j] = fmaf(-shut, v_state[j] - v[j], v_state[j]);
        k_state[j] = fmaf(-shut, k_state[j] - k[j], k_state[j]);
        dots[t] = fmaf(q[j], k_state[j], dots[t]);
      }
      if (channels.owns) store<N>(values + t * P + placed, v_state);
    }
    const float dot = group::sum_of_warps<Warps, S>(sums_by_lane(dots), exchange + n % 2 * Warps * S);
    group::synchronize<Warps>();
    const int64_t row = row0 + index * S;
    Rows::template write<Whole>(a.own_v + row * s.channels() + head(i) * P, static_cast<unsigned>(s.channels()), values,
                                tokens, P);
    const unsigned token = threadIdx.x;
    if (token < S && (Whole || static_cast<int>(token) < tokens))
      a.own_score[row * s.heads + token * static_cast<unsigned>(s.heads) + head(i)] = dot * rsqrtf(static_cast<float>(P));
  }

  // The group's rotated queries of a segment, where `queries` is no longer needed as it was.
  __device__ void write_queries(T* queries, int index, int tokens) {
    float turned[S][N];
#pragma unroll
    for (int t = 0; t < S; ++t) {
      float mine[N], other[N];
      load<N>(queries + t * P + placed, mine);
      load<N>(queries + t * P + Channels::placed(channels.partner, P / 2), other);
#pragma unroll
      for (int j = 0; j < N; ++j) turned[t][j] = rotated(mine[j], other[j], j);
    }
    group::synchronize<Warps>();
    if (channels.owns) {
#pragma unroll
      for (int t = 0; t < S; ++t) store<N>(queries + t * P + placed, turned[t]);
    }
    group::synchronize<Warps>();
    T* out = a.q_rot + (row0 + index * S) * s.group_width() + first_head * P;
    Rows::template write<false>(out, static_cast<unsigned>(s.group_width()), queries, tokens, P);
  }

  // The chunk's end as a key and a value, if the chunk is full, and as the states that decoding goes on from.
  __device__ void finish_head(int i, const float (&k_state)[N], const float (&v_state)[N]) {
    const int partner = N > 1 ? threadIdx.x % 32 ^ 16 : channels.partner;
    float key[N];
#pragma unroll
    for (int j = 0; j < N; ++j) key[j] = rotated(k_state[j], __shfl_sync(0xffffffffu, k_state[j], partner), j);
    if (!channels.owns) return;
    const int64_t channel = b * s.channels() + head(i) * P + channels.first;
    if (a.state_k != nullptr && c == s.chunks() - 1) {
      store<N>(a.state_k + channel, k_state);
      store<N>(a.state_v + channel, v_state);
    }
    if (length < s.chunk_len) return;
    store<N>(a.keys.at(b, head(i), c) + channels.first, key);
    store<N>(a.values.at(b, head(i), c) + channels.first, v_state);
  }

  // What the rotation makes of channel j of this thread and of its partner's.
  __device__ float rotated(float value, float other, int j) const { return fmaf(other, turn[j].y, value * turn[j].x); }

  __device__ void fetch(int stage, int i, int index) {
    const int tokens = min(S, length - index * S);
    const T* from = a.proj + (row0 + index * S) * a.proj_stride + head(i) * P;
    const auto stride = static_cast<unsigned>(a.proj_stride);
    Rows::template fetch<false>(part(stage, 0), from + s.value_column(), stride, tokens, P);
    Rows::template fetch<false>(part(stage, 1), from + s.gate_column(), stride, tokens, P);
    if (Long) fetch_shared(part(stage, 2), part(stage, 3), index);
    tiles::commit_copies();
  }
  __device__ void fetch_shared(T* keys, T* queries, int index) {
    const int tokens = min(S, length - index * S);
    const T* from = a.proj + (row0 + index * S) * a.proj_stride + first_head * P;
    const auto stride = static_cast<unsigned>(a.proj_stride);
    Rows::template fetch<false>(keys, from + s.key_column(), stride, tokens, P);
    Rows::template fetch<false>(queries, from + s.query_column(), stride, tokens, P);
  }

  __device__ int head(int i) const { return first_head + i * static_cast<int>(s.groups); }
  __device__ T* part(int stage, int index) const { return rows + (kParts * stage + index) * S * P; }
  __device__ T* shared_part(int index) const { return rows + (2 * kParts + index) * S * P; }

  const ChunkScanArgs<T>& a;
  const RatShape& s;
  const Channels channels;
  const int P;
  int first_head, length, placed;
  int64_t b, c, row0;
  T* rows;
  float* exchange;
  float2 turn[N];
};

template <class T, int N, int Warps, bool Long>
__global__ void __launch_bounds__(32 * Warps, 16 / Warps) chunk_scan_kernel(ChunkScanArgs<T> a) {
  extern __shared__ __align__(16) unsigned char shared[];
  GroupScan<T, N, Warps, Long>(a, shared).run();
}

__global__ void rope_table_kernel(float2* table, int64_t chunks, int half, double base) {
  const int64_t at = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (at >= chunks * half) return;
  const double angle = static_cast<double>(at / half) * pow(base, -static_cast<double>(at % half) / half);
  double sine, cosine;
  sincos(angle, &sine, &cosine);
  table[at] = make_float2(static_cast<float>(cosine), static_cast<float>(sine));
}

template <class T, int N, int Warps, bool Long>
Status launch_scan(const ChunkScanArgs<T>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const auto kernel = chunk_scan_kernel<T, N, Warps, Long>;
  const std::size_t shared = GroupScan<T, N, Warps, Long>::shared_bytes(static_cast<int>(s.head_size));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                       "chunk_scan: shared memory"));
  kernel<<<static_cast<unsigned>(s.batch * s.chunks() * s.groups), 32 * Warps, shared, stream>>>(a);
  return launched("chunk_scan");
}

template <class T, int N, int Warps = 1>
Status launch(const ChunkScanArgs<T>& a, cudaStream_t stream) {
  const bool is_long = std::min(a.shape.chunk_len, a.shape.tokens) > group::kSegment<T>;
  return is_long ? launch_scan<T, N, Warps, true>(a, stream) : launch_scan<T, N, Warps, false>(a, stream);
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
  RAT_CUDA_TRY(group::check_row_stride<T>("chunk_scan", a.shape, a.proj_stride));
  switch (a.shape.head_size) {
    case 64: return launch<T, 2>(a, stream);
    case 128: return launch<T, 2, 2>(a, stream);
    case 256: return launch<T, 2, 4>(a, stream);
    default: return launch<T, 1>(a, stream);
  }
}

template Status chunk_scan<float>(const ChunkScanArgs<float>&, cudaStream_t);
template Status chunk_scan<bf16>(const ChunkScanArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
