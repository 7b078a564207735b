// A block has a cached head and up to 16 of the heads that share it; a warp has tiles of 16 keys of its own, of which the
// next ones are on their way, and never waits for other warps. At the end the softmaxes of warps, blocks and the own key are
// joined. Rows of e4m3 are widened to bf16, which holds all their values, once for all heads; their scales multiply scores
// and weights.
#include "kernels/cuda/group_decode.h"

#include <algorithm>
#include <type_traits>

#include "kernels/cuda/decode_parts.cuh"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/quantise.cuh"

namespace rat::kernels::cuda {
namespace {

using namespace decoding;
using tiles::kLog2e;

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kQueries = 16, kKeys = 16;  // of a product; keys that a warp takes at a time
constexpr int kStages = 3;
constexpr int kKeysOfBlock = 256;  // fewer are not worth a split: one block joins the parts of all heads of a group
constexpr int64_t kFewKeys = 16384;  // of all sequences and cached heads; measured in docs/benchmarks/h200.md
constexpr float kLowest = -1e30f;  // where a running maximum starts: finite, so that differences are
template <int P>
constexpr int kBlocks = P == 64 ? 4 : 2;  // per multiprocessor, by shared memory

template <class C>
constexpr bool kQuantised = std::is_same_v<C, e4m3>;

// What a warp has on its way, of a cache of C: tiles of mma_tiles.cuh, or rows as they lie in memory and their scales.
template <class C, int P>
struct Stage {
  bf16 key[kKeys * P], value[kKeys * P];
};
template <int P>
struct Stage<e4m3, P> {
  e4m3 key[kKeys * P], value[kKeys * P];
  ushort2 scale[kKeys];
};

template <class C, int P>
struct Memory {
  // When the walks have ended, each warp's result lies where its stages were.
  Stage<C, P> stages[kWarps][kStages];
  Stage<bf16, P> widened[kQuantised<C> ? kWarps : 1];  // of a warp: the tile that is at hand
  bf16 queries[kQueries * P];                          // rotated, a tile
  float own_score[kQueries];         // in log2 units
  float tops[kWarps][kQueries], sums[kWarps][kQueries];
  bool last;
  static_assert(sizeof stages[0] >= kQueries * P * sizeof(float) && kMostSplits <= P);
  __device__ float* result(int warp) { return reinterpret_cast<float*>(stages[warp]); }
};

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

// The token's row of the cache, by its first warp or, of e4m3, two.
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

// Four values of e4m3 as two pairs of bf16: their exponents are 120 apart. NaN becomes a number; its row's scale is NaN too.
__device__ __forceinline__ uint2 widened(unsigned four) {
  const auto pair = [](unsigned two) {  // in the upper bytes of its halves
    const unsigned bits = (two & 0x80008000u) | (two >> 4 & 0x07f007f0u);
    const __nv_bfloat162 values = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), __float2bfloat162_rn(0x1p120f));
    return *reinterpret_cast<const unsigned*>(&values);
  };
  return {pair(__byte_perm(four, 0, 0x1404)), pair(__byte_perm(four, 0, 0x3424))};
}

// A warp's rows of e4m3 as a tile.
template <int P>
__device__ __forceinline__ void widen(const e4m3* from, bf16* to) {
  constexpr int pieces = P / 16;  // of a row, 16 values each
  const uint32_t tile = tiles::shared_address(to);
#pragma unroll
  for (int i = 0; i < kKeys * pieces / 32; ++i) {
    const int at = i * 32 + static_cast<int>(threadIdx.x) % 32, row = at / pieces, piece = at % pieces;
    const uint4 values = *reinterpret_cast<const uint4*>(from + at * 16);
    const auto put = [&](int of_row, uint2 first, uint2 second) {
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(tile + tiles::piece_at<P>(row, of_row)), "r"(first.x),
                   "r"(first.y), "r"(second.x), "r"(second.y)
                   : "memory");
    };
    put(piece * 2, widened(values.x), widened(values.y));
    put(piece * 2 + 1, widened(values.z), widened(values.w));
  }
}

// A warp's tiles of the keys [begin, end).
template <class C, int P>
class TileWalk {
 public:
  __device__ TileWalk(const RatDecodeArgs<bf16, C>& args, const Rows<Mixer::shared_attention>& rows_read,
                      const Place& place, int from, int to, Memory<C, P>& memory)
      : a(args),
        rows(rows_read),
        begin(from + static_cast<int>(threadIdx.x) / 32 * kKeys),
        end(to),
        ring(memory.stages[threadIdx.x / 32]),
        wide(memory.widened[kQuantised<C> ? threadIdx.x / 32 : 0]),
        keys(a.keys.at(place.b, place.cached, 0)),
        values(a.values.at(place.b, place.cached, 0)) {
    if constexpr (kQuantised<C>) scales = a.scales.at(place.b, place.cached, 0);
#pragma unroll
    for (int stage = 0; stage < kStages; ++stage) fetch(stage, begin + stage * kStep);
  }

  // Of two rows of queries, lane / 4 and 8 below: maxima (log2 units), this lane's sums, weighted values.
  float top[2] = {kLowest, kLowest}, sum[2] = {}, out[1][P / 8][4] = {};

  __device__ void attend(uint32_t queries) {
    const int lane = threadIdx.x % 32;
    uint32_t query[P / 16][4];
#pragma unroll
    for (int k = 0; k < P / 16; ++k)
      tiles::load_matrices(query[k], queries + tiles::piece_at<P>(lane & 15, k * 2 + (lane >> 4)));
    int stage = 0;
    for (int first = begin; first < end; first += kStep) {
      tiles::wait_copies<kStages - 1>();
      __syncwarp();
      absorb(query, ring[stage], first);
      __syncwarp();
      fetch(stage, first + kStages * kStep);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    tiles::wait_copies<0>();
    __syncwarp();
  }

 private:
  static constexpr int kStep = kWarps * kKeys, kEach = 16 / sizeof(C), kPieces = P / kEach, kRowsAtOnce = 32 / kPieces;

  __device__ void fetch(int stage, int first) {
    const int lane = threadIdx.x % 32, piece = lane % kPieces;
    const uint32_t key_tile = tiles::shared_address(ring[stage].key),
                   value_tile = tiles::shared_address(ring[stage].value);
    if constexpr (kQuantised<C>) {
      if (lane < kKeys) {
        const int j = first + lane;
        tiles::copy_few<4>(tiles::shared_address(&ring[stage].scale[lane]), scales + (j < end ? rows.of(j) : 0) * a.scales.row,
                           j < end);
      }
    }
#pragma unroll
    for (int i = 0; i < kKeys; i += kRowsAtOnce) {
      const int in_tile = i + lane / kPieces, j = first + in_tile;
      const int64_t row = j < end ? rows.of(j) : 0;
      const uint32_t at = kQuantised<C> ? in_tile * P + piece * kEach : tiles::piece_at<P>(in_tile, piece);
      tiles::copy_16(key_tile + at, keys + row * a.keys.row + piece * kEach, j < end);
      tiles::copy_16(value_tile + at, values + row * a.values.row + piece * kEach, j < end);
    }
    tiles::commit_copies();
  }

  // The tile of a stage, which may be there for this warp alone.
  __device__ const Stage<bf16, P>& tile_of(const Stage<C, P>& from) {
    if constexpr (kQuantised<C>) {
      widen<P>(from.key, wide.key), widen<P>(from.value, wide.value);
      __syncwarp();
      return wide;
    } else {
      return from;
    }
  }
  // values[n][..] times the scale (key: x, value: y) of its key; those of no key are zero.
  __device__ void multiply_by_scales(float (&products)[2][4], const Stage<C, P>& from, unsigned short ushort2::* which) {
    if constexpr (kQuantised<C>) {
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const float scale = scale_of(from.scale[n * 8 + threadIdx.x % 4 * 2 + e].*which);
          products[n][e] *= scale, products[n][2 + e] *= scale;
        }
    }
  }

  __device__ void absorb(const uint32_t (&query)[P / 16][4], const Stage<C, P>& from, int first) {
    const int lane = threadIdx.x % 32;
    const Stage<bf16, P>& tile = tile_of(from);
    const uint32_t keys_at = tiles::shared_address(tile.key);
    float scores[1][2][4] = {};
#pragma unroll
    for (int k = 0; k < P / 16; ++k) {
      uint32_t right[4];
      tiles::load_matrices(right,
                           keys_at + tiles::piece_at<P>((lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
      tiles::mma(scores[0][0], query[k], right[0], right[1]);
      tiles::mma(scores[0][1], query[k], right[2], right[3]);
    }
    multiply_by_scales(scores[0], from, &ushort2::x);
    softmax(scores[0], first);
    multiply_by_scales(scores[0], from, &ushort2::y);
    uint32_t weights[1][1][4];
    tiles::as_left_operand<1, 2>(weights, scores);
    tiles::multiply_add<1, 1, P>(out, weights, tiles::shared_address(tile.value));
  }

  __device__ void softmax(float (&scores)[2][4], int first) {
    const float scale = rsqrtf(static_cast<float>(P)) * kLog2e;
    float shrink[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float highest = -INFINITY;
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][2 * i + e];
          if (first + n * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + e >= end) score = -INFINITY;
          highest = fmaxf(highest, score);
        }
      const float new_top = fmaxf(top[i], tiles::row_max(highest) * scale);
      shrink[i] = exp2_fast(top[i] - new_top);
      top[i] = new_top;
      sum[i] *= shrink[i];
#pragma unroll
      for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][2 * i + e];
          score = exp2_fast(fmaf(score, scale, -new_top));
          sum[i] += score;
        }
    }
    if (__all_sync(0xffffffffu, shrink[0] == 1.0f && shrink[1] == 1.0f)) return;
#pragma unroll
    for (int n = 0; n < P / 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) out[0][n][e] *= shrink[e / 2];
  }

  const RatDecodeArgs<bf16, C>& a;
  const Rows<Mixer::shared_attention>& rows;
  int begin, end;
  Stage<C, P>* ring;
  Stage<bf16, P>& wide;
  const C *keys, *values;
  const ushort2* scales = nullptr;
};

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
  TileWalk<C, P> walk(a, rows, place, begin, min(rows.seen, begin + per_split), memory);
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
