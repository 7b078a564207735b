// Products with what follows them, for Hopper: the fused paths of gelu_product and gate_product. A block is one warp that
// copies tiles (tensor memory accelerator), one that brings what the end of a tile reads, and two teams of two warpgroups. A
// team multiplies a (128, 128) tile of results, 64 rows a warpgroup, in turn with the other: while one takes GELU, or the
// gate, and writes, the other has the tensor cores. Teams of two, because a single warp a scheduler would take longer over
// the end of a tile than its product lasts. Blocks are persistent; two of them form a cluster, have the same columns of two
// neighbouring tiles of rows, and fetch half of the weights each for both.
#include <algorithm>

#include "kernels/cuda/gate_product.h"
#include "kernels/cuda/gelu.cuh"
#include "kernels/cuda/gelu_product.h"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace rat::kernels::cuda::paths {
namespace {

using namespace hopper;

constexpr int kTile = 128, kDeep = 64;  // rows and columns of a tile of results; inner columns of a step
constexpr int kBlocks = 2;              // of a cluster
constexpr int kTeams = 2, kOfTeam = 2, kConsumers = kTeams * kOfTeam, kThreads = (1 + kConsumers) * 128;
constexpr int kRows = kTile / kOfTeam;  // of a warpgroup
constexpr int kOperand = tile_bytes(kTile, kDeep), kPart = kOperand / kBlocks, kOut = tile_bytes(kRows, kTile);
constexpr int kOutHalf = half_bytes(kRows), kWeightHalf = half_bytes(kDeep);

// What follows a tile's product. Of the gate's gradient the teams share the places of what it reads and sends where products
// are deep, which leaves more stages: one team is long done with them when the other comes to need them.
enum class End { gelu, gelu_alone, gelu_gradient, gate_gradient, deep_gate_gradient };  // alone: without its slope

template <End END>
constexpr bool kGelu = END == End::gelu || END == End::gelu_alone;
template <End END>
constexpr bool kGate = END == End::gate_gradient || END == End::deep_gate_gradient;
// Tiles that a warpgroup reads at the end and sends: the gate takes its input and its logits.
template <End END>
constexpr int kEnds = kGate<END> ? 2 : 1;
// Warpgroups that have a place of their own for them.
template <End END>
constexpr int kPlaces = END == End::deep_gate_gradient ? kOfTeam : kConsumers;
template <End END>
constexpr int kStages = END == End::gate_gradient ? 3 : kGelu<END> ? 4 : 5;  // what then fits
constexpr int kOutboxes = 3;  // halves of a tile that a warpgroup sends GELU and its slope from
template <End END>
constexpr int kPlaceBytes = kGelu<END> ? kOutboxes * kOutHalf : kEnds<END> * kOut;
// The weight's rows are the inner dimension.
template <End END>
constexpr bool kTransposed = !kGelu<END>;

template <End END>
struct Offsets {  // in shared memory, bytes: stages of both operands, what each warpgroup reads and sends, barriers
  static constexpr int steps = 0, out = kStages<END> * 2 * kOperand;
  static constexpr int full = out + kPlaces<END> * kPlaceBytes<END>, free = full + 8 * kStages<END>;
  static constexpr int read_full = free + 8 * kStages<END>, read_free = read_full + 8 * kConsumers;
  static constexpr int bytes = read_free + 8 * kConsumers + 1024;  // the start is rounded up to 1024
};

struct Maps {
  CUtensorMap rows, weight;
  CUtensorMap slope;      // of GELU: written by the product, read by the gradient; of the gate: y
  CUtensorMap gate;       // of the gate: z, read
  CUtensorMap out, gate_out;
};

// Which tiles come when: all columns of the cluster's rows before the next rows, so that these come from memory once.
struct Work {
  int pairs, column_tiles, steps;
  float* delta;  // of the gate: (B*H, T), of B*T `rows`
  int rows, heads, head_size, tokens;

  struct Place {
    int row, column;
  };
  __device__ Place at(int pair, uint32_t block) const {
    return {(pair / column_tiles * kBlocks + static_cast<int>(block)) * kTile, pair % column_tiles * kTile};
  }
};

template <End END>
__device__ void produce(const Maps& maps, const Work& work, uint32_t shared) {
  const uint32_t block = block_in_cluster();
  const int mine = static_cast<int>(block) * (kTile / kBlocks);
  Ring ring;
  for (int pair = blockIdx.x / kBlocks; pair < work.pairs; pair += gridDim.x / kBlocks) {
    const auto [row, column] = work.at(pair, block);
    for (int step = 0; step < work.steps; ++step) {
      const uint32_t left = shared + Offsets<END>::steps + ring.stage * 2 * kOperand, right = left + kOperand;
      const uint32_t full = shared + Offsets<END>::full + 8 * ring.stage;
      barrier_wait(shared + Offsets<END>::free + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(full, 2 * kOperand);
      copy_box(left, maps.rows, step * kDeep, row, 0, full);
      const int weight_column = kTransposed<END> ? column + mine : step * kDeep;
      const int weight_row = kTransposed<END> ? step * kDeep : column + mine;
      copy_box_to_blocks(right + block * kPart, maps.weight, weight_column, weight_row, 0, full, (1 << kBlocks) - 1);
      ring.template advance<kStages<END>>();
    }
  }
}

template <End END>
__device__ void bring_ends(const Maps& maps, const Work& work, uint32_t shared) {
  int turn = 0;
  for (int pair = blockIdx.x / kBlocks; pair < work.pairs; pair += gridDim.x / kBlocks, ++turn) {
    const auto [row, column] = work.at(pair, block_in_cluster());
    for (int member = 0; member < kOfTeam; ++member) {
      const int which = turn % kTeams * kOfTeam + member;
      const int place = which % kPlaces<END>, uses = turn * (kConsumers / kPlaces<END>) / kTeams;  // of the place, so far
      const uint32_t to = shared + Offsets<END>::out + place * kPlaceBytes<END>;
      const uint32_t full = shared + Offsets<END>::read_full + 8 * which;
      barrier_wait(shared + Offsets<END>::read_free + 8 * place, static_cast<uint32_t>(uses & 1) ^ 1);
      barrier_expect(full, kEnds<END> * kOut);
      for (int half = 0; half < 2; ++half) {
        copy_box(to + half * kOutHalf, maps.slope, column + half * kHalf, row + member * kRows, 0, full);
        if constexpr (kGate<END>)
          copy_box(to + kOut + half * kOutHalf, maps.gate, column + half * kHalf, row + member * kRows, 0, full);
      }
    }
  }
}

// Four 8 x 8 matrices of a warp's 16 rows: sums of 16-byte pieces `piece` and `piece` + 1.
struct Quad {
  uint32_t at;
  __device__ Quad(uint32_t tile, int piece) : at(tile + quad_at<kRows>(threadIdx.x / 32 % 4 * 16, piece)) {}
  __device__ void store(const float* sums) const {  // of 2 pieces, 4 sums each
    const uint32_t pairs[4] = {pack_pair(sums[0], sums[1]), pack_pair(sums[2], sums[3]), pack_pair(sums[4], sums[5]),
                               pack_pair(sums[6], sums[7])};
    store_matrices(at, pairs);
  }
};

// The tile of a warpgroup goes to memory; its first thread waits until it has been read.
__device__ __forceinline__ void send(const CUtensorMap& map, uint32_t tile, const Work::Place& place, int which,
                                     const CUtensorMap* second = nullptr) {
  fence_shared_stores();
  sync_warpgroup(1 + which);
  if (threadIdx.x % 128 != 0) return;
  for (int half = 0; half < 2; ++half) {
    store_box(map, tile + half * kOutHalf, place.column + half * kHalf, place.row, 0);
    if (second != nullptr) store_box(*second, tile + kOut + half * kOutHalf, place.column + half * kHalf, place.row, 0);
  }
  commit_stores();
}
// Where a warpgroup sends half of a tile's columns from, by turns. While it computes, the copy engine reads the two before.
struct Outbox {
  uint32_t first, at;
  int which;
  __device__ Outbox(uint32_t place, int warpgroup) : first(place), at(place), which(warpgroup) {}
  // What was stored at `at` goes to memory; the next place is free.
  __device__ void send(const CUtensorMap& map, int column, int row) {
    fence_shared_stores();
    if (threadIdx.x % 128 == 0) wait_stores_read<1>();
    sync_warpgroup(1 + which);
    if (threadIdx.x % 128 == 0) {
      store_box(map, at, column, row, 0);
      commit_stores();
    }
    at = at == first + (kOutboxes - 1) * kOutHalf ? first : at + kOutHalf;
  }
};

template <bool SLOPE>
__device__ __forceinline__ void finish_product(const Maps& maps, float (&sums)[64], Outbox& outbox, const Work::Place& place) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* const mine = &sums[half * 32];
#pragma unroll
    for (int piece = 0; piece < 8; piece += 2) {
      float slopes[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) slopes[i] = gelu_and_slope(mine[piece * 4 + i]);
      if constexpr (SLOPE) Quad(outbox.at, piece).store(slopes);
    }
    if constexpr (SLOPE) outbox.send(maps.slope, place.column + half * kHalf, place.row);
#pragma unroll
    for (int piece = 0; piece < 8; piece += 2) Quad(outbox.at, piece).store(&mine[piece * 4]);
    outbox.send(maps.out, place.column + half * kHalf, place.row);
  }
}

__device__ __forceinline__ void finish_gradient(const Maps& maps, float (&sums)[64], uint32_t tile, const Work::Place& place,
                                                int which, uint32_t read_full, uint32_t read_free, uint32_t phase) {
  barrier_wait(read_full, phase);
#pragma unroll
  for (int piece = 0; piece < 16; piece += 2) {
    const Quad quad(tile, piece);
    uint32_t slopes[4];
    tiles::load_matrices(slopes, quad.at);
    float* const mine = &sums[piece * 4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      mine[2 * i] *= low_half(slopes[i]);
      mine[2 * i + 1] *= high_half(slopes[i]);
    }
    quad.store(mine);  // to where this warp alone has just read
  }
  send(maps.out, tile, place, which);
  if (threadIdx.x % 128 == 0) {
    wait_stores_read();
    barrier_arrive(read_free);
  }
}

// Adds what a thread's quad has of two rows (lane / 4 and 8 below) of a head, and writes it.
__device__ __forceinline__ void write_delta(const Work& work, const Work::Place& place, int first_channel, const float (&sums)[2]) {
  const int lane = threadIdx.x % 32, head = (place.column + first_channel) / work.head_size;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float sum = tiles::row_sum(sums[i]);
    const int row = place.row + threadIdx.x / 32 % 4 * 16 + lane / 4 + 8 * i;
    if (lane % 4 != 0 || row >= work.rows || head >= work.heads) continue;
    const int b = row / work.tokens;
    work.delta[(int64_t{b} * work.heads + head) * work.tokens + row - b * work.tokens] = sum;
  }
}

__device__ __forceinline__ void finish_gate_gradient(const Maps& maps, const Work& work, float (&sums)[64], uint32_t tile,
                                                     const Work::Place& place, int which, uint32_t read_full,
                                                     uint32_t read_free, uint32_t phase) {
  barrier_wait(read_full, phase);
  float delta[2] = {};
#pragma unroll
  for (int piece = 0; piece < 16; piece += 2) {
    const Quad at(tile, piece), gate_at(tile + kOut, piece);
    uint32_t y[4], z[4];
    tiles::load_matrices(y, at.at);
    tiles::load_matrices(z, gate_at.at);
    float* const mine = &sums[piece * 4];
    float grad_z[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float open = sigmoid<bf16>(i % 2 == 0 ? low_half(z[i / 2]) : high_half(z[i / 2]));
      const float product = mine[i] * (i % 2 == 0 ? low_half(y[i / 2]) : high_half(y[i / 2]));
      delta[i / 2 % 2] += product;
      grad_z[i] = fmaf(-open, product, product);
      mine[i] *= open;
    }
    at.store(mine);  // to where this warp alone has just read
    gate_at.store(grad_z);
    if (piece == 6 && work.head_size == 64) {
      write_delta(work, place, 0, delta);
      delta[0] = delta[1] = 0.0f;
    }
  }
  send(maps.out, tile, place, which, &maps.gate_out);
  write_delta(work, place, 64, delta);  // of the head that the upper columns belong to
  if (threadIdx.x % 128 == 0) {
    wait_stores_read();
    barrier_arrive(read_free);
  }
}

// The tensor cores go from one team to the other after each tile: without that the second would take a stage for its own
// one round too early, and both would take GELU at the same time.
__device__ __forceinline__ void wait_for_turn(int team) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + kConsumers + team), "n"(kConsumers * 128) : "memory");
}
__device__ __forceinline__ void give_turn(int team) {
  asm volatile("bar.arrive %0, %1;" ::"r"(1 + kConsumers + team), "n"(kConsumers * 128) : "memory");
}

// sums (64, 128) of this member of the team, all steps of its inner dimension.
// `all_started` is called before the last of them end.
template <End END, class Started>
__device__ __forceinline__ void multiply(float (&sums)[64], Ring& ring, const Work& work, uint32_t shared, int member,
                                         const Started& all_started) {
  constexpr bool TRANSPOSED = kTransposed<END>;
  const uint32_t lane = threadIdx.x % 32;
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < kBlocks) barrier_arrive_at(shared + Offsets<END>::free + 8 * stage, lane);
  };
  int before = 0;
  for (int step = 0; step < work.steps; ++step) {
    const uint32_t left = shared + Offsets<END>::steps + ring.stage * 2 * kOperand, right = left + kOperand;
    barrier_wait(shared + Offsets<END>::full + 8 * ring.stage, ring.phase);
    const uint64_t rows = rows_operand(left + member * (kOperand / kOfTeam));
    const uint64_t columns = TRANSPOSED ? columns_operand(right, kWeightHalf) : rows_operand(right);
    begin_products();
#pragma unroll
    for (int k = 0; k < kDeep / 16; ++k)
      multiply_n128<TRANSPOSED>(sums, further(rows, k * 32), further(columns, k * (TRANSPOSED ? 2048 : 32)), step + k != 0);
    commit_products();
    if (step > 0) {
      wait_products<1>();
      release(before);
    }
    before = ring.stage;
    ring.template advance<kStages<END>>();
  }
  all_started();
  wait_products<0>();
  hold(sums);
  release(before);
}

// One warpgroup: its rows of every second tile of the block.
template <End END>
__device__ void consume(const Maps& maps, const Work& work, uint32_t shared, int which) {
  const uint32_t block = block_in_cluster(), place_of_ends = which % kPlaces<END>;
  const uint32_t tile = shared + Offsets<END>::out + place_of_ends * kPlaceBytes<END>;
  const int team = which / kOfTeam, member = which % kOfTeam;
  const int stride = gridDim.x / kBlocks, first = blockIdx.x / kBlocks;
  Ring ring;
  if (team == 1) ring.template skip<kStages<END>>(work.steps);
  uint32_t phase = 0;
  Outbox outbox(tile, which);
  for (int pair = first + team * stride; pair < work.pairs; pair += kTeams * stride) {
    Work::Place place = work.at(pair, block);
    place.row += member * kRows;
    float sums[64];
    if (pair != first) wait_for_turn(team);
    multiply<END>(sums, ring, work, shared, member, [&] {
      if (pair + stride < work.pairs) give_turn(1 - team);
    });
    const uint32_t read_full = shared + Offsets<END>::read_full + 8 * which;
    const uint32_t read_free = shared + Offsets<END>::read_free + 8 * place_of_ends;
    if constexpr (kGelu<END>) finish_product<END == End::gelu>(maps, sums, outbox, place);
    else if constexpr (END == End::gelu_gradient) finish_gradient(maps, sums, tile, place, which, read_full, read_free, phase);
    else finish_gate_gradient(maps, work, sums, tile, place, which, read_full, read_free, phase);
    phase ^= 1;
    ring.template skip<kStages<END>>(work.steps);  // over the other team's tile
  }
  if (threadIdx.x % 128 == 0) wait_stores_read();
}

template <End END>
__global__ void __cluster_dims__(kBlocks) __launch_bounds__(kThreads, 1)
    product_kernel(const __grid_constant__ Maps maps, const __grid_constant__ Work work) {
  extern __shared__ unsigned char raw[];
  const uint32_t shared = (tiles::shared_address(raw) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages<END>; ++stage) {
      barrier_init(shared + Offsets<END>::full + 8 * stage, 1);
      barrier_init(shared + Offsets<END>::free + 8 * stage, 4 * kOfTeam * kBlocks);  // the warps that read it, in both blocks
    }
    for (int which = 0; which < kConsumers; ++which) {
      barrier_init(shared + Offsets<END>::read_full + 8 * which, 1);
      barrier_init(shared + Offsets<END>::read_free + 8 * which, 1);
    }
    make_barriers_visible();
  }
  __syncthreads();
  sync_cluster();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<END>(maps, work, shared);
    if (!kGelu<END> && threadIdx.x == 32) bring_ends<END>(maps, work, shared);
  } else {
    take_registers<104>();
    // Of the warp's first lane, so that the compiler knows it is the same for all and keeps addresses out of the vector unit.
    consume<END>(maps, work, shared, __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0));
  }
  sync_cluster();  // the other block may still write here, and count here
}

template <End END>
Status launch(const char* op, const Maps& maps, Work work, int64_t rows, int64_t channels, int64_t width, cudaStream_t stream) {
  RAT_CUDA_TRY(checked(
      cudaFuncSetAttribute(product_kernel<END>, cudaFuncAttributeMaxDynamicSharedMemorySize, Offsets<END>::bytes), op));
  work.column_tiles = static_cast<int>((width + kTile - 1) / kTile);
  work.steps = static_cast<int>((channels + kDeep - 1) / kDeep);
  work.pairs = static_cast<int>((rows + kTile * kBlocks - 1) / (kTile * kBlocks) * work.column_tiles);
  int together = 0;  // clusters that the device has room for at a time: not always half of its multiprocessors
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(kBlocks), config.blockDim = dim3(kThreads), config.dynamicSmemBytes = Offsets<END>::bytes;
  RAT_CUDA_TRY(checked(cudaOccupancyMaxActiveClusters(&together, product_kernel<END>, &config), op));
  if (together < 1)
    return refuse("%s: this device has no room for a cluster of %d blocks; take a whole GPU, or another dtype than bf16", op,
                  kBlocks);
  const auto clusters = static_cast<unsigned>(std::min(work.pairs, together));
  product_kernel<END><<<clusters * kBlocks, kThreads, Offsets<END>::bytes, stream>>>(maps, work);
  return launched(op);
}

}  // namespace

Status wgmma_gelu_product(const GeluProductArgs& a, cudaStream_t stream) {
  Maps maps{};
  RAT_CUDA_TRY(matrix_map(maps.rows, a.x, a.rows, a.channels, kTile));
  RAT_CUDA_TRY(matrix_map(maps.weight, a.weight, a.width, a.channels, kTile / kBlocks));
  RAT_CUDA_TRY(matrix_map(maps.slope, a.slope, a.rows, a.width, kRows));
  RAT_CUDA_TRY(matrix_map(maps.out, a.activated, a.rows, a.width, kRows));
  return a.keep_slope ? launch<End::gelu>("gelu_product", maps, {}, a.rows, a.channels, a.width, stream)
                      : launch<End::gelu_alone>("gelu_product", maps, {}, a.rows, a.channels, a.width, stream);
}

Status wgmma_gelu_product_backward(const GeluProductBackwardArgs& a, cudaStream_t stream) {
  Maps maps{};
  RAT_CUDA_TRY(matrix_map(maps.rows, a.grad, a.rows, a.channels, kTile));
  RAT_CUDA_TRY(matrix_map(maps.weight, a.weight, a.channels, a.width, kDeep));
  RAT_CUDA_TRY(matrix_map(maps.slope, a.slope, a.rows, a.width, kRows));
  RAT_CUDA_TRY(matrix_map(maps.out, a.grad_hidden, a.rows, a.width, kRows));
  return launch<End::gelu_gradient>("gelu_product_backward", maps, {}, a.rows, a.channels, a.width, stream);
}

Status wgmma_gate_product_backward(const GateProductBackwardArgs<bf16>& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const int64_t D = s.channels(), rows = s.rows();
  const RatShape all_rows{.batch = 1, .tokens = rows};
  Maps maps{};
  RAT_CUDA_TRY(matrix_map(maps.rows, a.grad, rows, D, kTile));
  RAT_CUDA_TRY(matrix_map(maps.weight, a.weight, D, D, kDeep));
  RAT_CUDA_TRY(matrix_map(maps.slope, a.y, rows, D, kRows));
  RAT_CUDA_TRY(token_map(maps.gate, a.z, D, a.z_stride, all_rows, kRows));
  RAT_CUDA_TRY(matrix_map(maps.out, a.grad_out, rows, D, kRows));
  RAT_CUDA_TRY(token_map(maps.gate_out, a.grad_z, D, a.grad_z_stride, all_rows, kRows));
  Work work{};
  work.delta = a.delta;
  work.rows = static_cast<int>(rows), work.heads = static_cast<int>(s.heads), work.tokens = static_cast<int>(s.tokens);
  work.head_size = static_cast<int>(s.head_size);
  constexpr int64_t deep = 1024;  // inner dimension from which on a product lasts for longer than what the teams share
  return D > deep ? launch<End::deep_gate_gradient>("gate_product_backward", maps, work, rows, D, D, stream)
                  : launch<End::gate_gradient>("gate_product_backward", maps, work, rows, D, D, stream);
}

}  // namespace rat::kernels::cuda::paths
