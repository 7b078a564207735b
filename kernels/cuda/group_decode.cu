// A block has a cached head and up to 16 of the heads that share it. Its warps go through the keys (group_keys.cuh); at the
// end the softmaxes of warps, blocks and the own key are joined.
#include "kernels/cuda/group_decode.h"

#include <algorithm>

#include "kernels/cuda/decode_parts.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/group_keys.cuh"

namespace rat::kernels::cuda {
namespace {

using namespace decoding;
using namespace decoding::groups;
using tiles::kLog2e;

constexpr int kKeysOfBlock = 256;  // fewer are not worth a split: one block joins the parts of all heads of a group
constexpr int64_t kFewKeys = 16384;  // of all sequences and cached heads; measured in docs/benchmarks/h200.md
template <int P>
constexpr int kBlocks = P == 64 ? 4 : 2;  // per multiprocessor, by shared memory

// What a block works on.
struct Place {
  int b, cached, first, count;  // sequence, cached head, first of the heads that share it, how many of them
  int heads, key_heads;
  template <class C>
  __device__ explicit Place(const RatDecodeArgs<bf16, C>& a)
      : b(static_cast<int>(blockIdx.y)),
        heads(static_cast<int>(a.shape.heads)),
        key_heads(static_cast<int>(a.kv_heads)) {
    cached = static_cast<int>(blockIdx.x) % key_heads;
    first = static_cast<int>(blockIdx.x) / key_heads * kQueries;
    count = min(kQueries, heads / key_heads - first);
  }
  __device__ int head(int i) const { return cached + (first + i) * key_heads; }
};

// A token's row: v (KV) | q (D) | k (KV).
template <int P>
struct Token {
  const bf16 *value, *queries, *key;
  template <class C>
  __device__ Token(const RatDecodeArgs<bf16, C>& a, const Place& place) {
    const bf16* row = a.proj + place.b * a.proj_stride;
    value = row + place.cached * P;
    queries = row + place.key_heads * P;
    key = queries + place.heads * P + place.cached * P;
  }
  __device__ const bf16* query(const Place& place, int i) const { return queries + place.head(i) * P; }
};

template <class C>
__device__ float2 turn_of(const RatDecodeArgs<bf16, C>& a, int position, int pair, int pairs) {
  return a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[int64_t{position} * pairs + pair];
}

// The group's rotated queries as a tile; rows without a head are zeros. The caller synchronises.
template <int P, class C>
__device__ void rotate_queries(const RatDecodeArgs<bf16, C>& a, const Place& place, const Token<P>& token, int position,
                               bf16* to) {
  constexpr int half = P / 2;
#pragma unroll
  for (int step = 0; step < kQueries * half / kThreads; ++step) {  // all loads at once
    const int i = (step * kThreads + threadIdx.x) / half, channel = threadIdx.x % half;
    float low = 0.0f, high = 0.0f;
    if (i < place.count) {
      const bf16* q = token.query(place, i);
      const float2 turn = turn_of(a, position, channel, half);
      const float x = to_float(q[channel]), y = to_float(q[channel + half]);
      low = x * turn.x - y * turn.y, high = y * turn.x + x * turn.y;
    }
    const auto put = [&](int element, float value) {
      to[tiles::piece_at<P>(i, element / 8) / sizeof(bf16) + element % 8] = from_float<bf16>(value);
    };
    put(channel, low);
    put(channel + half, high);
  }
}

// The token's row of the cache; one of e4m3 takes a warp for the key and one for the value.
template <int P, class C>
__device__ void append(const RatDecodeArgs<bf16, C>& a, const Place& place, const Token<P>& token, int position, int row) {
  constexpr int half = P / 2;
  const auto turned = [&](int channel) {
    const float2 turn = turn_of(a, position, channel, half);
    const float x = to_float(token.key[channel]), y = to_float(token.key[channel + half]);
    return make_float2(x * turn.x - y * turn.y, y * turn.x + x * turn.y);
  };
  C *const keys = a.keys.at(place.b, place.cached, row), *const values = a.values.at(place.b, place.cached, row);
  if constexpr (kQuantised<C>) {
    __shared__ float key[P];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    ushort2* const scale = a.scales.at(place.b, place.cached, row);
    if (warp == 0) {
      for (int channel = lane; channel < half; channel += 32) {
        const float2 now = turned(channel);
        key[channel] = now.x, key[channel + half] = now.y;
      }
      __syncwarp();
      const unsigned short of_key = quantise_row(key, keys, P);
      if (lane == 0) scale->x = of_key;
    } else if (warp == 1) {
      const unsigned short of_value = quantise_row(token.value, values, P);
      if (lane == 0) scale->y = of_value;
    }
  } else if (const int channel = threadIdx.x; channel < half) {
    const float2 now = turned(channel);
    keys[channel] = from_float<bf16>(now.x);
    keys[channel + half] = from_float<bf16>(now.y);
    values[channel] = token.value[channel];
    values[channel + half] = token.value[channel + half];
  }
}

// The own key's scores, and the token's row of the cache.
template <int P, class C>
__device__ void take_own(const RatDecodeArgs<bf16, C>& a, const Place& place, const Token<P>& token, int position, int row,
                         float* own_score) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 0; step < kQueries / kWarps; ++step) {
    const int i = step * kWarps + threadIdx.x / 32;
    if (i >= place.count) break;
    const bf16* q = token.query(place, i);
    float dot = 0.0f;
#pragma unroll
    for (int channel = lane; channel < P; channel += 32)
      dot = fmaf(to_float(q[channel]), to_float(token.key[channel]), dot);
    dot = sum_over_lanes(dot);
    if (lane == 0) own_score[i] = dot * rsqrtf(static_cast<float>(P)) * kLog2e;
  }
  if (place.first == 0) append<P>(a, place, token, position, row);
}

// A warp's result to shared memory: rows of queries.
template <class C, int P>
__device__ void leave_result(Memory<C, P>& memory, const TileWalk<C, P>& walk) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* to = memory.result(warp);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = lane / 4 + 8 * i;
    const float sum = tiles::row_sum(walk.sum[i]);
    if (lane % 4 == 0) memory.tops[warp][row] = walk.top[i], memory.sums[warp][row] = sum;
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
      *reinterpret_cast<float2*>(to + row * P + n * 8 + lane % 4 * 2) =
          make_float2(walk.out[0][n][2 * i], walk.out[0][n][2 * i + 1]);
  }
}

// Channel `channel` of query i: the warps' parts, and the own key where `value` is not null.
template <class C, int P>
__device__ Part<1> join_warps(Memory<C, P>& memory, int i, int channel, const bf16* value) {
  Part<1> whole{-INFINITY, 0.0f, {0.0f}};
  if (value != nullptr) whole = {memory.own_score[i], 1.0f, {to_float(value[channel])}};
  for (int warp = 0; warp < kWarps; ++warp) {
    const float out[1] = {memory.result(warp)[i * P + channel]};
    whole.join(memory.tops[warp][i], memory.sums[warp][i], out);
  }
  return whole;
}

// The parts that all splits left of the group's heads. A thread has a channel of several heads, so that many loads are on
// their way: one after the other they took longer than the keys.
template <class C, int P>
__device__ void join_splits(Memory<C, P>& memory, const SplitParts& parts, const Place& place, int room, int splits,
                            bf16* y) {
  const int lane = threadIdx.x % 32;
  float* const shares = memory.result(0);  // (kQueries, kMostSplits): what a split's weights count for in the whole
  for (int i = threadIdx.x / 32; i < place.count; i += kWarps) {
    float top = -INFINITY, sum = 0.0f;
    for (int split = lane; split < splits; split += 32)
      top = fmaxf(top, __ldcg(parts.top(i * place.key_heads, room, split)));
    top = largest_over_lanes(top);
    for (int split = lane; split < splits; split += 32) {
      const float* theirs = parts.top(i * place.key_heads, room, split);
      const float weight = exp2_fast(__ldcg(theirs) - top);
      shares[i * kMostSplits + split] = weight;
      sum = fmaf(weight, __ldcg(theirs + 1), sum);
    }
    const float whole = 1.0f / sum_over_lanes(sum);
    for (int split = lane; split < splits; split += 32) shares[i * kMostSplits + split] *= whole;
  }
  __syncthreads();
  constexpr int together = kThreads / P, each = kQueries / together;
  const int channel = threadIdx.x % P, first = threadIdx.x / P;
  float out[each] = {};
#pragma unroll 4
  for (int split = 0; split < splits; ++split)
#pragma unroll
    for (int j = 0; j < each; ++j)
      if (const int i = first + j * together; i < place.count)
        out[j] =
            fmaf(shares[i * kMostSplits + split], __ldcg(parts.of(i * place.key_heads, room, split) + channel), out[j]);
#pragma unroll
  for (int j = 0; j < each; ++j)
    if (const int i = first + j * together; i < place.count) y[place.head(i) * P + channel] = from_float<bf16>(out[j]);
}

template <class C, int P>
__global__ void __launch_bounds__(kThreads, kBlocks<P>) group_decode_kernel(RatDecodeArgs<bf16, C> a) {
  extern __shared__ __align__(128) unsigned char raw[];
  auto& memory = *reinterpret_cast<Memory<C, P>*>(raw);
  const Place place(a);
  const int split = static_cast<int>(blockIdx.z), position = *a.position - a.ahead;
  const Rows<Mixer::shared_attention> rows(a, position);
  // By the number of keys, not by the room for them: as in rat_decode.cu.
  const int splits = min(a.splits, max(1, rows.seen / static_cast<int>(a.keys_of_split)));
  if (split >= splits) return;
  bf16* const y = a.y + place.b * a.shape.channels();
  const auto for_each_channel = [&](const auto& body) {
    for (int at = threadIdx.x; at < place.count * P; at += kThreads) body(at / P, at % P);
  };
  if (position < 0 || rows.last() >= a.capacity || (a.rope != nullptr && position >= a.angles)) {
    for_each_channel([&](int i, int channel) { y[place.head(i) * P + channel] = from_float<bf16>(NAN); });
    return;
  }
  const int per_split = (rows.seen + splits - 1) / splits, begin = min(rows.seen, split * per_split);
  TileWalk<C, P> walk(a, rows, place.b, place.cached, begin, min(rows.seen, begin + per_split),
                      memory);
  wait_for_previous();
  start_next();
  const Token<P> token(a, place);
  rotate_queries<P>(a, place, token, position, memory.queries);  // while the first keys are on their way
  if (split == 0) take_own<P>(a, place, token, position, rows.own, memory.own_score);
  __syncthreads();
  walk.attend(tiles::shared_address(memory.queries));
  leave_result(memory, walk);
  __syncthreads();
  const bf16* own_value = split == 0 ? token.value : nullptr;
  if (splits == 1) {
    for_each_channel([&](int i, int channel) {
      const Part<1> whole = join_warps(memory, i, channel, own_value);
      y[place.head(i) * P + channel] = from_float<bf16>(whole.out[0] / whole.sum);
    });
    return;
  }
  // Heads that share a key are key_heads items apart.
  const SplitParts parts(a.workspace, a.shape.batch * a.shape.heads, int64_t{place.b} * place.heads + place.head(0),
                         a.splits, P);
  for_each_channel([&](int i, int channel) {
    parts.leave(i * place.key_heads, a.splits, split, channel, join_warps(memory, i, channel, own_value));
  });
  if (parts.last_of(splits, memory.last)) join_splits(memory, parts, place, a.splits, splits, y);
}

template <int P, class C>
Status launch(const RatDecodeArgs<bf16, C>& a, cudaStream_t stream) {
  const auto kernel = group_decode_kernel<C, P>;
  constexpr int bytes = sizeof(Memory<C, P>);
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "group_decode: shared memory"));
  const int64_t groups = (a.shape.heads / a.kv_heads + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(a.kv_heads * groups), static_cast<unsigned>(a.shape.batch),
                  static_cast<unsigned>(a.splits));
  if (a.early) return launch_early({"group_decode", grid, kThreads, bytes, stream}, kernel, a);
  kernel<<<grid, kThreads, bytes, stream>>>(a);
  return launched("group_decode");
}

template <int P>
constexpr std::size_t most_bytes = std::max(sizeof(Memory<bf16, P>), sizeof(Memory<e4m3, P>));

}  // namespace

bool group_decode_takes(const RatShape& shape, int64_t kv_heads) {
  static const auto room = static_cast<std::size_t>(shared_memory_of_block());
  const bool fits =
      shape.head_size == 64 ? most_bytes<64> <= room : shape.head_size == 128 && most_bytes<128> <= room;
  return kv_heads > 0 && kv_heads < shape.heads && fits;
}

bool group_decode_pays(const RatShape& shape, int64_t kv_heads, int64_t keys) {
  return group_decode_takes(shape, kv_heads) && shape.batch * kv_heads * keys >= kFewKeys;
}

int group_decode_splits(const RatShape& shape, int64_t kv_heads, int64_t keys) {
  const int64_t blocks = shape.batch * kv_heads * ((shape.heads / kv_heads + kQueries - 1) / kQueries);
  const int64_t room = int64_t{multiprocessors()} * (shape.head_size == 64 ? kBlocks<64> : kBlocks<128>);
  return static_cast<int>(std::clamp<int64_t>(std::min(room / blocks, keys / kKeysOfBlock), 1, kMostSplits));
}

template <class C>
Status group_decode(const RatDecodeArgs<bf16, C>& a, cudaStream_t stream) {
  if (!a.shape.over_tokens() || a.recurrent || !group_decode_takes(a.shape, a.kv_heads) ||
      a.shape.heads % a.kv_heads != 0)
    return refuse(
        "group_decode: %lld heads of %lld with keys of %lld; it takes attention over tokens of heads of 64 or 128 that "
        "share keys evenly, where shared memory has room for them",
        static_cast<long long>(a.shape.heads), static_cast<long long>(a.shape.head_size),
        static_cast<long long>(a.kv_heads));
  return a.shape.head_size == 64 ? launch<64>(a, stream) : launch<128>(a, stream);
}

template Status group_decode(const RatDecodeArgs<bf16>&, cudaStream_t);
template Status group_decode(const RatDecodeArgs<bf16, e4m3>&, cudaStream_t);

}  // namespace rat::kernels::cuda
