#include "kernels/cuda/rat_decode.h"

#include <algorithm>

#include "kernels/cuda/decode_keys.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/group_decode.h"

namespace rat::kernels::cuda {
namespace {

using namespace decoding;
using tiles::kLog2e;

static_assert(kMaxHead / 2 <= kThreads, "a thread for each rotated pair");

// Blocks per multiprocessor, as many as registers allow without spills: 16 channels of e4m3 take more a lane than 8 of
// bf16 at the same bytes in flight, and more still where they are converted in software.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
constexpr int kQuantisedBlocks = 5;
#else
constexpr int kQuantisedBlocks = 7;
#endif
template <class C, int E>
constexpr int kBlocks = kQuantised<C> ? kQuantisedBlocks : sizeof(C) == 4 || E == 1 ? 6 : 8;

// The head of the cache that has the keys and values of head h.
template <Mixer kMixer, class Args>
__device__ int cached_head(const Args& a, int h) {
  return kMixer == Mixer::shared_attention ? h % static_cast<int>(a.key_heads()) : h;
}

// Where a token's row has the parts of head h.
template <Mixer kMixer>
struct Columns {
  int value, query, key, gate;  // gate: of the recurrence

  template <class Args>
  __device__ Columns(const Args& a, int h) {
    const RatShape& s = a.shape;
    const int P = static_cast<int>(s.head_size), D = static_cast<int>(s.channels()), mine = h * P;
    if constexpr (kMixer == Mixer::rat) {
      const int group = h % static_cast<int>(s.groups) * P;
      value = static_cast<int>(s.value_column()) + mine, gate = static_cast<int>(s.gate_column()) + mine;
      query = static_cast<int>(s.query_column()) + group, key = static_cast<int>(s.key_column()) + group;
    } else if constexpr (kAttention<kMixer>) {
      const int KV = static_cast<int>(a.key_heads()) * P;
      value = cached_head<kMixer>(a, h) * P, query = KV + mine, key = KV + D + value, gate = 0;
    } else {
      query = D + mine, key = 2 * D + mine, value = 3 * D + mine, gate = 4 * D + mine;
    }
  }
};

// The same value, of which the compiler knows nothing: what follows from it is not computed before, and takes no registers.
__device__ __forceinline__ int taken_up_again(int value) {
  return __shfl_sync(0xffffffffu, value, 0);
}

// The rotated query, into shared memory; the caller synchronises.
template <Mixer kMixer, class T, class C>
__device__ void rotate_query(const RatDecodeArgs<T, C>& a, Head& head, int b, int h, int64_t c) {
  const int P = static_cast<int>(a.shape.head_size), half = P / 2;
  const T* q = a.proj + b * a.proj_stride + Columns<kMixer>(a, h).query;
  const float scale = rsqrtf(static_cast<float>(P)) * kLog2e;
  if (const int i = threadIdx.x; i < half) {
    const float2 turn = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[c * half + i];
    const float low = to_float(q[i]), high = to_float(q[i + half]);
    head.query[i] = (low * turn.x - high * turn.y) * scale;
    head.query[i + half] = (high * turn.x + low * turn.y) * scale;
  }
}

// The key and value in shared memory into row `to` of an e4m3 cache; for the whole block, after it wrote them.
template <class T>
__device__ void append_quantised(const RatDecodeArgs<T, e4m3>& a, const Head& head, int b, int h, int64_t to) {
  const int P = static_cast<int>(a.shape.head_size), warp = threadIdx.x / 32;
  if (warp > 1) return;
  const unsigned short scale = warp == 0 ? quantise_row(head.own_k, a.keys.at(b, h, to), P)
                                         : quantise_row(head.own_v, a.values.at(b, h, to), P);
  if (threadIdx.x % 32 == 0) (warp == 0 ? a.scales.at(b, h, to)->x : a.scales.at(b, h, to)->y) = scale;
}

// A channel of the running key and value goes on by one token, from nothing where `fresh`; attention over tokens has only
// the token's own.
template <Mixer kMixer, class T, class C>
__device__ float2 own_channel(const RatDecodeArgs<T, C>& a, const T* gates, int b, int64_t at, int channel, float k_new,
                              float v_new, bool fresh) {
  if constexpr (kAttention<kMixer>) return make_float2(k_new, v_new);
  const int64_t state = b * a.shape.channels() + at;
  const float k_old = fresh ? 0.0f : a.state_k[state], v_old = fresh ? 0.0f : a.state_v[state];
  float key, value;
  if constexpr (kMixer == Mixer::rat) {
    const float gate = sigmoid<T>(to_float(gates[channel]) + a.gate_bias[at]);
    key = fmaf(gate, k_old - k_new, k_new), value = fmaf(gate, v_old - v_new, v_new);
  } else {  // over a whole sequence 1 - gate counts, however small
    const float shut = 1.0f / (1.0f + __expf(to_float(gates[channel])));
    key = fmaf(-shut, k_old - k_new, k_old), value = fmaf(-shut, v_old - v_new, v_old);
  }
  a.state_k[state] = key;
  a.state_v[state] = value;
  return make_float2(key, value);
}

// Two channels of a key, rotated, and of its value, into row `to`.
template <class T>
__device__ void append(const RatDecodeArgs<T, T>& a, int b, int h, int64_t to, int i, const float (&key)[2],
                       const float (&value)[2]) {
  const int half = static_cast<int>(a.shape.head_size) / 2;
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    a.keys.at(b, h, to)[i + side * half] = from_float<T>(key[side]);
    a.values.at(b, h, to)[i + side * half] = from_float<T>(value[side]);
  }
}

// Running state, own score, and what is cached of this token, or at a chunk's last one. After the cache was read: its
// latency is the longer.
template <Mixer kMixer, class T, class C>
__device__ void update_state(const RatDecodeArgs<T, C>& a, Head& head, const Rows<kMixer>& rows, int b, int h, int64_t c,
                             int l) {
  const RatShape& s = a.shape;
  const Columns<kMixer> columns(a, h);
  const int P = static_cast<int>(s.head_size), half = P / 2, cached = cached_head<kMixer>(a, h);
  const T* row = a.proj + b * a.proj_stride;
  const T *q = row + columns.query, *k = row + columns.key, *v = row + columns.value, *gates = row + columns.gate;
  const bool ends = kMixer == Mixer::rat ? l == s.chunk_len - 1 : cached == h;
  const bool fresh = kMixer == Mixer::rat ? l == 0 : c == 0;
  float own = 0.0f;
  if (const int i = threadIdx.x; i < half) {
    float key[2], value[2];
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const int channel = i + side * half;
      const float2 now = own_channel<kMixer>(a, gates, b, h * P + channel, channel, to_float(k[channel]),
                                             to_float(v[channel]), fresh);
      key[side] = now.x, value[side] = now.y;
      head.own_v[channel] = now.y;
    }
    own = to_float(q[i]) * key[0] + to_float(q[i + half]) * key[1];
    if (ends) {
      const float2 turn = a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[c * half + i];
      const float turned[2] = {key[0] * turn.x - key[1] * turn.y, key[1] * turn.x + key[0] * turn.y};
      if constexpr (kQuantised<C>) {
        head.own_k[i] = turned[0];
        head.own_k[i + half] = turned[1];
      } else {
        append(a, b, cached, rows.own, i, turned, value);
        if (rows.kept >= 0) append(a, b, cached, rows.kept, i, turned, value);
      }
    }
  }
  own = sum_over_lanes(own);
  if (threadIdx.x % 32 == 0) head.own_score[threadIdx.x / 32] = own * rsqrtf(static_cast<float>(P)) * kLog2e;
  if constexpr (kQuantised<C>) {
    if (!ends) return;
    __syncthreads();
    append_quantised(a, head, b, cached, rows.own);
    if (rows.kept >= 0) append_quantised(a, head, b, cached, rows.kept);
  }
}

// The gate of a channel of the output.
template <Mixer kMixer, class T>
__device__ float output_gate(const T* z, int i) {
  if constexpr (kAttention<kMixer>) return 1.0f;
  return sigmoid<T>(to_float(z[i]));
}

template <Mixer kMixer, class T, class C, int E, int LANES>
__global__ void __launch_bounds__(kThreads, kBlocks<C, E>) rat_decode_kernel(RatDecodeArgs<T, C> a, int lanes) {
  __shared__ Head head;
  __shared__ Stage<C, E> stages[kWarps][kStages<C, E>];
  static_assert(sizeof stages[0] >= 32 * E * sizeof(float), "a warp's result lies where its stages were");
  const RatShape& s = a.shape;
  const int P = static_cast<int>(s.head_size), h = static_cast<int>(blockIdx.x), b = static_cast<int>(blockIdx.y);
  const int split = static_cast<int>(blockIdx.z);
  const int position = *a.position - a.ahead;
  const int c = kMixer == Mixer::rat ? static_cast<int>(position / s.chunk_len) : position;
  const Rows<kMixer> rows(a, c);
  // By the number of keys, not by the room for them, so that results do not depend on what the cache held before.
  const int splits = min(a.splits, max(1, rows.seen / static_cast<int>(a.keys_of_split)));
  if (split >= splits) return;
  const int l = kMixer == Mixer::rat ? static_cast<int>(position - c * s.chunk_len) : 0;
  T* y = a.y + b * s.channels() + h * P;
  if (position < 0 || rows.last() >= a.capacity || (a.rope != nullptr && c >= a.angles)) {
    for (int i = threadIdx.x; i < P; i += kThreads) y[i] = from_float<T>(NAN);
    return;
  }
  const int seen = rows.seen, per_split = (seen + splits - 1) / splits, begin = min(seen, split * per_split);
  KeyWalk<kMixer, T, C, E, LANES> walk(a, rows, b, cached_head<kMixer>(a, h), begin, min(seen, begin + per_split), lanes,
                                &stages[0][0]);
  wait_for_previous();
  start_next();
  rotate_query<kMixer>(a, head, b, h, c);  // while the first keys are on their way
  __syncthreads();
  const Part<E> part = walk.attend(head);
  if (split == 0) update_state<kMixer>(a, head, rows, taken_up_again(b), taken_up_again(h), c, l);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  tiles::wait_copies<0>();
  __syncwarp();
  auto* const out = reinterpret_cast<float*>(stages[warp]);
  if (lane < lanes) {
#pragma unroll
    for (int i = 0; i < E; ++i) out[lane * E + i] = part.out[i];
    head.outs[warp] = out;
    head.tops[warp] = part.top;
    head.sums[warp] = part.sum;
  }
  __syncthreads();
  const T* z = a.proj + b * a.proj_stride + h * P;
  if (splits == 1) {
    for (int i = threadIdx.x; i < P; i += kThreads) {
      const Part<1> whole = join_warps(head, i, true);
      y[i] = from_float<T>(whole.out[0] / whole.sum * output_gate<kMixer>(z, i));
    }
    return;
  }
  const SplitParts parts(a.workspace, s.batch * s.heads, int64_t{b} * s.heads + h, a.splits, P);
  for (int i = threadIdx.x; i < P; i += kThreads) parts.leave(0, a.splits, split, i, join_warps(head, i, split == 0));
  if (!parts.last_of(splits, head.last)) return;
  for (int i = threadIdx.x; i < P; i += kThreads) {
    const Part<1> whole = parts.joined(a.splits, splits, i);
    y[i] = from_float<T>(whole.out[0] / whole.sum * output_gate<kMixer>(z, i));
  }
}

__global__ void advance_position_kernel(int32_t* position, int32_t tokens) { *position += tokens; }

template <class T, class C, int E, int LANES>
Status launch_with(const RatDecodeArgs<T, C>& a, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(a.shape.heads), static_cast<unsigned>(a.shape.batch),
                  static_cast<unsigned>(a.splits));
  const int lanes = static_cast<int>(a.shape.head_size) / E;
  const auto start = [&](auto kernel) -> Status {
    if (a.early) return launch_early({"rat_decode", grid, kThreads, 0, stream}, kernel, a, lanes);
    kernel<<<grid, kThreads, 0, stream>>>(a, lanes);
    return launched("rat_decode");
  };
  if (!a.shape.over_tokens()) return start(rat_decode_kernel<Mixer::rat, T, C, E, LANES>);
  if constexpr (sizeof(T) == 2) {
    if (a.recurrent) return start(rat_decode_kernel<Mixer::ratplus, T, C, E, LANES>);
    if (a.key_heads() < a.shape.heads) return start(rat_decode_kernel<Mixer::shared_attention, T, C, E, LANES>);
    return start(rat_decode_kernel<Mixer::attention, T, C, E, LANES>);
  }
  return refuse("rat_decode: attention over tokens in float32; it is there in bf16");
}

template <class T, class C, int E>
Status launch(const RatDecodeArgs<T, C>& a, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2 && E > 1) {
    if (a.shape.head_size == 64) return launch_with<T, C, E, 64 / E>(a, stream);
    if (a.shape.head_size == 128) return launch_with<T, C, E, 128 / E>(a, stream);
  }
  return launch_with<T, C, E, 0>(a, stream);
}

}  // namespace

int rat_decode_splits(const RatShape& s, int64_t keys, int64_t kv_heads) {
  if (group_decode_pays(s, kv_heads, keys)) return group_decode_splits(s, kv_heads, keys);
  const int64_t items = s.batch * s.heads;
  const int64_t wanted = (int64_t{4} * multiprocessors() + items - 1) / items;
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
  if (a.proj_stride < a.projected())
    return refuse("rat_decode: row stride %lld is below the %lld projected columns", static_cast<long long>(a.proj_stride),
                  static_cast<long long>(a.projected()));
  if (shape.over_tokens() && (shape.chunk_len != 1 || shape.groups != shape.heads))
    return refuse("rat_decode: attention over tokens has chunks of 1 and a key for each head, not %lld and %lld",
                  static_cast<long long>(shape.chunk_len), static_cast<long long>(shape.groups));
  if ((a.kv_heads > 0 && (a.recurrent || !shape.over_tokens() || shape.heads % a.kv_heads != 0)) ||
      (a.recurrent && (!shape.over_tokens() || a.state_k == nullptr || a.state_v == nullptr)) ||
      (a.before.dilated() && (!a.recurrent || shape.window < 0 || a.before.offset != -shape.window)))
    return refuse("rat_decode: %lld heads with keys of %lld, %srecurrent, %sdilated; attention over tokens shares keys, and what "
                  "is recurrent has states, and a window where it is dilated",
                  static_cast<long long>(shape.heads), static_cast<long long>(a.kv_heads), a.recurrent ? "" : "not ",
                  a.before.dilated() ? "" : "not ");
  if constexpr (kQuantised<C>) {
    if (P < 16 || a.scales.data == nullptr)
      return refuse("rat_decode: a cache in e4m3 with heads of %lld and %s scales; it takes heads of 16 to %d and scales",
                    static_cast<long long>(P), a.scales.data == nullptr ? "no" : "their", kMaxHead);
  }
  if constexpr (sizeof(T) == 2) {
    // Two heads have read a row of e4m3 twice before a block has widened it for both.
    const bool two_share = kQuantised<C> && shape.heads <= 2 * a.kv_heads;
    if (shape.over_tokens() && !two_share && group_decode_pays(shape, a.kv_heads, a.capacity))
      return group_decode(a, stream);
  }
  if constexpr (kQuantised<C>) {
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
