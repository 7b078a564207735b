// The fused path of gelu_product for Hopper. A block is one warp that copies tiles (tensor memory accelerator), one that
// brings the hidden values of a gradient, and two teams of two warpgroups. A team multiplies a (128, 128) tile of results,
// 64 rows a warpgroup, in turn with the other: while one takes GELU and writes, the other has the tensor cores. Teams of
// two, because a single warp a scheduler would take GELU for longer than a product lasts. Blocks are persistent; two of
// them form a cluster, have the same columns of two neighbouring tiles of rows, and fetch half of the weights each for both.
#include <algorithm>

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
constexpr int kStages = 5;

struct Offsets {  // in shared memory, bytes: stages of both operands, what each warpgroup sends, barriers
  static constexpr int steps = 0, out = kStages * 2 * kOperand;
  static constexpr int full = out + kConsumers * kOut, free = full + 8 * kStages;
  static constexpr int hidden_full = free + 8 * kStages, hidden_free = hidden_full + 8 * kConsumers;
  static constexpr int bytes = hidden_free + 8 * kConsumers + 1024;  // the start is rounded up to 1024
};

struct Maps {
  CUtensorMap rows, weight, hidden, out;  // hidden: written by the product, read by the gradient
};

// Which tiles come when: all columns of the cluster's rows before the next rows, so that these come from memory once.
struct Work {
  int pairs, column_tiles, steps;

  struct Place {
    int row, column;
  };
  __device__ Place at(int pair, uint32_t block) const {
    return {(pair / column_tiles * kBlocks + static_cast<int>(block)) * kTile, pair % column_tiles * kTile};
  }
};

struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
  __device__ void skip(int steps) {
    stage += steps;
    phase ^= static_cast<uint32_t>(stage / kStages & 1);
    stage %= kStages;
  }
};

// TRANSPOSED: the weight's rows are the inner dimension, as in the gradient.
template <bool TRANSPOSED>
__device__ void produce(const Maps& maps, const Work& work, uint32_t shared) {
  const uint32_t block = block_in_cluster();
  const int mine = static_cast<int>(block) * (kTile / kBlocks);
  Ring ring;
  for (int pair = blockIdx.x / kBlocks; pair < work.pairs; pair += gridDim.x / kBlocks) {
    const auto [row, column] = work.at(pair, block);
    for (int step = 0; step < work.steps; ++step) {
      const uint32_t left = shared + Offsets::steps + ring.stage * 2 * kOperand, right = left + kOperand;
      const uint32_t full = shared + Offsets::full + 8 * ring.stage;
      barrier_wait(shared + Offsets::free + 8 * ring.stage, ring.phase ^ 1);
      barrier_expect(full, 2 * kOperand);
      copy_box(left, maps.rows, step * kDeep, row, 0, full);
      const int weight_column = TRANSPOSED ? column + mine : step * kDeep;
      const int weight_row = TRANSPOSED ? step * kDeep : column + mine;
      copy_box_to_blocks(right + block * kPart, maps.weight, weight_column, weight_row, 0, full, (1 << kBlocks) - 1);
      ring.advance();
    }
  }
}

__device__ void bring_hidden(const Maps& maps, const Work& work, uint32_t shared) {
  int turn = 0;
  for (int pair = blockIdx.x / kBlocks; pair < work.pairs; pair += gridDim.x / kBlocks, ++turn) {
    const auto [row, column] = work.at(pair, block_in_cluster());
    for (int member = 0; member < kOfTeam; ++member) {
      const int which = turn % kTeams * kOfTeam + member;
      const uint32_t to = shared + Offsets::out + which * kOut, full = shared + Offsets::hidden_full + 8 * which;
      barrier_wait(shared + Offsets::hidden_free + 8 * which, static_cast<uint32_t>(turn / kTeams & 1) ^ 1);
      barrier_expect(full, kOut);
      for (int half = 0; half < 2; ++half)
        copy_box(to + half * kOutHalf, maps.hidden, column + half * kHalf, row + member * kRows, 0, full);
    }
  }
}

// Sums of 16-byte pieces `piece` and `piece` + 1 of this thread's two rows, in the order that (un)packs four 8 x 8 matrices.
struct Quad {
  uint32_t at;  // where the row whose address this lane gives lies
  __device__ Quad(uint32_t tile, int piece) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    at = tile + tile_at<kRows>(warp * 16 + lane % 16, piece + lane / 16);
  }
  __device__ void store(const float* sums) const {  // of 2 pieces, 4 sums each
    const uint32_t a = pack_pair(sums[0], sums[1]), b = pack_pair(sums[2], sums[3]);
    const uint32_t c = pack_pair(sums[4], sums[5]), d = pack_pair(sums[6], sums[7]);
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
  }
};

// The tile of a warpgroup goes to memory; its first thread waits until it has been read.
__device__ __forceinline__ void send(const CUtensorMap& map, uint32_t tile, const Work::Place& place, int which) {
  fence_shared_stores();
  sync_warpgroup(1 + which);
  if (threadIdx.x % 128 != 0) return;
  for (int half = 0; half < 2; ++half)
    store_box(map, tile + half * kOutHalf, place.column + half * kHalf, place.row, 0);
  commit_stores();
}
__device__ __forceinline__ void wait_until_sent(int which) {
  if (threadIdx.x % 128 == 0) wait_stores_read();
  sync_warpgroup(1 + which);
}

__device__ __forceinline__ void write_tile(const float (&sums)[64], uint32_t tile) {
#pragma unroll
  for (int piece = 0; piece < 16; piece += 2) Quad(tile, piece).store(&sums[piece * 4]);
}

__device__ __forceinline__ void finish_product(const Maps& maps, float (&sums)[64], uint32_t tile, const Work::Place& place,
                                               int which) {
  wait_until_sent(which);
  write_tile(sums, tile);
  send(maps.hidden, tile, place, which);
#pragma unroll
  for (float& sum : sums) sum = gelu_value(sum);
  wait_until_sent(which);
  write_tile(sums, tile);
  send(maps.out, tile, place, which);
}

__device__ __forceinline__ void finish_gradient(const Maps& maps, float (&sums)[64], uint32_t tile, const Work::Place& place,
                                                int which, uint32_t hidden_full, uint32_t hidden_free, uint32_t phase) {
  barrier_wait(hidden_full, phase);
#pragma unroll
  for (int piece = 0; piece < 16; piece += 2) {
    const Quad quad(tile, piece);
    uint32_t hidden[4];
    tiles::load_matrices(hidden, quad.at);
    float* const mine = &sums[piece * 4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      mine[2 * i] *= gelu_slope(low_half(hidden[i]));
      mine[2 * i + 1] *= gelu_slope(high_half(hidden[i]));
    }
    quad.store(mine);  // to where this warp alone has just read
  }
  send(maps.out, tile, place, which);
  if (threadIdx.x % 128 == 0) {
    wait_stores_read();
    barrier_arrive(hidden_free);
  }
}

// An operand some bytes further on.
__device__ __forceinline__ uint64_t further(uint64_t operand, int bytes) {
  return operand + static_cast<uint64_t>(bytes >> 4);
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
template <bool TRANSPOSED, class Started>
__device__ __forceinline__ void multiply(float (&sums)[64], Ring& ring, const Work& work, uint32_t shared, int member,
                                         const Started& all_started) {
  const uint32_t lane = threadIdx.x % 32;
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane < kBlocks) barrier_arrive_at(shared + Offsets::free + 8 * stage, lane);
  };
  int before = 0;
  for (int step = 0; step < work.steps; ++step) {
    const uint32_t left = shared + Offsets::steps + ring.stage * 2 * kOperand, right = left + kOperand;
    barrier_wait(shared + Offsets::full + 8 * ring.stage, ring.phase);
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
    ring.advance();
  }
  all_started();
  wait_products<0>();
  hold(sums);
  release(before);
}

// One warpgroup: its rows of every second tile of the block.
template <bool BACKWARD>
__device__ void consume(const Maps& maps, const Work& work, uint32_t shared, int which) {
  const uint32_t block = block_in_cluster(), tile = shared + Offsets::out + which * kOut;
  const int team = which / kOfTeam, member = which % kOfTeam;
  const int stride = gridDim.x / kBlocks, first = blockIdx.x / kBlocks;
  Ring ring;
  if (team == 1) ring.skip(work.steps);
  uint32_t phase = 0;
  for (int pair = first + team * stride; pair < work.pairs; pair += kTeams * stride) {
    Work::Place place = work.at(pair, block);
    place.row += member * kRows;
    float sums[64];
    if (pair != first) wait_for_turn(team);
    multiply<BACKWARD>(sums, ring, work, shared, member, [&] {
      if (pair + stride < work.pairs) give_turn(1 - team);
    });
    if constexpr (BACKWARD) {
      finish_gradient(maps, sums, tile, place, which, shared + Offsets::hidden_full + 8 * which,
                      shared + Offsets::hidden_free + 8 * which, phase);
      phase ^= 1;
    } else {
      finish_product(maps, sums, tile, place, which);
    }
    ring.skip(work.steps);  // over the other team's tile
  }
  if (threadIdx.x % 128 == 0) wait_stores_read();
}

template <bool BACKWARD>
__global__ void __cluster_dims__(kBlocks) __launch_bounds__(kThreads, 1)
    gelu_product_kernel(const __grid_constant__ Maps maps, const __grid_constant__ Work work) {
  extern __shared__ unsigned char raw[];
  const uint32_t shared = (tiles::shared_address(raw) + 1023) / 1024 * 1024;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      barrier_init(shared + Offsets::full + 8 * stage, 1);
      barrier_init(shared + Offsets::free + 8 * stage, 4 * kOfTeam * kBlocks);  // the warps that read it, in both blocks
    }
    for (int which = 0; which < kConsumers; ++which) {
      barrier_init(shared + Offsets::hidden_full + 8 * which, 1);
      barrier_init(shared + Offsets::hidden_free + 8 * which, 1);
    }
    make_barriers_visible();
  }
  __syncthreads();
  sync_cluster();
  if (threadIdx.x < 128) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<BACKWARD>(maps, work, shared);
    if (BACKWARD && threadIdx.x == 32) bring_hidden(maps, work, shared);
  } else {
    take_registers<104>();
    // Of the warp's first lane, so that the compiler knows it is the same for all and keeps addresses out of the vector unit.
    consume<BACKWARD>(maps, work, shared, __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / 128 - 1, 0));
  }
  sync_cluster();  // the other block may still write here, and count here
}

template <bool BACKWARD>
Status launch(const Maps& maps, int64_t rows, int64_t channels, int64_t width, cudaStream_t stream) {
  const char* const op = BACKWARD ? "gelu_product_backward" : "gelu_product";
  RAT_CUDA_TRY(checked(
      cudaFuncSetAttribute(gelu_product_kernel<BACKWARD>, cudaFuncAttributeMaxDynamicSharedMemorySize, Offsets::bytes), op));
  Work work;
  work.column_tiles = static_cast<int>((width + kTile - 1) / kTile);
  work.steps = static_cast<int>((channels + kDeep - 1) / kDeep);
  work.pairs = static_cast<int>((rows + kTile * kBlocks - 1) / (kTile * kBlocks) * work.column_tiles);
  int together = 0;  // clusters that the device has room for at a time: not always half of its multiprocessors
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(kBlocks), config.blockDim = dim3(kThreads), config.dynamicSmemBytes = Offsets::bytes;
  RAT_CUDA_TRY(checked(cudaOccupancyMaxActiveClusters(&together, gelu_product_kernel<BACKWARD>, &config), op));
  if (together < 1)
    return refuse("%s: this device has no room for a cluster of %d blocks; take a whole GPU, or another dtype than bf16", op,
                  kBlocks);
  const auto clusters = static_cast<unsigned>(std::min(work.pairs, together));
  gelu_product_kernel<BACKWARD><<<clusters * kBlocks, kThreads, Offsets::bytes, stream>>>(maps, work);
  return launched(op);
}

}  // namespace

Status wgmma_gelu_product(const GeluProductArgs& a, cudaStream_t stream) {
  Maps maps{};
  RAT_CUDA_TRY(matrix_map(maps.rows, a.x, a.rows, a.channels, kTile));
  RAT_CUDA_TRY(matrix_map(maps.weight, a.weight, a.width, a.channels, kTile / kBlocks));
  RAT_CUDA_TRY(matrix_map(maps.hidden, a.hidden, a.rows, a.width, kRows));
  RAT_CUDA_TRY(matrix_map(maps.out, a.activated, a.rows, a.width, kRows));
  return launch<false>(maps, a.rows, a.channels, a.width, stream);
}

Status wgmma_gelu_product_backward(const GeluProductBackwardArgs& a, cudaStream_t stream) {
  Maps maps{};
  RAT_CUDA_TRY(matrix_map(maps.rows, a.grad, a.rows, a.channels, kTile));
  RAT_CUDA_TRY(matrix_map(maps.weight, a.weight, a.channels, a.width, kDeep));
  RAT_CUDA_TRY(matrix_map(maps.hidden, a.hidden, a.rows, a.width, kRows));
  RAT_CUDA_TRY(matrix_map(maps.out, a.grad_hidden, a.rows, a.width, kRows));
  return launch<true>(maps, a.rows, a.channels, a.width, stream);
}

}  // namespace rat::kernels::cuda::paths
