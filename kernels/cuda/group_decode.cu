// A block has a cached head and up to 16 of the heads that share it; a warp has tiles of 16 keys of its own, of which the
// next ones are on their way, and never waits for other warps. At the end the softmaxes of warps, blocks and the own key are
// joined.
#include "kernels/cuda/group_decode.h"

#include <algorithm>

#include "kernels/cuda/decode_parts.cuh"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/early_launch.cuh"

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

template <int P>
struct Stage {
  bf16 key[kKeys * P], value[kKeys * P];  // tiles of mma_tiles.cuh
};

template <int P>
struct Memory {
  Stage<P> stages[kWarps][kStages];  // when the walks have ended, each warp's result lies where its stages were
  bf16 queries[kQueries * P];        // rotated, a tile
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
  __device__ explicit Place(const RatDecodeArgs<bf16>& a)
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
  __device__ Token(const RatDecodeArgs<bf16>& a, const Place& place) {
    const bf16* row = a.proj + place.b * a.proj_stride;
    value = row + place.cached * P;
    queries = row + place.key_heads * P;
    key = queries + place.heads * P + place.cached * P;
  }
  __device__ const bf16* query(const Place& place, int i) const { return queries + place.head(i) * P; }
};

__device__ float2 turn_of(const RatDecodeArgs<bf16>& a, int position, int pair, int pairs) {
  return a.rope == nullptr ? make_float2(1.0f, 0.0f) : a.rope[int64_t{position} * pairs + pair];
}

// The group's rotated queries as a tile; rows without a head are zeros. The caller synchronises.
template <int P>
__device__ void rotate_queries(const RatDecodeArgs<bf16>& a, const Place& place, const Token<P>& token, int position,
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

// The own key's scores, and the token's row of the cache.
template <int P>
__device__ void take_own(const RatDecodeArgs<bf16>& a, const Place& place, const Token<P>& token, int position, int row,
                         float* own_score) {
  constexpr int half = P / 2;
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
  if (const int channel = threadIdx.x; place.first == 0 && channel < half) {
    const float2 turn = turn_of(a, position, channel, half);
    const float x = to_float(token.key[channel]), y = to_float(token.key[channel + half]);
    bf16 *key = a.keys.at(place.b, place.cached, row), *value = a.values.at(place.b, place.cached, row);
    key[channel] = from_float<bf16>(x * turn.x - y * turn.y);
    key[channel + half] = from_float<bf16>(y * turn.x + x * turn.y);
    value[channel] = token.value[channel];
    value[channel + half] = token.value[channel + half];
  }
}

// A warp's tiles of the keys [begin, end).
template <int P>
class TileWalk {
 public:
  __device__ TileWalk(const RatDecodeArgs<bf16>& args, const Rows<Mixer::shared_attention>& rows_read,
                      const Place& place, int from, int to, Stage<P>* stages)
      : a(args),
        rows(rows_read),
        begin(from + static_cast<int>(threadIdx.x) / 32 * kKeys),
        end(to),
        ring(stages),
        keys(a.keys.at(place.b, place.cached, 0)),
        values(a.values.at(place.b, place.cached, 0)) {
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
  static constexpr int kStep = kWarps * kKeys, kPieces = P / 8, kRowsAtOnce = 32 / kPieces;

  __device__ void fetch(int stage, int first) {
    const int lane = threadIdx.x % 32, piece = lane % kPieces;
    const uint32_t key_tile = tiles::shared_address(ring[stage].key),
                   value_tile = tiles::shared_address(ring[stage].value);
#pragma unroll
    for (int i = 0; i < kKeys; i += kRowsAtOnce) {
      const int in_tile = i + lane / kPieces, j = first + in_tile;
      const int64_t row = j < end ? rows.of(j) : 0;
      const uint32_t at = tiles::piece_at<P>(in_tile, piece);
      tiles::copy_16(key_tile + at, keys + row * a.keys.row + piece * 8, j < end);
      tiles::copy_16(value_tile + at, values + row * a.values.row + piece * 8, j < end);
    }
    tiles::commit_copies();
  }

  __device__ void absorb(const uint32_t (&query)[P / 16][4], const Stage<P>& from, int first) {
    const int lane = threadIdx.x % 32;
    const uint32_t keys_at = tiles::shared_address(from.key);
    float scores[1][2][4] = {};
#pragma unroll
    for (int k = 0; k < P / 16; ++k) {
      uint32_t right[4];
      tiles::load_matrices(right,
                           keys_at + tiles::piece_at<P>((lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
      tiles::mma(scores[0][0], query[k], right[0], right[1]);
      tiles::mma(scores[0][1], query[k], right[2], right[3]);
    }
    softmax(scores[0], first);
    uint32_t weights[1][1][4];
    tiles::as_left_operand<1, 2>(weights, scores);
    tiles::multiply_add<1, 1, P>(out, weights, tiles::shared_address(from.value));
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

  const RatDecodeArgs<bf16>& a;
  const Rows<Mixer::shared_attention>& rows;
  int begin, end;
  Stage<P>* ring;
  const bf16 *keys, *values;
};

// A warp's result to shared memory: rows of queries.
template <int P>
__device__ void leave_result(Memory<P>& memory, const TileWalk<P>& walk) {
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
template <int P>
__device__ Part<1> join_warps(Memory<P>& memory, int i, int channel, const bf16* value) {
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
template <int P>
__device__ void join_splits(Memory<P>& memory, const SplitParts& parts, const Place& place, int room, int splits,
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

template <int P>
__global__ void __launch_bounds__(kThreads, kBlocks<P>) group_decode_kernel(RatDecodeArgs<bf16> a) {
  extern __shared__ __align__(128) unsigned char raw[];
  auto& memory = *reinterpret_cast<Memory<P>*>(raw);
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
  TileWalk<P> walk(a, rows, place, begin, min(rows.seen, begin + per_split), memory.stages[threadIdx.x / 32]);
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

template <int P>
Status launch(const RatDecodeArgs<bf16>& a, cudaStream_t stream) {
  const auto kernel = group_decode_kernel<P>;
  constexpr int bytes = sizeof(Memory<P>);
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                       "group_decode: shared memory"));
  const int64_t groups = (a.shape.heads / a.kv_heads + kQueries - 1) / kQueries;
  const dim3 grid(static_cast<unsigned>(a.kv_heads * groups), static_cast<unsigned>(a.shape.batch),
                  static_cast<unsigned>(a.splits));
  if (a.early) return launch_early({"group_decode", grid, kThreads, bytes, stream}, kernel, a);
  kernel<<<grid, kThreads, bytes, stream>>>(a);
  return launched("group_decode");
}

}  // namespace

bool group_decode_takes(const RatShape& shape, int64_t kv_heads) {
  static const auto room = static_cast<std::size_t>(shared_memory_of_block());
  const bool fits =
      shape.head_size == 64 ? sizeof(Memory<64>) <= room : shape.head_size == 128 && sizeof(Memory<128>) <= room;
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

Status group_decode(const RatDecodeArgs<bf16>& a, cudaStream_t stream) {
  if (!a.shape.over_tokens() || a.recurrent || !group_decode_takes(a.shape, a.kv_heads) ||
      a.shape.heads % a.kv_heads != 0)
    return refuse(
        "group_decode: %lld heads of %lld with keys of %lld; it takes attention over tokens of heads of 64 or 128 that "
        "share keys evenly, where shared memory has room for them",
        static_cast<long long>(a.shape.heads), static_cast<long long>(a.shape.head_size),
        static_cast<long long>(a.kv_heads));
  return a.shape.head_size == 64 ? launch<64>(a, stream) : launch<128>(a, stream);
}

}  // namespace rat::kernels::cuda
