// One query against the cached keys of a head, by a block: the middle of rat_decode.cu. Lanes share a key, warps have
// keys of their own, and their softmaxes are joined in order at the end.
#pragma once

#include <type_traits>

#include "kernels/cuda/decode_parts.cuh"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/quantise.cuh"
#include "kernels/cuda/rat_decode.h"

namespace rat::kernels::cuda::decoding {

constexpr int kWarps = 4, kThreads = kWarps * 32;
constexpr int kAhead = 2;  // keys and values that a lane takes at a time
constexpr int kMaxHead = 256;

struct Head {  // of one block, in shared memory
  float query[kMaxHead];  // rotated, times log2(e) / sqrt P
  float own_k[kMaxHead], own_v[kMaxHead];  // the key rotated, and only where an e4m3 cache takes the token in
  float tops[kWarps], sums[kWarps];
  float* outs[kWarps];  // where the stages of a warp were
  float own_score[kWarps];
  bool last;
};

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

// What a lane has in flight: its pieces of the next keys and values, which it alone writes and reads, so that nothing
// waits for other lanes. Shared memory instead of registers: they can be asked for before the query is known, and more of
// them without costing blocks.
template <bool>
struct StageScales {};
template <>
struct StageScales<true> {
  ushort2 scale[kAhead][32];
};
template <class C, int E>
struct alignas(16) Stage : StageScales<kQuantised<C>> {
  Pack<C, E> key[kAhead][32], value[kAhead][32];
};
template <class C, int E>
constexpr int kStages = sizeof(Pack<C, E>) > 16 ? 2 : 3;

// A piece of a row, or zeros.
template <class Piece>
__device__ __forceinline__ void copy_piece(Piece* to, const void* from, bool valid) {
  constexpr int size = sizeof(Piece);
  if constexpr (size >= 16) {
#pragma unroll
    for (int at = 0; at < size; at += 16)
      tiles::copy_16(tiles::shared_address(to) + at, static_cast<const char*>(from) + at, valid);
  } else if constexpr (size >= 4) {
    tiles::copy_few<size>(tiles::shared_address(to), from, valid);
  } else {
    *to = valid ? *static_cast<const Piece*>(from) : Piece{};
  }
}

// Keys [begin, end) of a head: `lanes` lanes hold one key; the 32/lanes keys of a warp, and the warps, go on alone. LANES:
// how many, where the compiler knows it (the sums over lanes are a fifth of the instructions as loops), else 0.
template <Mixer kMixer, class T, class C, int E, int LANES>
class KeyWalk {
 public:
  __device__ KeyWalk(const RatDecodeArgs<T, C>& args, const Rows<kMixer>& rows_read, int b, int h, int from, int to,
                     int lanes_of_key, Stage<C, E>* stages)
      : a(args), rows(rows_read), begin(from), end(to), lanes(LANES > 0 ? LANES : lanes_of_key), lane(threadIdx.x % 32),
        part(lane % lanes), slots(kWarps * (32 / lanes)), slot(lane / lanes + threadIdx.x / 32 * (32 / lanes)),
        keys(a.keys.at(b, h, 0) + part * E), values(a.values.at(b, h, 0) + part * E),
        ring(stages + threadIdx.x / 32 * kStages<C, E>) {
    if constexpr (kQuantised<C>) scales = a.scales.at(b, h, 0);
#pragma unroll
    for (int stage = 0; stage < kStages<C, E>; ++stage) fetch(stage, begin + stage * step());
  }

  __device__ Part<E> attend(const Head& head) {
    Part<E> result{-INFINITY, 0.0f, {}};
    const Query<C, E> query(head.query + part * E, lanes);
    int stage = 0;
    for (int first = begin; first < end; first += step()) {  // the same trip count for all lanes
      tiles::wait_copies<kStages<C, E> - 1>();
      absorb(result, query, ring[stage], first);
      fetch(stage, first + kStages<C, E> * step());
      stage = stage + 1 == kStages<C, E> ? 0 : stage + 1;
    }
    result.join_lanes(lanes);
    return result;
  }

 private:
  __device__ int step() const { return slots * kAhead; }

  __device__ void fetch(int stage, int first) {
    Stage<C, E>& to = ring[stage];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      const int j = first + u * slots + slot;
      const auto row = static_cast<unsigned>(j < end ? rows.of(j) : 0);
      copy_piece(&to.key[u][lane], keys + wide(row, a.keys.row), j < end);
      if constexpr (kQuantised<C>) copy_piece(&to.scale[u][lane], scales + wide(row, a.scales.row), j < end);
      copy_piece(&to.value[u][lane], values + wide(row, a.values.row), j < end);
    }
    tiles::commit_copies();
  }

  __device__ void absorb(Part<E>& result, const Query<C, E>& query, const Stage<C, E>& from, int first) {
    float score[kAhead], top = result.top;
    ushort2 scale[kAhead] = {};
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      if constexpr (kQuantised<C>) scale[u] = from.scale[u][lane];
      score[u] = query.dot(from.key[u][lane]);
    }
    sum_over_lanes_of_key(score);
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      score[u] = first + u * slots + slot < end ? query.whole(score[u], scale[u]) : -INFINITY;
      top = fmaxf(top, score[u]);
    }
    if (first + slot >= end) return;  // this lane has no key here; one whose score is NaN must be seen
    const float shrink = exp2_fast(result.top - top);
    result.sum *= shrink;
#pragma unroll
    for (int i = 0; i < E; ++i) result.out[i] *= shrink;
    float weight[kAhead];
    Pack<C, E> value[kAhead];
#pragma unroll
    for (int u = 0; u < kAhead; ++u) {
      result.sum += weight[u] = exp2_fast(score[u] - top);
      value[u] = from.value[u][lane];
    }
    add_values(value, weight, scale, result.out);
    result.top = top;
  }

  __device__ void sum_over_lanes_of_key(float (&dots)[kAhead]) const {
    const auto add = [&](int step) {
#pragma unroll
      for (int u = 0; u < kAhead; ++u) dots[u] += __shfl_xor_sync(0xffffffffu, dots[u], step);
    };
    if constexpr (LANES > 0) {
#pragma unroll
      for (int step = LANES / 2; step > 0; step >>= 1) add(step);
    } else {
      for (int step = lanes / 2; step > 0; step >>= 1) add(step);
    }
  }
  // Both fit into 32 bits, their product may not.
  __device__ static uint64_t wide(unsigned row, int64_t stride) { return uint64_t{row} * static_cast<unsigned>(stride); }

  const RatDecodeArgs<T, C>& a;
  const Rows<kMixer>& rows;
  int begin, end, lanes, lane, part, slots, slot;
  const C *keys, *values;
  const ushort2* scales = nullptr;
  Stage<C, E>* ring;
};

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

}  // namespace rat::kernels::cuda::decoding
