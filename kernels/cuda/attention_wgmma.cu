// Forward attention for Hopper: one warp copies tiles (tensor memory accelerator), two or three warpgroups of 64 query rows
// each multiply them (wgmma) and drift apart, so that one's softmax hides behind the others' products. Blocks are persistent,
// and the queries of the next tile come in while this one's are used; own values and output gates arrive through the same
// two rings of tiles as keys and values, as last steps.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/attention_paths.h"
#include "kernels/cuda/capability.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/keys_seen.cuh"
#include "kernels/cuda/softmax_rows.cuh"
#include "kernels/cuda/tensor_map.h"

namespace rat::kernels::cuda::paths {
namespace {

using namespace hopper;
using tiles::exp2_fast;
using tiles::kLn2;
using tiles::kLog2e;

// How a kernel divides the work: heads of `P` channels, steps of KEYS keys, warpgroups that multiply (64 rows each), blocks
// that share a multiprocessor, and stages of each ring.
template <int P_, int KEYS_, int WARPGROUPS, int BLOCKS, int STAGES>
struct Shape {
  static constexpr int P = P_, keys = KEYS_, warpgroups = WARPGROUPS, blocks = BLOCKS, stages = STAGES;
  static constexpr int rows = 64 * warpgroups, query_stages = 2, consumer_warps = 4 * warpgroups;
  static constexpr int threads = 128 * (warpgroups + 1);
  // What a thread that multiplies gets, when those of the copying warpgroup keep 24.
  static constexpr int registers = blocks == 2 ? 104 : warpgroups == 2 ? 240 : 160;
  static constexpr int query_tile = tile_bytes(rows, P), key_tile = tile_bytes(keys, P);
  static constexpr int query_half = half_bytes(rows), key_half = half_bytes(keys);
  static constexpr int own_steps = rows / keys;  // steps in which own values and gates arrive, KEYS rows each
  // Byte offsets in shared memory: tiles, then barriers of 8 bytes each.
  static constexpr int queries_at = 0, keys_at = query_stages * query_tile, values_at = keys_at + stages * key_tile;
  static constexpr int query_full = values_at + stages * key_tile, query_free = query_full + 8 * query_stages;
  static constexpr int key_full = query_free + 8 * query_stages, key_free = key_full + 8 * stages;
  static constexpr int value_full = key_free + 8 * stages, value_free = value_full + 8 * stages;
  static constexpr int bytes = value_free + 8 * stages + 1024;  // the start is rounded up to 1024
  static_assert(rows % keys == 0 && keys % 64 == 0);
};

struct Maps {
  CUtensorMap queries, keys, values, own_v, z, y;  // own_v, z: only of a kernel with own keys
};

// Which rows of which head; heads that run together share the L2 cache, and long rows come first among them.
struct Work {
  int row_tiles, heads, heads_together, sequences_heads;
  __device__ bool at(int index, int& tile, int& head, int& sequence) const {
    if (index >= row_tiles * sequences_heads) return false;
    const int per_group = row_tiles * heads_together;
    const int group = index / per_group, rest = index % per_group;
    const int together = min(heads_together, sequences_heads - group * heads_together);
    tile = row_tiles - 1 - rest / together;
    const int both = group * heads_together + rest % together;
    head = both % heads;
    sequence = both / heads;
    return true;
  }
};

template <int P, int ROWS>
__device__ __forceinline__ void copy_keys(uint32_t to, const CUtensorMap& map, int row, int head, int sequence,
                                          uint32_t full) {
  constexpr int half_size = half_bytes(ROWS);
  barrier_expect(full, P / kHalf * half_size);
  copy_key_tile<P>(to, map, half_size, row, head, sequence, full);
}
template <int P, int ROWS>
__device__ __forceinline__ void copy_tokens(uint32_t to, const CUtensorMap& map, int column, int row, int sequence,
                                            uint32_t full) {
  constexpr int half_size = half_bytes(ROWS);
  barrier_expect(full, P / kHalf * half_size);
  copy_token_tile<P>(to, map, half_size, column, row, sequence, full);
}

// The key tiles that some row of a row tile sees, walked from the last one, which is masked, to the first.
template <class S>
struct Steps {
  int first_tile, count;
  template <class Seen>
  __device__ Steps(const Seen& seen, int first_row) {
    first_tile = seen.begin(first_row) / S::keys;
    count = (seen.end(min(first_row + S::rows, seen.tokens) - 1) + S::keys - 1) / S::keys - first_tile;
  }
  __device__ int first_key(int step) const { return (first_tile + count - 1 - step) * S::keys; }
};

template <class S, class Seen>
__device__ void produce(const Maps& maps, const RatShape& s, const Work& work, uint32_t shared) {
  constexpr int P = S::P;
  const Seen seen(s);
  Ring ring, query_ring;
  const int G = static_cast<int>(s.groups);
  int tile, h, b;
  for (int index = blockIdx.x; work.at(index, tile, h, b); index += gridDim.x) {
    const int first_row = tile * S::rows;
    const Steps<S> steps(seen, first_row);
    for (int step = 0; step < steps.count + (Seen::own_key ? S::own_steps : 0); ++step) {
      const int first_key = steps.first_key(step), own_row = first_row + (step - steps.count) * S::keys;
      const bool own = Seen::own_key && step >= steps.count;
      const uint32_t keys = shared + S::keys_at + ring.stage * S::key_tile, values = keys + S::stages * S::key_tile;
      const uint32_t key_full = shared + S::key_full + 8 * ring.stage;
      const uint32_t value_full = shared + S::value_full + 8 * ring.stage;
      barrier_wait(shared + S::key_free + 8 * ring.stage, ring.phase ^ 1);
      if (!own) copy_keys<P, S::keys>(keys, maps.keys, first_key, h, b, key_full);
      else copy_tokens<P, S::keys>(keys, maps.own_v, h * P, own_row, b, key_full);
      if (step == 0) {
        barrier_wait(shared + S::query_free + 8 * query_ring.stage, query_ring.phase ^ 1);
        copy_tokens<P, S::rows>(shared + S::queries_at + query_ring.stage * S::query_tile, maps.queries, h % G * P,
                                first_row, b, shared + S::query_full + 8 * query_ring.stage);
        query_ring.advance<S::query_stages>();
      }
      barrier_wait(shared + S::value_free + 8 * ring.stage, ring.phase ^ 1);
      if (!own) copy_keys<P, S::keys>(values, maps.values, first_key, h, b, value_full);
      else copy_tokens<P, S::keys>(values, maps.z, h * P, own_row, b, value_full);
      ring.advance<S::stages>();
    }
  }
}

__device__ __forceinline__ void multiply(float (&d)[32], uint64_t a, uint64_t b, int add) { multiply_n64(d, a, b, add); }
__device__ __forceinline__ void multiply(float (&d)[64], uint64_t a, uint64_t b, int add) { multiply_n128(d, a, b, add); }

template <class S>
__device__ __forceinline__ void start_scores(float (&scores)[S::keys / 2], uint32_t queries, uint32_t keys) {
  const uint64_t rows = rows_operand(queries), columns = rows_operand(keys);
  begin_products();
#pragma unroll
  for (int k = 0; k < S::P / 16; ++k) {
    const int half = k / 4, at = (k % 4) * 32;
    multiply(scores, further(rows, half * S::query_half + at), further(columns, half * S::key_half + at), k != 0);
  }
  commit_products();
}
template <class S>
__device__ __forceinline__ void start_output(float (&out)[S::P / 2], const uint32_t (&weights)[S::keys / 16][4],
                                             uint32_t values) {
  const uint64_t rows = columns_operand(values, S::key_half);
  begin_products();
#pragma unroll
  for (int k = 0; k < S::keys / 16; ++k) multiply_add(out, weights[k], further(rows, k * 2048));
  commit_products();
}

// One warpgroup: rows [64 * which, 64 * which + 64) of every tile.
template <class S, class Seen>
class Warpgroup {
 public:
  __device__ Warpgroup(const Maps& maps, const ChunkAttentionArgs<bf16>& a, uint32_t shared, int which)
      : maps_(maps), a_(a), shared_(shared), which_(which), seen_(a.shape), lane_(threadIdx.x % 32),
        row_in_tile_(which * 64 + static_cast<int>(threadIdx.x) / 32 % 4 * 16 + lane_ / 4),
        scale_(rsqrtf(static_cast<float>(S::P)) * kLog2e) {}

  __device__ void walk(const Work& work) {
    int tile, h, b;
    for (int index = blockIdx.x; work.at(index, tile, h, b); index += gridDim.x) {
      const int first_row = tile * S::rows;
      Rows rows = start_rows(first_row, h, b);
      float out[S::P / 2] = {};
      const uint32_t query_tile = shared_ + S::queries_at + query_ring_.stage * S::query_tile;
      const uint32_t queries = query_tile + which_ * 64 * 128;
      barrier_wait(shared_ + S::query_full + 8 * query_ring_.stage, query_ring_.phase);
      const Sight sight(seen_, first_row, first_row + which_ * 64);
      if constexpr (S::blocks == 1) absorb_overlapped(rows, out, queries, sight);
      else absorb_in_turn(rows, out, queries, sight);
      finish(rows, out, query_tile, first_row, h, b);
      send(queries, first_row + which_ * 64, h, b);
      query_ring_.template advance<S::query_stages>();
    }
  }

 private:
  using Scores = float[S::keys / 2];
  using Weights = uint32_t[S::keys / 16][4];
  using Out = float[S::P / 2];

  struct Rows : TwoRows {
    float own[2];
  };
  // The steps of a tile, and which of them need masks for this warpgroup's rows.
  struct Sight {
    Steps<S> steps;
    int fewest_keys, latest_begin;
    __device__ Sight(const Seen& seen, int first_row, int my_first_row)
        : steps(seen, first_row), fewest_keys(seen.end(my_first_row)), latest_begin(seen.begin(my_first_row + 63)) {}
    __device__ bool masked(int first_key) const { return first_key + S::keys > fewest_keys || first_key < latest_begin; }
  };

  __device__ __forceinline__ uint32_t barrier(int which) const { return shared_ + which + 8 * ring_.stage; }
  __device__ __forceinline__ void release(uint32_t barrier) const {
    __syncwarp();
    if (lane_ == 0) barrier_arrive(barrier);
  }

  __device__ __forceinline__ Rows start_rows(int first_row, int h, int b) const {
    const int T = static_cast<int>(a_.shape.tokens);
    Rows rows;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row + row_in_tile_ + 8 * i;
      rows.limit[i] = seen_.end(row);
      rows.top[i] = kLowest;
      rows.sum[i] = 0.0f;
      if constexpr (Seen::own_key) {
        rows.own[i] = row < T ? a_.own_score[Seen::own_score(a_.shape, b, row, h)] * kLog2e : 0.0f;
        rows.top[i] = rows.own[i];
        if (lane_ % 4 == 0) rows.sum[i] = 1.0f;
      }
    }
    return rows;
  }

  __device__ __forceinline__ void score(Scores& scores, uint32_t queries) const {
    barrier_wait(barrier(S::key_full), ring_.phase);
    start_scores<S>(scores, queries, shared_ + S::keys_at + ring_.stage * S::key_tile);
  }
  __device__ __forceinline__ void add_values(Out& out, const Weights& weights, const Ring& ring) const {
    barrier_wait(shared_ + S::value_full + 8 * ring.stage, ring.phase);
    start_output<S>(out, weights, shared_ + S::values_at + ring.stage * S::key_tile);
  }

  // Scores of a step for which no other product runs.
  __device__ __forceinline__ void score_alone(Scores& scores, uint32_t queries) const {
    score(scores, queries);
    wait_products<0>();
    hold(scores);
    release(barrier(S::key_free));
  }
  // The values of the ring's step; then the ring goes on.
  __device__ __forceinline__ void add_values_alone(Out& out, const Weights& weights) {
    add_values(out, weights, ring_);
    wait_products<0>();
    hold(out);
    release(barrier(S::value_free));
    ring_.template advance<S::stages>();
  }

  // Two blocks share the multiprocessor: the softmax of one hides behind the products of others.
  __device__ __forceinline__ void absorb_in_turn(Rows& rows, Out& out, uint32_t queries, const Sight& sight) {
    for (int step = 0; step < sight.steps.count; ++step) {
      Scores scores;
      Weights weights;
      float shrink[2];
      score_alone(scores, queries);
      const int first_key = sight.steps.first_key(step);
      rows.absorb(scores, shrink, seen_, first_key, sight.masked(first_key), scale_);
      pack_weights(weights, scores);
      shrink_rows(out, shrink);
      add_values_alone(out, weights);
    }
  }

  // One block: while the values of a step are multiplied, the softmax of the next is computed.
  __device__ __forceinline__ void absorb_overlapped(Rows& rows, Out& out, uint32_t queries, const Sight& sight) {
    if (sight.steps.count == 0) return;
    Scores scores;
    Weights weights;
    float shrink[2];
    score_alone(scores, queries);
    rows.absorb(scores, shrink, seen_, sight.steps.first_key(0), true, scale_);
    pack_weights(weights, scores);
    for (int step = 1; step < sight.steps.count; ++step) {
      const Ring before = ring_;
      ring_.template advance<S::stages>();
      score(scores, queries);
      add_values(out, weights, before);
      wait_products<1>();
      hold(scores);
      release(barrier(S::key_free));
      const int first_key = sight.steps.first_key(step);
      rows.absorb(scores, shrink, seen_, first_key, sight.masked(first_key), scale_);
      wait_products<0>();
      hold(out);
      release(shared_ + S::value_free + 8 * before.stage);
      shrink_rows(out, shrink);
      pack_weights(weights, scores);
    }
    add_values_alone(out, weights);
  }

  // Own rows of other warpgroups.
  __device__ __forceinline__ void pass_own(int steps) {
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
      barrier_wait(barrier(S::key_full), ring_.phase);
      release(barrier(S::key_free));
      barrier_wait(barrier(S::value_full), ring_.phase);
      release(barrier(S::value_free));
      ring_.template advance<S::stages>();
    }
  }

  // Own values come in the key ring, output gates in the value ring; y goes out through the query tile.
  __device__ __forceinline__ void finish(const Rows& rows, const Out& out, uint32_t query_tile, int first_row, int h, int b) {
    const int T = static_cast<int>(a_.shape.tokens), H = static_cast<int>(a_.shape.heads);
    float own_weight[2], inverse[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = first_row + row_in_tile_ + 8 * i;
      const float sum = tiles::row_sum(rows.sum[i]);
      inverse[i] = 1.0f / sum;
      if constexpr (Seen::own_key) own_weight[i] = exp2_fast(rows.own[i] - rows.top[i]);
      if (a_.lse != nullptr && lane_ % 4 == 0 && row < T)
        a_.lse[(int64_t{b} * H + h) * T + row] = fmaf(rows.top[i], kLn2, logf(sum));
    }
    const int own_step = which_ * 64 / S::keys, warp_row = row_in_tile_ - lane_ / 4;
    uint32_t own_v = 0;
    if constexpr (Seen::own_key) {
      pass_own(own_step);
      barrier_wait(barrier(S::key_full), ring_.phase);
      barrier_wait(barrier(S::value_full), ring_.phase);
      own_v = shared_ + S::keys_at + ring_.stage * S::key_tile;
    }
#pragma unroll
    for (int piece = 0; piece < S::P / 8; piece += 2) {
      uint32_t values[4], gates[4], y[4];
      if constexpr (Seen::own_key) {
        const uint32_t at = own_v + quad_at<S::keys>(warp_row % S::keys, piece);
        tiles::load_matrices(values, at);
        tiles::load_matrices(gates, at + S::stages * S::key_tile);
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float low = out[piece * 4 + 2 * i] * inverse[i % 2], high = out[piece * 4 + 2 * i + 1] * inverse[i % 2];
        if constexpr (Seen::own_key) {
          const float own = own_weight[i % 2] * inverse[i % 2];
          low = fmaf(own, low_half(values[i]), low) * sigmoid<bf16>(low_half(gates[i]));
          high = fmaf(own, high_half(values[i]), high) * sigmoid<bf16>(high_half(gates[i]));
        }
        y[i] = pack_pair(low, high);
      }
      store_matrices(query_tile + quad_at<S::rows>(warp_row, piece), y);
    }
    if constexpr (Seen::own_key) {
      release(barrier(S::key_free));
      release(barrier(S::value_free));
      ring_.template advance<S::stages>();
      pass_own(S::own_steps - 1 - own_step);
    }
  }

  __device__ __forceinline__ void send(uint32_t tile, int row, int h, int b) const {
    fence_shared_stores();
    sync_warpgroup(1 + which_);
    if (threadIdx.x % 128 != 0) return;
    if (row < static_cast<int>(a_.shape.tokens)) {
#pragma unroll
      for (int half = 0; half < S::P / kHalf; ++half)
        store_box(maps_.y, tile + half * S::query_half, h * S::P + half * kHalf, row, b);
    }
    commit_stores();
    wait_stores_read();
    barrier_arrive(shared_ + S::query_free + 8 * query_ring_.stage);
  }

  const Maps& maps_;
  const ChunkAttentionArgs<bf16>& a_;
  const uint32_t shared_;
  const int which_;
  const Seen seen_;
  const int lane_, row_in_tile_;  // the row, and 8 below
  const float scale_;
  Ring ring_, query_ring_;
};

template <class S, class Seen>
__global__ void __launch_bounds__(S::threads, S::blocks) forward_kernel(const __grid_constant__ Maps maps,
                                                                        const __grid_constant__ ChunkAttentionArgs<bf16> a,
                                                                        const __grid_constant__ Work work) {
  extern __shared__ unsigned char raw[];
  const uint32_t shared = (tiles::shared_address(raw) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::query_stages; ++stage) {
      barrier_init(shared + S::query_full + 8 * stage, 1);
      barrier_init(shared + S::query_free + 8 * stage, S::warpgroups);
    }
    for (int stage = 0; stage < S::stages; ++stage) {
      barrier_init(shared + S::key_full + 8 * stage, 1);
      barrier_init(shared + S::value_full + 8 * stage, 1);
      barrier_init(shared + S::key_free + 8 * stage, S::consumer_warps);
      barrier_init(shared + S::value_free + 8 * stage, S::consumer_warps);
    }
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x >= 128 * S::warpgroups) {
    give_registers<24>();
    if (threadIdx.x == 128 * S::warpgroups) produce<S, Seen>(maps, a.shape, work, shared);
  } else {
    take_registers<S::registers>();
    // Of the warp's first lane, so that the compiler knows it is the same for all and keeps addresses out of the vector unit.
    const int which = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128, 0);
    Warpgroup<S, Seen>(maps, a, shared, which).walk(work);
  }
}

template <class S, class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  Maps maps{};
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), a.query_stride(), s, S::rows));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, S::keys));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, S::keys));
  if constexpr (Seen::own_key) {
    RAT_CUDA_TRY(token_map(maps.own_v, a.own_v, s.channels(), s.channels(), s, S::keys));
    RAT_CUDA_TRY(token_map(maps.z, a.z, s.channels(), a.z_stride, s, S::keys));
  }
  RAT_CUDA_TRY(token_map(maps.y, a.y, s.channels(), s.channels(), s, 64));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(forward_kernel<S, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::bytes),
                       "chunk_attention (wgmma): shared memory"));
  Work work;
  work.row_tiles = static_cast<int>((s.tokens + S::rows - 1) / S::rows);
  work.heads = static_cast<int>(s.heads);
  work.sequences_heads = static_cast<int>(s.heads * s.batch);
  const int64_t bytes_per_head = std::max<int64_t>(1, s.keys() * S::P * 4);
  work.heads_together = static_cast<int>(std::clamp<int64_t>((int64_t{20} << 20) / bytes_per_head, 1, work.sequences_heads));
  const int64_t items = int64_t{work.row_tiles} * work.sequences_heads;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(items, int64_t{multiprocessors()} * S::blocks));
  forward_kernel<S, Seen><<<blocks, S::threads, S::bytes, stream>>>(maps, a, work);
  return launched("chunk_attention (wgmma)");
}

// Few keys: more warps, which hide what the ends of tiles wait for. Many: longer products (docs/benchmarks/h200.md).
constexpr int64_t kFewKeys = 1024;
template <int P>
using FewKeys = std::conditional_t<P == 64, Shape<64, 64, 2, 2, 3>, Shape<128, 64, 3, 1, 3>>;
template <int P>
using ManyKeys = std::conditional_t<P == 64, Shape<64, 128, 2, 1, 4>, Shape<128, 128, 2, 1, 2>>;

template <int P, class Seen>
Status launch_for(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const int64_t seen = s.window < 0 ? s.keys() : std::min(s.keys(), s.window + 1);
  return seen <= kFewKeys ? launch<FewKeys<P>, Seen>(a, stream) : launch<ManyKeys<P>, Seen>(a, stream);
}

template <class Seen>
Status launch(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? launch_for<64, Seen>(a, stream) : launch_for<128, Seen>(a, stream);
}

}  // namespace

Status wgmma_forward(const ChunkAttentionArgs<bf16>& a, cudaStream_t stream) {
  return with_keys_seen(a.shape, [&](auto seen) { return launch<typename decltype(seen)::Type>(a, stream); });
}

}  // namespace rat::kernels::cuda::paths
