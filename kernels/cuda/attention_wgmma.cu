// Forward attention for Hopper: one warp copies tiles (tensor memory accelerator), two warpgroups of 64 query rows each
// multiply them (wgmma). While one product runs, the softmax of the step before it is computed, and the two warpgroups
// drift apart so that one's softmax hides behind the other's products. Blocks are persistent, and the queries of the next
// tile come in while this one's are used; own values and output gates arrive through the same two rings of tiles as keys
// and values, as one more step.
#include <algorithm>

#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/keys_seen.cuh"
#include "kernels/cuda/tensor_map.h"

namespace rat::kernels::cuda::paths {
namespace {

using namespace hopper;
using tiles::exp2_fast;
using tiles::kLn2;
using tiles::kLog2e;

constexpr int kRows = 128, kKeys = 128, kQueryStages = 2;
template <int P>
constexpr int kStages = 256 / P;  // the same bytes in flight for either head size
template <int P>
constexpr int kTile = tile_bytes(128, P);
constexpr int kHalfTile = half_bytes(128);
constexpr int kThreads = 3 * 128;
constexpr int kConsumerWarps = 8;

struct Maps {
  CUtensorMap queries, keys, values, own_v, z, y;  // own_v, z: only of a kernel with own keys
};

template <int P>
struct Layout {  // byte offsets in shared memory: tiles, then barriers of 8 bytes each
  static constexpr int queries = 0, keys = kQueryStages * kTile<P>, values = keys + kStages<P> * kTile<P>;
  static constexpr int query_full = values + kStages<P> * kTile<P>, query_free = query_full + 8 * kQueryStages;
  static constexpr int key_full = query_free + 8 * kQueryStages, key_free = key_full + 8 * kStages<P>;
  static constexpr int value_full = key_free + 8 * kStages<P>, value_free = value_full + 8 * kStages<P>;
  static constexpr int bytes = value_free + 8 * kStages<P> + 1024;  // the start is rounded up to 1024
};

// Which rows of which head; heads that run together share the L2 cache, and long rows come first among them.
struct Work {
  int row_tiles, heads, heads_together, sequences_heads;
  __device__ bool at(int64_t index, int& tile, int& head, int& sequence) const {
    if (index >= int64_t{row_tiles} * sequences_heads) return false;
    const int64_t per_group = int64_t{row_tiles} * heads_together;
    const int group = static_cast<int>(index / per_group), rest = static_cast<int>(index % per_group);
    const int together = min(heads_together, sequences_heads - group * heads_together);
    tile = row_tiles - 1 - rest / together;
    const int both = group * heads_together + rest % together;
    head = both % heads;
    sequence = both / heads;
    return true;
  }
};

// A position in a ring of stages.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  template <int STAGES>
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
};

template <int P>
__device__ __forceinline__ void copy_keys(uint32_t to, const CUtensorMap& map, int row, int head, int sequence,
                                          uint32_t full) {
  barrier_expect(full, kTile<P>);
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * kHalfTile, map, half * kHalf, row, head, sequence, full);
}
template <int P>
__device__ __forceinline__ void copy_tokens(uint32_t to, const CUtensorMap& map, int column, int row, int sequence,
                                            uint32_t full) {
  barrier_expect(full, kTile<P>);
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * kHalfTile, map, column + half * kHalf, row, sequence, full);
}

// The key tiles that some row of a row tile sees, walked from the last one, which is masked, to the first.
struct Steps {
  int first_tile, count;
  template <class Seen>
  __device__ Steps(const Seen& seen, int first_row) {
    first_tile = seen.begin(first_row) / kKeys;
    count = (seen.end(min(first_row + kRows, seen.tokens) - 1) + kKeys - 1) / kKeys - first_tile;
  }
  __device__ int first_key(int step) const { return (first_tile + count - 1 - step) * kKeys; }
};

template <int P, class Seen>
__device__ void produce(const Maps& maps, const RatShape& s, const Work& work, uint32_t shared) {
  using Offsets = Layout<P>;
  const Seen seen(s);
  Ring ring, query_ring;
  const int G = static_cast<int>(s.groups);
  int tile, h, b;
  for (int64_t index = blockIdx.x; work.at(index, tile, h, b); index += gridDim.x) {
    const int first_row = tile * kRows;
    const Steps steps(seen, first_row);
    for (int step = 0; step < steps.count + (Seen::own_key ? 1 : 0); ++step) {
      const int first_key = steps.first_key(step);
      const bool own = Seen::own_key && step == steps.count;
      const uint32_t keys = shared + Offsets::keys + ring.stage * kTile<P>, values = keys + kStages<P> * kTile<P>;
      const uint32_t key_full = shared + Offsets::key_full + 8 * ring.stage;
      const uint32_t value_full = shared + Offsets::value_full + 8 * ring.stage;
      barrier_wait(shared + Offsets::key_free + 8 * ring.stage, ring.phase ^ 1);
      if (!own) copy_keys<P>(keys, maps.keys, first_key, h, b, key_full);
      else copy_tokens<P>(keys, maps.own_v, h * P, first_row, b, key_full);
      if (step == 0) {
        barrier_wait(shared + Offsets::query_free + 8 * query_ring.stage, query_ring.phase ^ 1);
        copy_tokens<P>(shared + Offsets::queries + query_ring.stage * kTile<P>, maps.queries, h % G * P, first_row, b,
                       shared + Offsets::query_full + 8 * query_ring.stage);
        query_ring.advance<kQueryStages>();
      }
      barrier_wait(shared + Offsets::value_free + 8 * ring.stage, ring.phase ^ 1);
      if (!own) copy_keys<P>(values, maps.values, first_key, h, b, value_full);
      else copy_tokens<P>(values, maps.z, h * P, first_row, b, value_full);
      ring.advance<kStages<P>>();
    }
  }
}

// Online softmax of one thread's two rows (lane / 4 and 8 below): scores become weights.
struct TwoRows {
  float top[2], sum[2];
  int limit[2];

  template <class Seen>
  __device__ __forceinline__ void absorb(float (&scores)[64], float (&shrink)[2], const Seen& seen, int first_key,
                                         bool masked, float scale) {
    const int column = first_key + (threadIdx.x % 4) * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (masked) {
#pragma unroll
        for (int n = 0; n < 16; ++n)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (!seen.sees(limit[i], column + n * 8 + e)) scores[n * 4 + 2 * i + e] = -INFINITY;
      }
      float highest = scores[2 * i];
#pragma unroll
      for (int n = 0; n < 16; ++n) highest = fmaxf(highest, fmaxf(scores[n * 4 + 2 * i], scores[n * 4 + 2 * i + 1]));
      const float new_top = fmaxf(top[i], tiles::row_max(highest) * scale);
      shrink[i] = exp2_fast(top[i] - new_top);
      float total = 0.0f;
#pragma unroll
      for (int n = 0; n < 16; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n * 4 + 2 * i + e];
          score = exp2_fast(fmaf(score, scale, -new_top));
          total += score;
        }
      sum[i] = fmaf(sum[i], shrink[i], total);
      top[i] = new_top;
    }
  }
};

__device__ __forceinline__ void pack_weights(uint32_t (&weights)[8][4], const float (&scores)[64]) {
#pragma unroll
  for (int k = 0; k < 8; ++k)
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[k][i] = pack_pair(scores[k * 8 + 2 * i], scores[k * 8 + 2 * i + 1]);
}
template <int N>
__device__ __forceinline__ void shrink_rows(float (&out)[N], const float (&shrink)[2]) {
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] *= shrink[i / 2 % 2];
}

template <int P>
__device__ __forceinline__ void start_scores(float (&scores)[64], uint32_t queries, uint32_t keys) {
  begin_products();
#pragma unroll
  for (int k = 0; k < P / 16; ++k) {
    const uint32_t at = (k / 4) * kHalfTile + (k % 4) * 32;
    multiply_n128(scores, rows_operand(queries + at), rows_operand(keys + at), k != 0);
  }
  commit_products();
}
template <int N>
__device__ __forceinline__ void start_output(float (&out)[N], const uint32_t (&weights)[8][4], uint32_t values) {
  begin_products();
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) multiply_add(out, weights[k], columns_operand(values + k * 2048, kHalfTile));
  commit_products();
}

// One warpgroup: rows [64 * which, 64 * which + 64) of every tile.
template <int P, class Seen>
__device__ void consume(const Maps& maps, const ChunkAttentionArgs<bf16>& a, const Work& work, uint32_t shared,
                        unsigned char* memory, int which) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  const Seen seen(s);
  const int T = static_cast<int>(s.tokens), H = static_cast<int>(s.heads);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row_in_tile = which * 64 + warp * 16 + lane / 4;  // and 8 below
  const float scale = rsqrtf(static_cast<float>(P)) * kLog2e;
  const auto release = [&](uint32_t barrier) {
    __syncwarp();
    if (lane == 0) barrier_arrive(barrier);
  };
  Ring ring, query_ring;
  int tile, h, b;
  for (int64_t index = blockIdx.x; work.at(index, tile, h, b); index += gridDim.x) {
    const int first_row = tile * kRows, my_first_row = first_row + which * 64;
    const int fewest_keys = seen.end(my_first_row), latest_begin = seen.begin(my_first_row + 63);
    const Steps steps(seen, first_row);
    const int64_t row0 = int64_t{b} * T + first_row;
    TwoRows rows;
    float own[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row_in_tile + 8 * i;
      rows.limit[i] = seen.end(first_row + r);
      rows.top[i] = kLowest;
      rows.sum[i] = 0.0f;
      if constexpr (Seen::own_key) {
        own[i] = first_row + r < T ? a.own_score[(row0 + r) * H + h] * kLog2e : 0.0f;
        rows.top[i] = own[i];
        if (lane % 4 == 0) rows.sum[i] = 1.0f;
      }
    }
    float out[P / 2] = {};
    const uint32_t query_tile = Offsets::queries + query_ring.stage * kTile<P>;
    const uint32_t queries = shared + query_tile + which * 64 * 128;
    barrier_wait(shared + Offsets::query_full + 8 * query_ring.stage, query_ring.phase);
    if (steps.count > 0) {
      float scores[64], shrink[2];
      uint32_t weights[8][4];
      barrier_wait(shared + Offsets::key_full + 8 * ring.stage, ring.phase);
      start_scores<P>(scores, queries, shared + Offsets::keys + ring.stage * kTile<P>);
      wait_products<0>();
      hold(scores);
      release(shared + Offsets::key_free + 8 * ring.stage);
      rows.absorb(scores, shrink, seen, steps.first_key(0), true, scale);
      pack_weights(weights, scores);
      for (int step = 1; step < steps.count; ++step) {
        const Ring before = ring;
        ring.advance<kStages<P>>();
        barrier_wait(shared + Offsets::key_full + 8 * ring.stage, ring.phase);
        start_scores<P>(scores, queries, shared + Offsets::keys + ring.stage * kTile<P>);
        barrier_wait(shared + Offsets::value_full + 8 * before.stage, before.phase);
        start_output(out, weights, shared + Offsets::values + before.stage * kTile<P>);
        wait_products<1>();
        hold(scores);
        release(shared + Offsets::key_free + 8 * ring.stage);
        const int first_key = steps.first_key(step);
        const bool masked = first_key + kKeys > fewest_keys || first_key < latest_begin;
        rows.absorb(scores, shrink, seen, first_key, masked, scale);
        wait_products<0>();
        hold(out);
        release(shared + Offsets::value_free + 8 * before.stage);
        shrink_rows(out, shrink);
        pack_weights(weights, scores);
      }
      barrier_wait(shared + Offsets::value_full + 8 * ring.stage, ring.phase);
      start_output(out, weights, shared + Offsets::values + ring.stage * kTile<P>);
      wait_products<0>();
      hold(out);
      release(shared + Offsets::value_free + 8 * ring.stage);
      ring.advance<kStages<P>>();
    }

    // Own values (in the key ring) and output gates (in the value ring); y goes out through the query tile.
    const unsigned char *own_v = nullptr, *gates = nullptr;
    if constexpr (Seen::own_key) {
      barrier_wait(shared + Offsets::key_full + 8 * ring.stage, ring.phase);
      barrier_wait(shared + Offsets::value_full + 8 * ring.stage, ring.phase);
      own_v = memory + Offsets::keys + ring.stage * kTile<P>;
      gates = own_v + kStages<P> * kTile<P>;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int r = row_in_tile + 8 * i;
      const float sum = tiles::row_sum(rows.sum[i]), inverse = 1.0f / sum;
      if (a.lse != nullptr && lane % 4 == 0 && first_row + r < T)
        a.lse[(int64_t{b} * H + h) * T + first_row + r] = fmaf(rows.top[i], kLn2, logf(sum));
      float own_weight = 0.0f;
      if constexpr (Seen::own_key) own_weight = exp2_fast(own[i] - rows.top[i]);
#pragma unroll
      for (int n = 0; n < P / 8; ++n) {
        const uint32_t at = tile_at<kRows>(r, n) + (lane % 4) * 4;
        float low = out[n * 4 + 2 * i], high = out[n * 4 + 2 * i + 1];
        if constexpr (Seen::own_key) {
          const unsigned value = *reinterpret_cast<const unsigned*>(own_v + at);
          const unsigned gate = *reinterpret_cast<const unsigned*>(gates + at);
          low = fmaf(own_weight, low_half(value), low) * inverse * sigmoid<bf16>(low_half(gate));
          high = fmaf(own_weight, high_half(value), high) * inverse * sigmoid<bf16>(high_half(gate));
        } else {
          low *= inverse, high *= inverse;
        }
        *reinterpret_cast<unsigned*>(memory + query_tile + at) = pack_pair(low, high);
      }
    }
    if constexpr (Seen::own_key) {
      release(shared + Offsets::key_free + 8 * ring.stage);
      release(shared + Offsets::value_free + 8 * ring.stage);
      ring.advance<kStages<P>>();
    }
    fence_shared_stores();
    sync_warpgroup(1 + which);
    if (threadIdx.x % 128 == 0) {
      const int row = first_row + which * 64;
      if (row < T) {
#pragma unroll
        for (int half = 0; half < P / kHalf; ++half)
          store_box(maps.y, queries + half * kHalfTile, h * P + half * kHalf, row, b);
      }
      commit_stores();
      wait_stores_read();
      barrier_arrive(shared + Offsets::query_free + 8 * query_ring.stage);
    }
    query_ring.advance<kQueryStages>();
  }
}

template <int P, class Seen>
__global__ void __launch_bounds__(kThreads, 1) forward_kernel(const __grid_constant__ Maps maps,
                                                              const __grid_constant__ ChunkAttentionArgs<bf16> a,
                                                              const __grid_constant__ Work work) {
  using Offsets = Layout<P>;
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  unsigned char* memory = raw + (shared - start);
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kQueryStages; ++stage) {
      barrier_init(shared + Offsets::query_full + 8 * stage, 1);
      barrier_init(shared + Offsets::query_free + 8 * stage, 2);
    }
    for (int stage = 0; stage < kStages<P>; ++stage) {
      barrier_init(shared + Offsets::key_full + 8 * stage, 1);
      barrier_init(shared + Offsets::value_full + 8 * stage, 1);
      barrier_init(shared + Offsets::key_free + 8 * stage, kConsumerWarps);
      barrier_init(shared + Offsets::value_free + 8 * stage, kConsumerWarps);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<P, Seen>(maps, a.shape, work, shared);
  } else {
    take_registers<240>();
    consume<P, Seen>(maps, a, work, shared, memory, static_cast<int>(threadIdx.x) / 128 - 1);
  }
}

template <int P, class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  Maps maps{};
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), a.query_stride(), s, kRows));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kKeys));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kKeys));
  if constexpr (Seen::own_key) {
    RAT_CUDA_TRY(token_map(maps.own_v, a.own_v, s.channels(), s.channels(), s, kRows));
    RAT_CUDA_TRY(token_map(maps.z, a.z, s.channels(), a.z_stride, s, kRows));
  }
  RAT_CUDA_TRY(token_map(maps.y, a.y, s.channels(), s.channels(), s, 64));
  int device = 0, processors = 0;
  RAT_CUDA_TRY(checked(cudaGetDevice(&device), "chunk_attention (wgmma)"));
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(forward_kernel<P, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            Offsets::bytes),
                       "chunk_attention (wgmma): shared memory"));
  Work work;
  work.row_tiles = static_cast<int>((s.tokens + kRows - 1) / kRows);
  work.heads = static_cast<int>(s.heads);
  work.sequences_heads = static_cast<int>(s.heads * s.batch);
  const int64_t bytes_per_head = std::max<int64_t>(1, s.keys() * P * 4);
  work.heads_together = static_cast<int>(std::clamp<int64_t>((int64_t{20} << 20) / bytes_per_head, 1, work.sequences_heads));
  const int64_t items = int64_t{work.row_tiles} * work.sequences_heads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, processors));
  forward_kernel<P, Seen><<<blocks, kThreads, Offsets::bytes, stream>>>(maps, a, work);
  return launched("chunk_attention (wgmma)");
}

template <class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? launch<64, Seen>(a, stream) : launch<128, Seen>(a, stream);
}

}  // namespace

Status wgmma_forward(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.offset == 0 ? launch<EarlierChunks>(a, stream) : launch<TokensSoFar>(a, stream);
}

}  // namespace rat::kernels::cuda::paths
