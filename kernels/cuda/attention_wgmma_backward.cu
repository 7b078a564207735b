// Backward attention over chunk ends, or over tokens, for Hopper, in one pass: a block holds 128 keys of a head and walks the
// row tiles that see them, from the last one downwards, with five products: scores and gradients of weights, which give the
// gradients of values and keys, which stay in registers, and of the queries, whose sum over keys and heads is made in global
// memory.
//
// That sum is added up in one order, so that a run repeats itself to the bit: a row tile has a count of the blocks that
// have added to it, and a block waits for its turn: earlier keys first, among them the heads. Blocks take up work in this
// order, so those a block waits for began before it and go on whatever happens, and the ones that see most rows come first.
// Over tokens the sum is rounded, and its rotation undone, once it is there.
#include <type_traits>

#include "kernels/cuda/rotate.h"
#include "kernels/cuda/wgmma_backward.cuh"

namespace rat::kernels::cuda::paths {
namespace {

template <int P>
constexpr int kStages = 256 / P;  // the same bytes in flight for either head size
constexpr int kScoreTile = tile_bytes(kBlock, kStep);  // gradients of scores, keys as rows
constexpr int kSumColumns = 32;  // float32, so many columns after so many
template <int P>
constexpr int kSumTile = kStep * P * 4;
struct SumMaps {
  Maps operands;
  CUtensorMap sums;
};
template <int P>
struct Layout {
  static constexpr int keys = 0, values = kBigTile<P>, stages = 2 * kBigTile<P>;  // a stage: queries, output gradients
  static constexpr int scores = stages + kStages<P> * 2 * kSmallTile<P>;          // two tiles each, by turns
  static constexpr int sums = scores + 2 * kScoreTile, terms = sums + 2 * kSumTile<P>;
  static constexpr int keys_full = terms + kStages<P> * static_cast<int>(sizeof(Terms)), full = keys_full + 8;
  static constexpr int free = full + 8 * kStages<P>, scores_full = free + 8 * kStages<P>, scores_free = scores_full + 16;
  static constexpr int sums_full = scores_free + 16, sums_free = sums_full + 16, ticket = sums_free + 16;
  static constexpr int bytes = ticket + 8 + 1024;
};

// So that the compiler sees it, and what follows from it takes no registers of its own in every lane.
__device__ __forceinline__ int same_in_all_lanes(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// What one block does, by its ticket. The heads of a group run next to each other: they share queries and sums.
template <class Seen>
struct Work {
  Seen seen;
  int b, group, h, first_key, first_row, steps, before;  // before: how many blocks of these sums come before it
  __device__ Work(const RatShape& s, int ticket) : seen(s) {
    const int G = static_cast<int>(s.groups), heads = static_cast<int>(s.heads) / G, B = static_cast<int>(s.batch);
    const int index = ticket % heads, key_tile = ticket / (heads * G * B);
    group = ticket / heads % G;
    b = ticket / (heads * G) % B;
    h = group + index * G;
    first_key = key_tile * kBlock;
    first_row = seen.first_token(first_key) / kStep * kStep;
    steps = (seen.end_token(first_key + kBlock - 1) - first_row + kStep - 1) / kStep;
    before = key_tile * heads + index;
  }
  // How many blocks add to a row tile before this one. (Over tokens every head has sums of its own.) The window is read from
  // the shape, so that no registers hold it.
  __device__ int turn_at(int row, const RatShape& s) const {
    if constexpr (Seen::own_key) return before;
    else return before - Seen(s).begin(row) / kBlock;
  }
  __device__ int row_of(int step) const { return first_row + (steps - 1 - step) * kStep; }
};

// Columns of sums from shared memory: the first in their order are written, the others are added.
__device__ __forceinline__ void send_sums(const CUtensorMap& map, uint32_t from, int column, int row, int sequence, bool first) {
  if (first) store_box(map, from, column, row, sequence);
  else
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map),
                 "r"(from), "r"(column), "r"(row), "r"(sequence)
                 : "memory");
}

// One thread for even steps and one for odd ones: the gradients of the queries, a row tile a step, when it is the block's turn.
template <int P, class Seen>
__device__ void add_sums(const CUtensorMap& map, const ChunkAttentionBackwardArgs<bf16>& a, const Work<Seen>& work,
                         uint32_t shared, int odd) {
  using Offsets = Layout<P>;
  const int row_tiles = (work.seen.tokens + kStep - 1) / kStep;
  int* const turns = a.turns + (work.b * static_cast<int>(a.shape.groups) + work.group) * row_tiles;
  for (int step = odd; step < work.steps; step += 2) {
    const int first_row = work.row_of(step), turn = work.turn_at(first_row, a.shape);
    int* const done = turns + first_row / kStep;
    int added;
    do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(added) : "l"(done) : "memory");
    while (added != turn);
    asm volatile("fence.proxy.async;" ::: "memory");  // what others added lies before what is added now
    barrier_wait(shared + Offsets::sums_full + 8 * odd, step / 2 & 1);
#pragma unroll
    for (int column = 0; column < P; column += kSumColumns)
      send_sums(map, shared + Offsets::sums + odd * kSumTile<P> + column * kStep * 4, work.group * P + column, first_row, work.b,
                turn == 0);
    commit_stores();
    wait_stores_read();
    barrier_arrive(shared + Offsets::sums_free + 8 * odd);
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(done) : "memory");
  }
}

// This warpgroup's gradients of scores (64 keys, 64 rows), as operands, to its half of a tile whose rows are keys.
__device__ __forceinline__ void store_operand(uint32_t tile, const uint32_t (&scores)[4][4]) {
  const unsigned lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane % 16;
  const uint32_t first = tile + row * 128 + (lane / 16 ^ lane % 8) * 16;  // pieces are XORed with the row, see tile_at
#pragma unroll
  for (int k = 0; k < 4; ++k)
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(first ^ k * 32),
                 "r"(scores[k][0]), "r"(scores[k][1]), "r"(scores[k][2]), "r"(scores[k][3])
                 : "memory");
}

// One warpgroup: 64 of the block's keys; and, a step behind, half of the channels of the queries' gradients over all of them,
// so that the two need not keep step. No row of the last steps sees a key of the second warpgroup, which then only has its
// channels of the queries' gradients, over the first one's keys.
//
// Nothing branches around products: the compiler would have each wait for the one before.
template <int P, class Seen>
class Consumer {
  using Offsets = Layout<P>;

 public:
  __device__ Consumer(const Work<Seen>& work, uint32_t shared, unsigned char* memory, int which)
      : first_row(work.first_row), steps(work.steps), shared(shared), which(which), lane(threadIdx.x % 32),
        warp(threadIdx.x / 32 % 4), memory(memory) {
    const unsigned mine = work.first_key + which * 64, key = mine + warp * 16 + lane / 4;
    first_token = work.seen.seen_from(key), later = work.seen.seen_from(key + 8) - first_token;
    if constexpr (Seen::own_key) bound = work.seen.seen_from(mine + 63);
    else bound = work.seen.window;
    const unsigned second = work.seen.seen_from(work.first_key + 64u);  // the first token that sees one of its keys
    both_steps = second < static_cast<unsigned>(work.seen.tokens) ? steps - static_cast<int>(second - first_row) / kStep : 0;
  }

  __device__ void run(const ChunkAttentionBackwardArgs<bf16>& a) {
    float grad_keys[P / 2] = {}, grad_values[P / 2] = {};
    barrier_wait(shared + Offsets::keys_full, 0);
    Ring ring;
    if (const int own_steps = which == 0 ? steps : both_steps; own_steps > 0) {
      if constexpr (P == 64) walk_ahead(own_steps, ring, grad_keys, grad_values);
      else walk(own_steps, ring, grad_keys, grad_values);
    }
    if (which == 1) help(ring);
    // Taken up again, so that no registers hold it meanwhile.
    const Work<Seen> work(a.shape, same_in_all_lanes(*reinterpret_cast<volatile int*>(memory + Offsets::ticket)));
    const int mine = work.first_key + which * 64, valid = work.seen.end(work.seen.tokens - 1) - mine;
    if (valid <= 0) return;
    if constexpr (Seen::own_key) {
      write_rows(grad_keys, scale(), a.grad_keys.at(work.b, work.h, mine), a.grad_keys.row, valid);
      write_rows(grad_values, 1.0f, a.grad_values.at(work.b, work.h, mine), a.grad_values.row, valid);
    } else {
      const TokenGradients<bf16>& to = a.token_gradients;
      write_tokens<P>(by_columns(grad_keys), scale(), to.keys, work.b, work.h, mine, warp * 16, valid, to.rope);
      write_tokens<P>(by_columns(grad_values), 1.0f, to.values, work.b, work.h, mine, warp * 16, valid, nullptr);
    }
  }

 private:
  using Grads = float[P / 2];
  using Sums = float[P / 4];  // half of the channels of the queries' gradients
  using Operand = uint32_t[4][4];

  __device__ static float scale() { return rsqrtf(static_cast<float>(P)); }
  __device__ __forceinline__ uint32_t queries(const Ring& ring) const {
    return shared + Offsets::stages + ring.stage * 2 * kSmallTile<P>;
  }
  __device__ __forceinline__ uint32_t grads(const Ring& ring) const { return queries(ring) + kSmallTile<P>; }
  __device__ __forceinline__ uint32_t keys() const { return shared + Offsets::keys + which * 64 * 128; }
  __device__ __forceinline__ uint32_t values() const { return shared + Offsets::values + which * 64 * 128; }
  __device__ __forceinline__ const Terms& terms(const Ring& ring) const {
    return reinterpret_cast<const Terms*>(memory + Offsets::terms)[ring.stage];
  }
  __device__ __forceinline__ int row_of(int step) const { return first_row + (steps - 1 - step) * kStep; }

  // The keys over which a step's gradients of the queries are summed: those that its rows see.
  enum class Keys { none, all, first };
  // first() for step 0, next(step, keys of the step before) for the others, and the last one's gradients of the queries.
  template <class First, class Next>
  __device__ __forceinline__ void each_step(int own_steps, const First& first, const Next& next) const {
    first();
    int step = 1;
    for (; step < own_steps && step <= both_steps; ++step) next(step, std::integral_constant<Keys, Keys::all>());
    for (; step < own_steps; ++step) next(step, std::integral_constant<Keys, Keys::first>());
    if (own_steps <= both_steps) add_to_queries<Keys::all>(own_steps - 1);
    else add_to_queries<Keys::first>(own_steps - 1);
  }

  __device__ __forceinline__ void walk(int own_steps, Ring& ring, Grads& grad_keys, Grads& grad_values) const {
    each_step(own_steps, [&] { take_step<Keys::none>(0, ring, grad_keys, grad_values); },
              [&](int step, auto keys) { take_step<keys.value>(step, ring, grad_keys, grad_values); });
  }
  template <Keys Before>
  __device__ __forceinline__ void take_step(int step, Ring& ring, Grads& grad_keys, Grads& grad_values) const {
    Operand weights, score_grads;
    float scores[32], grad_weights[32];
    barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);
    begin_scores<P>(scores, grad_weights, keys(), values(), queries(ring), grads(ring));
    scores_to_weights(row_of(step), scores, terms(ring));
    as_operand(weights, scores);
    wait_products<0>();
    hold(grad_weights);
    finish_scores(grad_weights, scores, terms(ring).delta);
    as_operand(score_grads, grad_weights);
    hand_over(step, score_grads);
    begin_products();
    add_product(grad_values, weights, grads(ring));
    add_product(grad_keys, score_grads, queries(ring));
    commit_products();
    if constexpr (Before == Keys::none) wait_products<0>();
    else add_to_queries<Before>(step - 1);
    hold(grad_keys);
    hold(grad_values);
    barrier_arrive(shared + Offsets::free + 8 * ring.stage);
    ring.template advance<kStages<P>>();
  }

  // With heads of 64 there are registers for two steps: while the weights of the next one are computed, the gradients of this
  // one and those of the queries of the one before are multiplied.
  __device__ __forceinline__ void walk_ahead(int own_steps, Ring& ring, Grads& grad_keys, Grads& grad_values) const {
    float scores[32], grad_weights[32];
    barrier_wait(shared + Offsets::full, 0);
    begin_scores<P>(scores, grad_weights, keys(), values(), queries(ring), grads(ring));
    scores_to_weights(row_of(0), scores, terms(ring));
    wait_products<0>();
    hold(grad_weights);
    finish_scores(grad_weights, scores, terms(ring).delta);
    each_step(own_steps, [&] { take_step_ahead<Keys::none>(0, own_steps, ring, scores, grad_weights, grad_keys, grad_values); },
              [&](int step, auto keys) {
                take_step_ahead<keys.value>(step, own_steps, ring, scores, grad_weights, grad_keys, grad_values);
              });
    ring.template advance<kStages<P>>();
  }
  // In: weights and gradients of scores of `step`; out: those of the next one.
  template <Keys Before>
  __device__ __forceinline__ void take_step_ahead(int step, int own_steps, Ring& ring, float (&scores)[32],
                                                  float (&grad_weights)[32], Grads& grad_keys, Grads& grad_values) const {
    constexpr bool First = Before == Keys::none;
    Operand weights, score_grads;
    Sums sums;
    const Ring now = ring;
    as_operand(weights, scores);
    as_operand(score_grads, grad_weights);
    hand_over(step, score_grads);
    if (step + 1 < own_steps) ring.template advance<kStages<P>>();  // the last step multiplies its own once more, for nothing
    const int next = min(step + 1, own_steps - 1);
    barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);
    start_both<P>(scores, grad_weights, keys(), values(), queries(ring), grads(ring));
    add_product(grad_values, weights, grads(now));
    add_product(grad_keys, score_grads, queries(now));
    commit_products();
    if constexpr (!First) start_queries<Before>(step - 1, sums);
    wait_products<First ? 2 : 3>();
    hold(scores);
    scores_to_weights(row_of(next), scores, terms(ring));
    wait_products<First ? 1 : 2>();
    hold(grad_weights);
    finish_scores(grad_weights, scores, terms(ring).delta);
    wait_products<0>();
    hold(grad_keys);
    hold(grad_values);
    barrier_arrive(shared + Offsets::free + 8 * now.stage);
    if constexpr (!First) {
      hold(sums);
      barrier_arrive(shared + Offsets::scores_free + 8 * ((step - 1) & 1));
      finish_queries(step - 1, sums);
    }
  }

  // The second warpgroup, once no row sees its keys.
  __device__ __forceinline__ void help(Ring& ring) const {
    for (int step = both_steps; step < steps; ++step) {
      barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);  // or its arrival could count for the rows before
      barrier_arrive(shared + Offsets::free + 8 * ring.stage);
      ring.template advance<kStages<P>>();
      barrier_arrive(shared + Offsets::scores_full + 8 * (step & 1));
      add_to_queries<Keys::first>(step);
    }
  }

  // Of these keys (64) and the rows of a step (64).
  __device__ __forceinline__ void scores_to_weights(int row, float (&scores)[32], const Terms& of_rows) const {
    exponentiate(scores, of_rows.lse, scale() * kLog2e);
    if constexpr (Seen::own_key) {
      if (static_cast<unsigned>(row) < bound) hide_keys(row, scores);
    } else {
      if (static_cast<unsigned>(row) < first_token + 8 || row + kStep - 1 - first_token > bound) hide_keys(row, scores);
    }
  }

  // No weight where a row does not see a key.
  __device__ __forceinline__ void hide_keys(int row, float (&weights)[32]) const {
    const unsigned mine = row + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const unsigned from = first_token + i * later;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e)
          if (Seen::own_key ? mine + n * 8 + e < from : mine + n * 8 + e - from > bound) weights[n * 4 + 2 * i + e] = 0.0f;
    }
  }

  // Gradients of scores to where both warpgroups multiply them.
  __device__ __forceinline__ void hand_over(int step, const Operand& score_grads) const {
    barrier_wait(shared + Offsets::scores_free + 8 * (step & 1), (step / 2 & 1) ^ 1);
    store_operand(shared + Offsets::scores + (step & 1) * kScoreTile + which * (kScoreTile / 2), score_grads);
    fence_shared_stores();
    barrier_arrive(shared + Offsets::scores_full + 8 * (step & 1));
  }

  template <Keys Which>
  __device__ __forceinline__ void start_queries(int step, Sums& sums) const {
    barrier_wait(shared + Offsets::scores_full + 8 * (step & 1), step / 2 & 1);
    const uint32_t scores = shared + Offsets::scores + (step & 1) * kScoreTile;
    const uint32_t keys = shared + Offsets::keys + (P == 128 ? which * kBigHalf : which * 64);
    begin_products();
#pragma unroll
    for (int k = 0; k < (Which == Keys::all ? kBlock : kBlock / 2) / 16; ++k)
      multiply_columns(sums, columns_operand(scores + k * 2048, 0), columns_operand(keys + k * 2048, 0), k != 0);
    commit_products();
  }
  // To where the copy engine takes them from: boxes of 32 columns, 128-byte swizzle.
  __device__ __forceinline__ void finish_queries(int step, const Sums& sums) const {
    barrier_wait(shared + Offsets::sums_free + 8 * (step & 1), (step / 2 & 1) ^ 1);
    unsigned char* const tile = memory + Offsets::sums + (step & 1) * kSumTile<P> + which * (kSumTile<P> / 2);
    const unsigned row = warp * 16 + lane / 4, piece = lane % 4 / 2 ^ lane / 4;  // and 8 rows below
    const unsigned first = row * 128 + piece * 16 + lane % 2 * 8;
#pragma unroll
    for (int n = 0; n < P / 16; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<float2*>(tile + (first ^ n % 4 * 32) + n / 4 * (kStep * 128) + i * 8 * 128) =
            make_float2(sums[n * 4 + 2 * i] * scale(), sums[n * 4 + 2 * i + 1] * scale());
    fence_shared_stores();
    barrier_arrive(shared + Offsets::sums_full + 8 * (step & 1));
  }
  // Waits for all products: no registers are left to go on meanwhile, and the other warpgroup keeps the tensor cores busy.
  template <Keys Which>
  __device__ __forceinline__ void add_to_queries(int step) const {
    Sums sums;
    start_queries<Which>(step, sums);
    wait_products<0>();
    hold(sums);
    barrier_arrive(shared + Offsets::scores_free + 8 * (step & 1));
    finish_queries(step, sums);
  }

  const int first_row, steps;
  int both_steps;  // that both warpgroups' keys are seen in
  const uint32_t shared;
  const int which;
  const unsigned lane, warp;
  // The first token that sees this thread's first key, and how much later its second one is seen. RAT, or before a window: the
  // first that sees all keys of the warpgroup; else the window. (Of keys that do not exist, they may lie beyond 2^31.)
  unsigned first_token, later, bound;
  unsigned char* const memory;
};

template <int P, class Seen>
__global__ void __launch_bounds__(kThreads, 1) gradient_kernel(const __grid_constant__ SumMaps maps,
                                                               const __grid_constant__ ChunkAttentionBackwardArgs<bf16> a,
                                                               int* tickets) {
  using Offsets = Layout<P>;
  extern __shared__ unsigned char raw[];
  const uint32_t start = tiles::shared_address(raw), shared = (start + 1023) / 1024 * 1024;
  unsigned char* memory = raw + (shared - start);
  int* const ticket = reinterpret_cast<int*>(memory + Offsets::ticket);
  if (threadIdx.x == 0) {
    *ticket = atomicAdd(tickets, 1);
    barrier_init(shared + Offsets::keys_full, 1);
    for (int stage = 0; stage < kStages<P>; ++stage) {
      barrier_init(shared + Offsets::full + 8 * stage, 1 + 32);  // the copies, and the lanes that bring the terms
      barrier_init(shared + Offsets::free + 8 * stage, kConsumerWarps * 32);
    }
    for (int tile = 0; tile < 2; ++tile) {
      barrier_init(shared + Offsets::scores_full + 8 * tile, kConsumerWarps * 32);
      barrier_init(shared + Offsets::scores_free + 8 * tile, kConsumerWarps * 32);
      barrier_init(shared + Offsets::sums_full + 8 * tile, kConsumerWarps * 32);
      barrier_init(shared + Offsets::sums_free + 8 * tile, 1);
    }
    make_barriers_visible();
  }
  __syncthreads();
  const Work<Seen> work(a.shape, same_in_all_lanes(*ticket));
  if (threadIdx.x < 128) {
    give_registers<40>();  // 168 * 384 registers are there: what one role gives, the others can take, not more
    if (threadIdx.x == 0) copy_tiles<P, Layout<P>, kStages<P>>(maps.operands, work, shared);
    else if (threadIdx.x / 32 == 1) bring_terms<Layout<P>, kStages<P>>(a, work, shared, memory);
    else if (threadIdx.x == 64 || threadIdx.x == 96) add_sums<P>(maps.sums, a, work, shared, threadIdx.x == 96);
  } else {
    take_registers<232>();
    Consumer<P, Seen>(work, shared, memory, same_in_all_lanes(static_cast<int>(threadIdx.x) / 128 - 1)).run(a);
  }
}

// Rows before the first tile that sees a key have no gradient.
Status clear_unseeing_rows(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const int64_t rows = s.keys() == 0 ? s.tokens : s.seen_from(0) / kStep * kStep;
  if (rows == 0) return {};
  const auto bytes = static_cast<std::size_t>(s.group_width()) * sizeof(float);
  return checked(cudaMemset2DAsync(a.grad_q_rot, bytes * static_cast<std::size_t>(s.tokens), 0,
                                   bytes * static_cast<std::size_t>(rows), static_cast<std::size_t>(s.batch), stream),
                 "chunk_attention_backward: clearing");
}

template <int P, class Seen>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  using Offsets = Layout<P>;
  const RatShape& s = a.shape;
  // Tokens at which keys come to be seen are told apart in 32 bits, those of the last tile's missing keys too.
  if (s.keys() > 0 && s.seen_from(s.keys() + 2 * kBlock) >= int64_t{1} << 32)
    return refuse("chunk_attention_backward: chunks of %lld tokens are too long for the wgmma path; use shorter ones, or f32",
                  static_cast<long long>(s.chunk_len));
  if (Seen::own_key) RAT_CUDA_TRY(clear_unseeing_rows(a, stream));
  if (s.keys() == 0) return {};
  const auto turns = static_cast<std::size_t>(chunk_attention_turns(s));
  RAT_CUDA_TRY(checked(cudaMemsetAsync(a.turns, 0, turns * sizeof(int), stream), "chunk_attention_backward: turns"));
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(gradient_kernel<P, Seen>, cudaFuncAttributeMaxDynamicSharedMemorySize, Offsets::bytes),
                       "chunk_attention_backward (wgmma): shared memory"));
  SumMaps all;
  Maps& maps = all.operands;
  RAT_CUDA_TRY(token_sums_map(all.sums, a.grad_q_rot, s.group_width(), s, kStep));
  RAT_CUDA_TRY(token_map(maps.queries, a.q_rot, s.group_width(), a.query_stride(), s, kStep));
  RAT_CUDA_TRY(token_map(maps.grads, a.grad_out, s.channels(), s.channels(), s, kStep));
  RAT_CUDA_TRY(key_map(maps.keys, a.keys, s.keys(), s, kBlock));
  RAT_CUDA_TRY(key_map(maps.values, a.values, s.keys(), s, kBlock));
  const auto blocks = static_cast<unsigned>((s.keys() + kBlock - 1) / kBlock * s.heads * s.batch);
  gradient_kernel<P, Seen><<<blocks, kThreads, Offsets::bytes, stream>>>(all, a, a.turns + turns - 1);
  return launched("chunk_attention_backward (wgmma)");
}

template <class Seen>
Status launch(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  return a.shape.head_size == 64 ? launch<64, Seen>(a, stream) : launch<128, Seen>(a, stream);
}

}  // namespace

Status wgmma_backward(const ChunkAttentionBackwardArgs<bf16>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(with_keys_seen(a.shape, [&](auto seen) { return launch<typename decltype(seen)::Type>(a, stream); }));
  if (!a.shape.over_tokens()) return {};
  return rotate_back({a.shape, a.grad_q_rot, a.token_gradients.queries, a.token_gradients.rope}, stream);
}

}  // namespace rat::kernels::cuda::paths
