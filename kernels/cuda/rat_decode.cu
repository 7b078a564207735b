#include "kernels/cuda/rat_decode.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/quantise.cuh"

namespace rat::kernels::cuda {
namespace {

using tiles::exp2_fast;
using tiles::kLog2e;

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kAhead = 2;  // keys and values in flight per lane; with 8 blocks a multiprocessor faster than 4 with fewer
constexpr int kMostSplits = 64;
constexpr int kMaxHead = 256;

template <class C>
constexpr bool kQuantised = std::is_same_v<C, e4m3>;
// Blocks per multiprocessor, as many as registers allow without spills: 16 channels of e4m3 take more a lane than 8 of
// bf16 at the same bytes in flight, and more still where they are converted in software.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
constexpr int kQuantisedBlocks = 5;
#else
constexpr int kQuantisedBlocks = 6;
#endif
template <class C, int E>
constexpr int kBlocks = kQuantised<C> ? kQuantisedBlocks : E * sizeof(C) > 16 ? 6 : 8;

// A softmax over some of the keys: maximum (log2 units), sum of weights, weighted values of this lane's E channels.
template <int E>
struct Part {
  float top, sum, out[E];

  __device__ void join(float other_top, float other_sum, const float (&other)[E]) {
    const float highest = fmaxf(top, other_top);
    const float mine = top == -INFINITY ? 0.0f : exp2_fast(top - highest);
    const float theirs = other_top == -INFINITY ? 0.0f : exp2_fast(other_top - highest);
    sum = sum * mine + other_sum * theirs;
#pragma unroll
    for (int i = 0; i < E; ++i) out[i] = out[i] * mine + other[i] * theirs;
    top = highest;
  }
  // With those of the lanes of this warp that hold the same channels of other keys.
  __device__ void join_lanes(int lanes) {
    __syncwarp();
    for (int step = lanes; step < 32; step <<= 1) {
      const float other_top = __shfl_xor_sync(0xffffffffu, top, step);
      const float other_sum = __shfl_xor_sync(0xffffffffu, sum, step);
      float other[E];
#pragma unroll
      for (int i = 0; i < E; ++i) other[i] = __shfl_xor_sync(0xffffffffu, out[i], step);
      join(other_top, other_sum, other);
    }
  }
};

struct Head {  // of one block, in shared memory
  float query[kMaxHead];  // rotated, times log2(e) / sqrt P
  float own_k[kMaxHead], own_v[kMaxHead];  // the key rotated, and only at a chunk's last token of an e4m3 cache
  float tops[kWarps], sums[kWarps], outs[kWarps][kMaxHead];
  float own_score[kWarps];
  bool last;
};

// The rotated query, into shared memory; the caller synchronises.
template <class T, class C>
__device__ void rotate_query(const RatDecodeArgs<T, C>& a, Head& head, int b, int h, int64_t c) {
  const RatShape& s = a.shape;
  const int P = static_cast<int>(s.head_size), half = P / 2;
  const T* q = a.proj + b * a.proj_stride + s.query_column() + h % static_cast<int>(s.groups) * P;
  const float scale = rsqrtf(static_cast<float>(P)) * kLog2e;
  for (int i = threadIdx.x; i < half; i += kThreads) {
    const float2 turn = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[c * half + i];
    const float low = to_float(q[i]), high = to_float(q[i + half]);
    head.query[i] = (low * turn.x - high * turn.y) * scale;
    head.query[i + half] = (high * turn.x + low * turn.y) * scale;
  }
}

// The chunk end in shared memory into an e4m3 cache; for the whole block.
template <class T>
__device__ void append_quantised(const RatDecodeArgs<T, e4m3>& a, const Head& head, int b, int h, int64_t c) {
  __syncthreads();
  const int P = static_cast<int>(a.shape.head_size), warp = threadIdx.x / 32;
  if (warp > 1) return;
  const unsigned short scale = warp == 0 ? quantise_row(head.own_k, a.keys.at(b, h, c), P)
                                         : quantise_row(head.own_v, a.values.at(b, h, c), P);
  if (threadIdx.x % 32 == 0) (warp == 0 ? a.scales.at(b, h, c)->x : a.scales.at(b, h, c)->y) = scale;
}

// Running state, own score, and the append at a chunk's last token. After the cache was read: its latency is the longer.
template <class T, class C>
__device__ void update_state(const RatDecodeArgs<T, C>& a, Head& head, int b, int h, int64_t c, int l) {
  const RatShape& s = a.shape;
  const int P = static_cast<int>(s.head_size), half = P / 2, G = static_cast<int>(s.groups);
  const T* row = a.proj + b * a.proj_stride;
  const T* q = row + s.query_column() + h % G * P;
  const T* k = row + s.key_column() + h % G * P;
  const bool ends = l == s.chunk_len - 1;
  float own = 0.0f;
  for (int i = threadIdx.x; i < half; i += kThreads) {
    float key[2];
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int channel = i + side * half, at = h * P + channel;
      const float gate = sigmoid<T>(to_float(row[s.gate_column() + at]) + a.gate_bias[at]);
      const int64_t state = b * s.channels() + at;
      const float k_new = to_float(k[channel]), v_new = to_float(row[s.value_column() + at]);
      const float k_old = l == 0 ? 0.0f : a.state_k[state], v_old = l == 0 ? 0.0f : a.state_v[state];
      key[side] = fmaf(gate, k_old - k_new, k_new);
      const float value = fmaf(gate, v_old - v_new, v_new);
      a.state_k[state] = key[side];
      a.state_v[state] = value;
      head.own_v[channel] = value;
      if constexpr (!kQuantised<C>)
        if (ends) a.values.at(b, h, c)[channel] = from_float<T>(value);
    }
    own += to_float(q[i]) * key[0] + to_float(q[i + half]) * key[1];
    if (ends) {
      const float2 turn = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[c * half + i];
      const float low = key[0] * turn.x - key[1] * turn.y, high = key[1] * turn.x + key[0] * turn.y;
      if constexpr (kQuantised<C>) {
        head.own_k[i] = low;
        head.own_k[i + half] = high;
      } else {
        a.keys.at(b, h, c)[i] = from_float<T>(low);
        a.keys.at(b, h, c)[i + half] = from_float<T>(high);
      }
    }
  }
  own = sum_over_lanes(own);
  if (threadIdx.x % 32 == 0) head.own_score[threadIdx.x / 32] = own * rsqrtf(static_cast<float>(P)) * kLog2e;
  if constexpr (kQuantised<C>)
    if (ends) append_quantised(a, head, b, h, c);
}

// A lane's E channels of the query.
template <class C, int E>
struct Query {
  float channel[E];

  __device__ Query(const float* from, int) {
#pragma unroll
    for (int i = 0; i < E; ++i) channel[i] = from[i];
  }
  __device__ float dot(const Pack<C, E>& key) const {
    float k[E], sum = 0.0f;
    unpack(key, k);
#pragma unroll
    for (int i = 0; i < E; ++i) sum = fmaf(channel[i], k[i], sum);
    return sum;
  }
  __device__ float whole(float sum, ushort2) const { return sum; }
};

// As halves with a power of two for all of the query: below 2, times 448 at most, four added.
template <int E>
struct Query<e4m3, E> {
  __half2 channel[E / 2];
  float unit;

  __device__ Query(const float* from, int lanes) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < E; ++i) largest = fmaxf(largest, fabsf(from[i]));
    for (int step = lanes / 2; step > 0; step >>= 1) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    const unsigned exponent = exponent_of(largest);
    unit = __uint_as_float(exponent);
#pragma unroll
    for (int i = 0; i < E / 2; ++i)
      channel[i] = __floats2half2_rn(from[2 * i] * inverse_of(exponent), from[2 * i + 1] * inverse_of(exponent));
  }
  __device__ float dot(const Pack<e4m3, E>& key) const {
    __half2 k[E / 2];
    unpack(key, k);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < E / 2; i += 4) {
      __half2 four = __hmul2(channel[i], k[i]);
#pragma unroll
      for (int j = 1; j < 4; ++j) four = __hfma2(channel[i + j], k[i + j], four);
      sum += __low2float(four) + __high2float(four);
    }
    return sum;
  }
  __device__ float whole(float sum, ushort2 scale) const { return sum * (unit * scale_of(scale.x)); }
};

// out += the weighted values of kAhead keys.
template <class C, int E>
__device__ void add_values(const Pack<C, E> (&value)[kAhead], const float (&weight)[kAhead], const ushort2 (&)[kAhead],
                           float (&out)[E]) {
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    float v[E];
    unpack(value[u], v);
#pragma unroll
    for (int i = 0; i < E; ++i) out[i] = fmaf(weight[u], v[i], out[i]);
  }
}

// As halves, weights with their scales relative to the largest of these keys.
template <int E>
__device__ void add_values(const Pack<e4m3, E> (&value)[kAhead], const float (&weight)[kAhead],
                           const ushort2 (&scale)[kAhead], float (&out)[E]) {
  float scaled[kAhead];
  unsigned exponent = 0;
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    scaled[u] = weight[u] == 0.0f ? 0.0f : weight[u] * scale_of(scale[u].y);  // the scale of no key may be anything
    exponent = max(exponent, exponent_of(scaled[u]));
  }
  __half2 sum[E / 2];
#pragma unroll
  for (int u = 0; u < kAhead; ++u) {
    const __half2 relative = __float2half2_rn(scaled[u] * inverse_of(exponent));
    __half2 v[E / 2];
    unpack(value[u], v);
#pragma unroll
    for (int i = 0; i < E / 2; ++i) sum[i] = u == 0 ? __hmul2(relative, v[i]) : __hfma2(relative, v[i], sum[i]);
  }
#pragma unroll
  for (int i = 0; i < E / 2; ++i) {
    out[2 * i] = fmaf(__uint_as_float(exponent), __low2float(sum[i]), out[2 * i]);
    out[2 * i + 1] = fmaf(__uint_as_float(exponent), __high2float(sum[i]), out[2 * i + 1]);
  }
}

// LANES lanes hold one key; the 32/LANES keys of a warp, and the warps, go on alone and are joined at the end.
template <class T, class C, int E>
__device__ Part<E> attend(const RatDecodeArgs<T, C>& a, const Head& head, int b, int h, int64_t begin, int64_t end,
                          int lanes) {
  const int lane = threadIdx.x % 32, part = lane % lanes, slot = lane / lanes + threadIdx.x / 32 * (32 / lanes);
  const int slots = kWarps * (32 / lanes);
  Part<E> result{-INFINITY, 0.0f, {}};
  const C* keys = a.keys.at(b, h, 0) + part * E;
  const C* values = a.values.at(b, h, 0) + part * E;
  Pack<C, E> key[kAhead] = {}, value[kAhead] = {};
  ushort2 scale[kAhead] = {};
  const auto fetch = [&](int64_t first) {
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (const int64_t j = first + u * slots + slot; j < end) {
        key[u] = load<E>(keys + j * a.keys.row);
        if constexpr (kQuantised<C>) scale[u] = *a.scales.at(b, h, j);
      }
#pragma unroll
    for (int u = 0; u < kAhead; ++u)
      if (const int64_t j = first + u * slots + slot; j < end) value[u] = load<E>(values + j * a.values.row);
  };
  fetch(begin);
  __syncthreads();  // the query is in shared memory; the first keys are on their way meanwhile
  const Query<C, E> query(head.query + part * E, lanes);
  for (int64_t first = begin; first < end; first += slots * kAhead) {  // the same trip count for all lanes
    if (first > begin) fetch(first);
    float score[kAhead], top = result.top;
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      float dot = query.dot(key[u]);
      for (int step = lanes / 2; step > 0; step >>= 1) dot += __shfl_xor_sync(0xffffffffu, dot, step);
      score[u] = first + u * slots + slot < end ? query.whole(dot, scale[u]) : -INFINITY;
      top = fmaxf(top, score[u]);
    }
    if (first + slot >= end) continue;  // this lane has no key here; one whose score is NaN must be seen
    const float shrink = exp2_fast(result.top - top);
    result.sum *= shrink;
#pragma unroll
    for (int i = 0; i < E; ++i) result.out[i] *= shrink;
    float weight[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) result.sum += weight[u] = exp2_fast(score[u] - top);
    add_values(value, weight, scale, result.out);
    result.top = top;
  }
  result.join_lanes(lanes);
  return result;
}

// Joins the warps (and the own key) of this block into thread-per-channel form: (top, sum, out of channel i).
__device__ Part<1> join_warps(const Head& head, int i, bool with_own) {
  Part<1> whole{-INFINITY, 0.0f, {0.0f}};
  if (with_own) {
    float score = 0.0f;
    for (int w = 0; w < kWarps; ++w) score += head.own_score[w];
    whole = {score, 1.0f, {head.own_v[i]}};
  }
  for (int w = 0; w < kWarps; ++w) {
    const float out[1] = {head.outs[w][i]};
    whole.join(head.tops[w], head.sums[w], out);
  }
  return whole;
}

template <class T, class C, int E>
__global__ void __launch_bounds__(kThreads, kBlocks<C, E>) rat_decode_kernel(RatDecodeArgs<T, C> a, int lanes) {
  __shared__ Head head;
  const RatShape& s = a.shape;
  const int P = static_cast<int>(s.head_size), h = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y);
  const int split = static_cast<int>(blockIdx.z);
  const int64_t position = *a.position, c = position / s.chunk_len;
  // By the number of keys, not by the room for them, so that results do not depend on what the cache held before.
  const int splits = static_cast<int>(min(int64_t{a.splits}, max(int64_t{1}, c / a.keys_of_split)));
  if (split >= splits) return;
  const int l = static_cast<int>(position % s.chunk_len);
  T* y = a.y + b * s.channels() + h * P;
  if (position < 0 || c >= a.capacity) {
    for (int i = threadIdx.x; i < P; i += kThreads) y[i] = from_float<T>(NAN);
    return;
  }
  rotate_query(a, head, b, h, c);
  const int64_t per_split = (c + splits - 1) / splits, begin = min(c, split * per_split);
  const Part<E> part = attend<T, C, E>(a, head, b, h, begin, min(c, begin + per_split), lanes);
  if (split == 0) update_state(a, head, b, h, c, l);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (lane < lanes) {
#pragma unroll
    for (int i = 0; i < E; ++i) head.outs[warp][lane * E + i] = part.out[i];
    head.tops[warp] = part.top;
    head.sums[warp] = part.sum;
  }
  __syncthreads();
  const T* z = a.proj + b * a.proj_stride + h * P;
  if (splits == 1) {
    for (int i = threadIdx.x; i < P; i += kThreads) {
      const Part<1> whole = join_warps(head, i, true);
      y[i] = from_float<T>(whole.out[0] / whole.sum * sigmoid<T>(to_float(z[i])));
    }
    return;
  }
  // parts: (B*H, splits, P + 2) floats, then one counter per (b, h)
  const int64_t item = int64_t{b} * s.heads + h, items = s.batch * s.heads;
  float* parts = a.workspace + item * a.splits * (P + 2);
  auto* arrived = reinterpret_cast<unsigned*>(a.workspace + items * a.splits * (P + 2)) + item;
  for (int i = threadIdx.x; i < P; i += kThreads) {
    const Part<1> whole = join_warps(head, i, split == 0);
    float* mine = parts + split * (P + 2);
    mine[i] = whole.out[0];
    if (i == 0) {
      mine[P] = whole.top;
      mine[P + 1] = whole.sum;
    }
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) head.last = atomicAdd(arrived, 1u) == static_cast<unsigned>(splits) - 1;
  __syncthreads();
  if (!head.last) return;
  __threadfence();
  for (int i = threadIdx.x; i < P; i += kThreads) {
    Part<1> whole{-INFINITY, 0.0f, {0.0f}};
    for (int other = 0; other < splits; ++other) {
      const volatile float* theirs = parts + other * (P + 2);
      const float out[1] = {theirs[i]};
      whole.join(theirs[P], theirs[P + 1], out);
    }
    y[i] = from_float<T>(whole.out[0] / whole.sum * sigmoid<T>(to_float(z[i])));
  }
  if (threadIdx.x == 0) *arrived = 0;
}

__global__ void advance_position_kernel(int32_t* position, int32_t tokens) { *position += tokens; }

template <class T, class C, int E>
Status launch(const RatDecodeArgs<T, C>& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(a.shape.heads), static_cast<unsigned>(a.shape.batch),
                  static_cast<unsigned>(a.splits));
  rat_decode_kernel<T, C, E><<<grid, kThreads, 0, stream>>>(a, static_cast<int>(a.shape.head_size) / E);
  return launched("rat_decode");
}

}  // namespace

int rat_decode_splits(const RatShape& s, int64_t keys) {
  int device = 0, processors = 132;
  if (cudaGetDevice(&device) == cudaSuccess)
    cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  const int64_t items = s.batch * s.heads;
  const int64_t wanted = (int64_t{4} * processors + items - 1) / items;
  return static_cast<int>(std::clamp<int64_t>(std::min(wanted, keys / kKeysOfSplit), 1, kMostSplits));
}

std::size_t rat_decode_workspace(const RatShape& s, int splits) {
  const auto items = static_cast<std::size_t>(s.batch * s.heads);
  return items * (static_cast<std::size_t>(splits) * static_cast<std::size_t>(s.head_size + 2) + 1) * sizeof(float);
}

template <class T, class C>
Status rat_decode(const RatDecodeArgs<T, C>& a, cudaStream_t stream) {
  RatShape shape = a.shape;
  shape.tokens = 1;
  RAT_CUDA_TRY(check_shape("rat_decode", shape));
  const int64_t P = shape.head_size;
  if ((P & (P - 1)) != 0)
    return refuse("rat_decode: head size %lld is not a power of two", static_cast<long long>(P));
  if (a.splits < 1 || a.splits > kMostSplits || (a.splits > 1 && a.workspace == nullptr) || a.capacity < 1)
    return refuse("rat_decode: %d splits (1 to %d, above 1 with a workspace) over a cache of %lld rows", a.splits,
                  kMostSplits, static_cast<long long>(a.capacity));
  if (a.proj_stride < shape.proj_width())
    return refuse("rat_decode: row stride %lld is below the %lld projected columns", static_cast<long long>(a.proj_stride),
                  static_cast<long long>(shape.proj_width()));
  if constexpr (kQuantised<C>) {
    if (P < 16 || a.scales.data == nullptr)
      return refuse("rat_decode: a cache in e4m3 with heads of %lld and %s scales; it takes heads of 16 to %d and scales",
                    static_cast<long long>(P), a.scales.data == nullptr ? "no" : "their", kMaxHead);
    return launch<T, C, 16>(a, stream);
  } else if constexpr (sizeof(T) == 2) {
    if (P >= 8) return launch<T, C, 8>(a, stream);
    return launch<T, C, 1>(a, stream);
  } else {
    if (P == 256) return launch<T, C, 8>(a, stream);
    if (P >= 4) return launch<T, C, 4>(a, stream);
    return launch<T, C, 1>(a, stream);
  }
}

Status advance_position(int32_t* position, cudaStream_t stream, int32_t tokens) {
  advance_position_kernel<<<1, 1, 0, stream>>>(position, tokens);
  return launched("advance_position");
}

template Status rat_decode<float, float>(const RatDecodeArgs<float>&, cudaStream_t);
template Status rat_decode<bf16, bf16>(const RatDecodeArgs<bf16>&, cudaStream_t);
template Status rat_decode<bf16, e4m3>(const RatDecodeArgs<bf16, e4m3>&, cudaStream_t);

}  // namespace rat::kernels::cuda
