// A block is one group of heads of one chunk. It walks its heads one after the other, each in segments of S tokens, the
// last first: forwards to recover the states, then backwards. The rows of the next head are copied to shared memory
// meanwhile. A thread owns the same N channels of every head, so the sums over the group's heads stay in its registers.
// Chunks longer than S first leave the states at the segment starts in the workspace.
#include <algorithm>

#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/group_rows.cuh"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {
namespace {

using group::kSegment;
using group::wide;
constexpr int kScores = 8;  // tokens whose scores are summed over the lanes together

template <class T>
int64_t segments_per_chunk(const RatShape& s) {
  return (std::min(s.chunk_len, s.tokens) + kSegment<T> - 1) / kSegment<T>;
}

// What a head's walk over a segment starts from besides its rows, with which it comes to shared memory: the walk before it
// would have to wait for loads into registers.
template <int S>
struct HeadStart {
  float *own_score, *lse, *delta;  // (S) tokens of the segment
  float *k_carry, *v_carry;        // (P) gradients that reach the chunk's end, the key's still rotated
  __device__ HeadStart(float* at, int P)
      : own_score(at), lse(at + S), delta(at + 2 * S), k_carry(at + 3 * S), v_carry(k_carry + P) {}
  __host__ __device__ static constexpr int floats(int P) { return 3 * S + 2 * P; }
};

template <class T, int N, int Warps>
class GroupWalk {
  static constexpr int S = kSegment<T>;
  using Rows = group::Tile<T, N, Warps>;
  using Channels = group::Channels<T, N, Warps>;
  using Start = HeadStart<S>;

 public:
  // Shared memory: two heads' rows in three parts each; the group's keys and queries; two heads' starts; a head's bias; the
  // chunk's rotation; own probabilities with the gradients of their scores, for each warp; sums of scores on their way
  // between warps, twice. With heads of 64, 12 blocks take all that a multiprocessor has.
  __host__ __device__ static std::size_t shared_bytes(int P) {
    return sizeof(T) * 8 * S * P + sizeof(float) * (2 * Start::floats(P) + 2 * P) + sizeof(float2) * Warps * S +
           sizeof(float) * (Warps > 1 ? 2 * Warps * kScores : 0);
  }

  __device__ GroupWalk(const ChunkScanBackwardArgs<T>& args, unsigned char* shared)
      : a(args), s(args.shape), channels(args.shape), P(channels.head_size) {
    const unsigned G = static_cast<unsigned>(s.groups), L = static_cast<unsigned>(s.chunk_len);
    const unsigned tokens = static_cast<unsigned>(s.tokens), chunks = (tokens + L - 1) / L;
    first_head = static_cast<int>(blockIdx.x % G);
    sequence_chunk = blockIdx.x / G;
    b = sequence_chunk / chunks;
    c = sequence_chunk % chunks;
    length = static_cast<int>(min(L, tokens - c * L));
    row0 = b * tokens + c * L;
    last = (length + S - 1) / S - 1;
    at_rows = reinterpret_cast<T*>(shared);
    keys = at_rows + 6 * S * P;
    queries = keys + S * P;
    starts = reinterpret_cast<float*>(queries + S * P);
    bias = starts + 2 * Start::floats(P) + channels.first;
    angles = reinterpret_cast<float2*>(starts + 2 * Start::floats(P) + P);
    auto* const of_warps = angles + P / 2;
    weights = of_warps + threadIdx.x / 32 * S;
    exchange = reinterpret_cast<float*>(of_warps + Warps * S);
    placed = Channels::placed(channels.first, P / 2);
    for (int i = threadIdx.x; i < P / 2; i += 32 * Warps)
      angles[i] = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[wide(c, P / 2) + i];
  }

  __device__ void run() {
    if (last > 0) leave_checkpoints();
    for (int index = last; index >= 0; --index) {
      const int tokens = min(S, length - index * S);
      if (tokens == S) segment<true>(index, tokens);
      else segment<false>(index, tokens);
    }
  }

 private:
  template <bool Whole>
  __device__ void segment(int index, int tokens) {
    const int heads = static_cast<int>(s.heads / s.groups);
    const int64_t row = int64_t{row0} + index * S;
    const T* shared_columns = a.proj + row * a.proj_stride + first_head * P;
    const unsigned stride = static_cast<unsigned>(a.proj_stride), out_stride = static_cast<unsigned>(a.grad_proj_stride);
    group::synchronize<Warps>();
    Rows::template fetch<Whole>(keys, shared_columns + s.key_column(), stride, tokens, P);
    Rows::template fetch<Whole>(queries, shared_columns + s.query_column(), stride, tokens, P);
    fetch_head<Whole>(0, 0, index, tokens);
    float q_sums[S][N] = {}, k_sums[S][N] = {};
    for (int i = 0; i < heads; ++i) {
      group::arrive<Warps>();
      float closing[N] = {};
      if (channels.owns) closings(bias, closing);  // before the next head's comes
      if (i + 1 < heads) {
        fetch_head<Whole>((i + 1) % 2, i + 1, index, tokens);
      } else {  // the group's own rows
        Rows::template fetch<Whole>(reinterpret_cast<float*>(part((i + 1) % 2, 0)), a.grad_q_rot + row * s.group_width() + first_head * P,
                                    static_cast<unsigned>(s.group_width()), tokens, P);
        tiles::commit_copies();
      }
      T *gates = part(i % 2, 0), *values = part(i % 2, 1), *grads = part(i % 2, 2);
      walk<Whole>(i, index, tokens, start(i % 2), closing, gates, values, grads, q_sums, k_sums);
      group::synchronize<Warps>();
      T* out = a.grad_proj + row * a.grad_proj_stride + head(i) * P;
      Rows::template write<Whole>(out + s.gate_column(), out_stride, gates, tokens, P);
      Rows::template write<Whole>(out + s.value_column(), out_stride, values, tokens, P);
    }
    group::arrive<Warps>();
    write_group<Whole>(reinterpret_cast<const float*>(part(heads % 2, 0)), row, tokens, q_sums, k_sums);
  }

  // One head, one segment. Leaves the gradients of the gates and values where they were.
  template <bool Whole>
  __device__ void walk(int i, int index, int tokens, const Start& start, const float (&closing)[N], T* gates, T* values, const T* grads,
                       float (&q_sums)[S][N], float (&k_sums)[S][N]) {
    const int lane_token = threadIdx.x % S;
    const bool exists = Whole || lane_token < tokens;
    const float own = exists ? __expf(start.own_score[lane_token] - start.lse[lane_token]) : 0.0f;
    const float delta = start.delta[lane_token];
    const float scale = rsqrtf(static_cast<float>(P));
    float k_state[N] = {}, v_state[N] = {};
    if (index > 0) recall(i, index, k_state, v_state);
    Pack<T, N> shut_of[S], v_diff[S], k_diff[S];  // 1 - gate, which keeps its precision when the gate is near 1
#pragma unroll
    for (int from = 0; from < S; from += kScores) {
      float dots[kScores], k_states[kScores][N];
#pragma unroll
      for (int u = 0; u < kScores; ++u) {
        const int t = from + u;
        float gate[N] = {}, v[N] = {}, k[N] = {}, grad[N] = {}, shut[N];
        if (channels.owns) {
          load<N>(gates + t * P + placed, gate);
          load<N>(values + t * P + placed, v);
          load<N>(keys + t * P + placed, k);
          load<N>(grads + t * P + placed, grad);
        }
        dots[u] = 0.0f;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          shut[j] = sigmoid_of_twice<T>(fmaf(-0.5f, gate[j], closing[j]));
          if (!Whole) shut[j] = t < tokens ? shut[j] : 0.0f;  // beyond the chunk the gate is open: backwards, the carry passes
          const float dv = v_state[j] - v[j], dk = k_state[j] - k[j];
          v_state[j] = fmaf(-shut[j], dv, v_state[j]);
          k_states[u][j] = k_state[j] = fmaf(-shut[j], dk, k_state[j]);
          v[j] = dv;
          k[j] = dk;
          dots[u] = fmaf(grad[j], v_state[j], dots[u]);
        }
        shut_of[t] = pack<T, N>(shut);
        v_diff[t] = pack<T, N>(v);
        k_diff[t] = pack<T, N>(k);
      }
      const float dot = group::sum_of_warps<Warps, kScores>(sums_by_lane(dots), exchange + from / kScores % 2 * Warps * kScores);
      if (threadIdx.x % 32 < S && (lane_token & ~(kScores - 1)) == from)
        weights[lane_token] = make_float2(own, own * (dot - delta) * scale);
      __syncwarp();
#pragma unroll
      for (int u = 0; u < kScores; ++u) {
        const float score_grad = weights[from + u].y;
#pragma unroll
        for (int j = 0; j < N; ++j) q_sums[from + u][j] = fmaf(score_grad, k_states[u][j], q_sums[from + u][j]);
      }
    }
    float k_carry[N], v_carry[N], bias_grad[N] = {};
    carries(i, index, start, k_carry, v_carry);
#pragma unroll
    for (int t = S - 1; t >= 0; --t) {
      const float2 weight = weights[t];
      float grad[N], q[N], shut[N], dv[N], dk[N], grad_v[N], grad_gate[N];
      load<N>(grads + t * P + placed, grad);
      load<N>(queries + t * P + placed, q);
      unpack(shut_of[t], shut);
      unpack(v_diff[t], dv);
      unpack(k_diff[t], dk);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float v_grad = fmaf(weight.x, grad[j], v_carry[j]), k_grad = fmaf(weight.y, q[j], k_carry[j]);
        grad_v[j] = shut[j] * v_grad;
        const float grad_k = shut[j] * k_grad;
        v_carry[j] = v_grad - grad_v[j];
        k_carry[j] = k_grad - grad_k;
        k_sums[t][j] += grad_k;
        const float through = fmaf(dv[j], grad_v[j], dk[j] * grad_k);
        grad_gate[j] = fmaf(-shut[j], through, through);
        bias_grad[j] += grad_gate[j];
      }
      if (!channels.owns) continue;
      store<N>(values + t * P + placed, grad_v);
      store<N>(gates + t * P + placed, grad_gate);
    }
    if (index > 0) keep(i, index, k_carry, v_carry);
    add_bias_gradient(i, index, bias_grad);
  }

  // - bias / 2 of this thread's channels.
  __device__ static void closings(const float* bias, float (&closing)[N]) {
    load<N>(bias, closing);
#pragma unroll
    for (int j = 0; j < N; ++j) closing[j] *= -0.5f;
  }

  // The gradients that come back into a segment's last state.
  __device__ void carries(int i, int index, const Start& start, float (&k_carry)[N], float (&v_carry)[N]) {
    if (index < last) return recall(i, index + 1, k_carry, v_carry);  // left there by the segment after this one
    float mine[N], other[N];
    load<N>(start.k_carry + channels.first, mine);
    load<N>(start.k_carry + channels.partner, other);
    load<N>(start.v_carry + channels.first, v_carry);
    const Turn turn(*this);
#pragma unroll
    for (int j = 0; j < N; ++j) k_carry[j] = turn.back(mine[j], other[j], j);
  }

  // The rotation of the chunk's end, as it comes to this thread's channels.
  struct Turn {
    float cosine[N], sine[N];
    __device__ explicit Turn(const GroupWalk& walk) {
      const Channels& channels = walk.channels;
      const bool low = channels.first < channels.partner;
      const float2* angles = walk.angles + (low ? channels.first : channels.partner);
#pragma unroll
      for (int j = 0; j < N; ++j) cosine[j] = angles[j].x, sine[j] = low ? -angles[j].y : angles[j].y;
    }
    // Channel j of this thread before a rotation that made `value` of it and `other` of its partner.
    __device__ float back(float value, float other, int j) const { return fmaf(-other, sine[j], value * cosine[j]); }
  };

  template <bool Whole>
  __device__ void write_group(const float* rotated, int64_t row, int tokens, float (&q_sums)[S][N], float (&k_sums)[S][N]) {
    const Turn turn(*this);
#pragma unroll
    for (int t = 0; t < S; ++t) {
      float mine[N], other[N];
      load<N>(rotated + t * P + channels.first, mine);
      load<N>(rotated + t * P + channels.partner, other);
#pragma unroll
      for (int j = 0; j < N; ++j) q_sums[t][j] += turn.back(mine[j], other[j], j);
      if (!channels.owns) continue;
      store<N>(queries + t * P + placed, q_sums[t]);
      store<N>(keys + t * P + placed, k_sums[t]);
    }
    group::synchronize<Warps>();
    T* out = a.grad_proj + row * a.grad_proj_stride + first_head * P;
    const auto stride = static_cast<unsigned>(a.grad_proj_stride);
    Rows::template write<Whole>(out + s.query_column(), stride, queries, tokens, P);
    Rows::template write<Whole>(out + s.key_column(), stride, keys, tokens, P);
  }

  // States at the starts of segments 1 .. last, which are whole up to there.
  __device__ void leave_checkpoints() {
    for (int i = 0; i < static_cast<int>(s.heads / s.groups); ++i) {
      float closing[N], k_state[N] = {}, v_state[N] = {};
      closings(a.gate_bias + head(i) * P + channels.first, closing);
      for (int index = 0; index < last; ++index) {
        const T* rows = a.proj + (int64_t{row0} + index * S) * a.proj_stride;
        const auto stride = static_cast<unsigned>(a.proj_stride);
        group::synchronize<Warps>();
        Rows::template fetch<true>(part(0, 0), rows + s.gate_column() + head(i) * P, stride, S, P);
        Rows::template fetch<true>(part(0, 1), rows + s.value_column() + head(i) * P, stride, S, P);
        Rows::template fetch<true>(part(0, 2), rows + s.key_column() + first_head * P, stride, S, P);
        tiles::commit_copies();
        group::arrive<Warps>();
#pragma unroll
        for (int t = 0; t < S; ++t) {
          float gate[N], v[N], k[N];
          load<N>(part(0, 0) + t * P + placed, gate);
          load<N>(part(0, 1) + t * P + placed, v);
          load<N>(part(0, 2) + t * P + placed, k);
#pragma unroll
          for (int j = 0; j < N; ++j) {
            const float shut = sigmoid_of_twice<T>(fmaf(-0.5f, gate[j], closing[j]));
            v_state[j] = fmaf(-shut, v_state[j] - v[j], v_state[j]);
            k_state[j] = fmaf(-shut, k_state[j] - k[j], k_state[j]);
          }
        }
        keep(i, index + 1, k_state, v_state);
      }
    }
  }

  template <bool Whole>
  __device__ void fetch_head(int stage, int i, int index, int tokens) {
    const int64_t row = int64_t{row0} + index * S;
    const T* rows = a.proj + row * a.proj_stride + head(i) * P;
    const auto stride = static_cast<unsigned>(a.proj_stride), width = static_cast<unsigned>(s.channels());
    Rows::template fetch<Whole>(part(stage, 0), rows + s.gate_column(), stride, tokens, P);
    Rows::template fetch<Whole>(part(stage, 1), rows + s.value_column(), stride, tokens, P);
    Rows::template fetch<Whole>(part(stage, 2), a.grad_out + row * s.channels() + head(i) * P, width, tokens, P);
    fetch_start(start(stage), i, index, tokens);
    tiles::commit_copies();
  }

  template <int Count>
  __device__ static void ask(float* to, const float* from, bool exists) {
    tiles::copy_few<4 * Count>(tiles::shared_address(to), from, exists);
  }
  __device__ void fetch_start(const Start& start, int i, int index, int tokens) const {
    if (threadIdx.x < S) {
      const unsigned token = threadIdx.x, heads = static_cast<unsigned>(s.heads), length = static_cast<unsigned>(s.tokens);
      const bool exists = static_cast<int>(token) < tokens;
      const float* scores = a.own_score + (int64_t{row0} + index * S) * s.heads + head(i);
      const uint64_t at = wide(b * heads + head(i), length) + c * static_cast<unsigned>(s.chunk_len) +
                          index * S + (exists ? token : 0);
      ask<1>(start.own_score + token, scores + (exists ? token * heads : 0), exists);
      ask<1>(start.lse + token, a.lse + at, exists);
      ask<1>(start.delta + token, a.delta + at, exists);
    }
    if (!channels.owns) return;
    ask<N>(bias, a.gate_bias + head(i) * P + channels.first, true);
    const bool carried = index == last && (int64_t{c} + 1) * s.chunk_len < s.tokens;  // a later token sees this chunk's end
    const unsigned chunk = carried ? c : 0;
    ask<N>(start.k_carry + channels.first, a.grad_keys.at(b, head(i), chunk) + channels.first, carried);
    ask<N>(start.v_carry + channels.first, a.grad_values.at(b, head(i), chunk) + channels.first, carried);
  }

  __device__ void add_bias_gradient(int i, int index, float (&bias_grad)[N]) {
    if (!channels.owns) return;
    float* sums = a.workspace + int64_t{sequence_chunk} * s.channels() + head(i) * P + channels.first;
    if (index != last) {
      float sum[N];
      load<N>(sums, sum);
#pragma unroll
      for (int j = 0; j < N; ++j) bias_grad[j] += sum[j];
    }
    store<N>(sums, bias_grad);
  }

  __device__ float* checkpoint(int i, int index) const {
    const int64_t heads_before = s.batch * s.chunks() * s.channels() + (sequence_chunk * s.heads + head(i)) * (segments() - 1) * 2 * P;
    return a.workspace + heads_before + (index - 1) * 2 * P + channels.first;
  }
  __device__ void keep(int i, int index, const float (&k)[N], const float (&v)[N]) {
    if (!channels.owns) return;
    store<N>(checkpoint(i, index), k);
    store<N>(checkpoint(i, index) + P, v);
  }
  __device__ void recall(int i, int index, float (&k)[N], float (&v)[N]) {
    load<N>(checkpoint(i, index), k);
    load<N>(checkpoint(i, index) + P, v);
  }

  __device__ int64_t segments() const { return (min(s.chunk_len, s.tokens) + S - 1) / S; }
  __device__ int head(int i) const { return first_head + i * static_cast<int>(s.groups); }
  __device__ T* part(int stage, int index) const { return at_rows + (3 * stage + index) * S * P; }
  __device__ Start start(int stage) const { return {starts + stage * Start::floats(P), P}; }

  const ChunkScanBackwardArgs<T>& a;
  const RatShape& s;
  const Channels channels;
  const int P;
  int first_head, length, last, placed;
  unsigned sequence_chunk, b, c, row0;
  T *at_rows, *keys, *queries;
  float *starts, *bias;  // `bias`: of this thread's channels
  float2 *angles, *weights;
  float* exchange;
};

template <class T, int N, int Warps>
__global__ void __launch_bounds__(32 * Warps, 12 / Warps) chunk_scan_backward_kernel(ChunkScanBackwardArgs<T> a) {
  extern __shared__ __align__(16) unsigned char shared[];
  GroupWalk<T, N, Warps>(a, shared).run();
}

template <class T, int N, int Warps = 1>
Status launch(const ChunkScanBackwardArgs<T>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const auto kernel = chunk_scan_backward_kernel<T, N, Warps>;
  const std::size_t shared = GroupWalk<T, N, Warps>::shared_bytes(static_cast<int>(s.head_size));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
                       "chunk_scan_backward: shared memory"));
  const auto blocks = static_cast<unsigned>(s.batch * s.chunks() * s.groups);
  kernel<<<blocks, 32 * Warps, shared, stream>>>(a);
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
  RAT_CUDA_TRY(group::check_row_stride<T>("chunk_scan_backward", a.shape, a.proj_stride));
  RAT_CUDA_TRY(group::check_row_stride<T>("chunk_scan_backward", a.shape, a.grad_proj_stride));
  switch (a.shape.head_size) {
    case 64: return launch<T, 2>(a, stream);
    case 128: return launch<T, 2, 2>(a, stream);
    case 256: return launch<T, 2, 4>(a, stream);
    default: return launch<T, 1>(a, stream);
  }
}

template int64_t chunk_scan_backward_workspace<float>(const RatShape&);
template int64_t chunk_scan_backward_workspace<bf16>(const RatShape&);
template Status chunk_scan_backward<float>(const ChunkScanBackwardArgs<float>&, cudaStream_t);
template Status chunk_scan_backward<bf16>(const ChunkScanBackwardArgs<bf16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
