// Up to 16 queries that share keys against the cached keys of a head, by a warp: the middle of group_decode.cu. A warp has tiles
// of 16 keys of its own, of which the next ones are on their way, and never waits for other warps. Rows of e4m3 are widened to
// bf16, which holds all their values, once for all queries; their scales multiply scores and weights.
#pragma once

#include "kernels/cuda/decode_parts.cuh"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/quantise.cuh"
#include "kernels/cuda/rat_decode.h"

namespace rat::kernels::cuda::decoding::groups {

using tiles::kLog2e;

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kQueries = 16, kKeys = 16;  // of a product; keys that a warp takes at a time
constexpr int kStages = 3;
constexpr float kLowest = -1e30f;  // where a running maximum starts: finite, so that differences are

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

// Of each warp: the tile that is at hand.
template <class C, int P>
struct Widened {};
template <int P>
struct Widened<e4m3, P> {
  Stage<bf16, P> widened[kWarps];
};

// Shared memory of a block.
template <class C, int P>
struct Memory : Widened<C, P> {
  // When the walks have ended, each warp's result lies where its stages were.
  Stage<C, P> stages[kWarps][kStages];
  bf16 queries[kQueries * P];  // rotated, a tile
  float own_score[kQueries];   // in log2 units
  float tops[kWarps][kQueries], sums[kWarps][kQueries];
  bool last;
  static_assert(sizeof stages[0] >= kQueries * P * sizeof(float) && kMostSplits <= P);
  __device__ float* result(int warp) { return reinterpret_cast<float*>(stages[warp]); }
};

// Four values of e4m3 as two pairs of bf16: their exponents are 120 apart. NaN becomes a number; its row's scale is NaN too.
__device__ __forceinline__ uint2 widened(unsigned four) {
  const auto pair = [](unsigned two) {  // in the upper bytes of its halves
    const unsigned bits = (two & 0x80008000u) | (two >> 4 & 0x07f007f0u);
    const __nv_bfloat162 values =
        __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&bits), __float2bfloat162_rn(0x1p120f));
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
      asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(tile + tiles::piece_at<P>(row, of_row)),
                   "r"(first.x), "r"(first.y), "r"(second.x), "r"(second.y)
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
  // Of cached head h of sequence b.
  __device__ TileWalk(const RatDecodeArgs<bf16, C>& args, const Rows<Mixer::shared_attention>& rows_read, int b, int h,
                      int from, int to, Memory<C, P>& memory)
      : a(args),
        rows(rows_read),
        begin(from + static_cast<int>(threadIdx.x) / 32 * kKeys),
        end(to),
        ring(memory.stages[threadIdx.x / 32]),
        keys(a.keys.at(b, h, 0)),
        values(a.values.at(b, h, 0)) {
    if constexpr (kQuantised<C>) {
      scales = a.scales.at(b, h, 0);
      wide = &memory.widened[threadIdx.x / 32];
    }
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
        tiles::copy_few<4>(tiles::shared_address(&ring[stage].scale[lane]),
                           scales + (j < end ? rows.of(j) : 0) * a.scales.row, j < end);
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

  // What arrived, as tiles of bf16.
  __device__ const Stage<bf16, P>& tile_of(const Stage<C, P>& from) {
    if constexpr (kQuantised<C>) {
      widen<P>(from.key, wide->key), widen<P>(from.value, wide->value);
      __syncwarp();
      return *wide;
    } else {
      return from;
    }
  }
  // products[n][..] times the scale (key: x, value: y) of its key; those of no key are zero.
  __device__ void multiply_by_scales(float (&products)[2][4], const Stage<C, P>& from, unsigned short ushort2::*which) {
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
  Stage<bf16, P>* wide = nullptr;
  const C *keys, *values;
  const ushort2* scales = nullptr;
};

}  // namespace rat::kernels::cuda::decoding::groups
