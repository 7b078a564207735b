// Hopper's asynchronous machinery (sm_90a): barriers in shared memory, tile copies by the tensor memory accelerator, and
// descriptors of tiles for wgmma.
//
// A tile is (ROWS, P) bf16 as one (P = 64) or two halves (P = 128) of 64 columns; a row of a half is 128 bytes, its 16-byte
// pieces XORed with the row number modulo 8 (the 128-byte swizzle that both the copy engine and wgmma know). Tiles start at
// multiples of 1024.
#pragma once

#include <cuda.h>

#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace rat::kernels::cuda::hopper {

constexpr int kHalf = 64;  // columns of a half tile
__host__ __device__ constexpr int half_bytes(int rows) { return rows * kHalf * 2; }
__host__ __device__ constexpr int tile_bytes(int rows, int columns) { return rows * columns * 2; }

// A position in a ring of stages, and how often it has gone round, modulo 2.
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  template <int STAGES>
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, phase ^= 1;
  }
  template <int STAGES>
  __device__ void skip(int steps) {
    stage += steps;
    phase ^= static_cast<uint32_t>(stage / STAGES & 1);
    stage %= STAGES;
  }
};

__device__ __forceinline__ void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}
__device__ __forceinline__ void barrier_expect(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// At the barrier that lies at the same place in block `block` of the cluster. For tiles that were read only: naming the
// cluster's scope would order all memory before it, for thousands of cycles.
__device__ __forceinline__ void barrier_arrive_at(uint32_t barrier, uint32_t block) {
  asm volatile(
      "{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier),
      "r"(block)
      : "memory");
}
__device__ __forceinline__ uint32_t block_in_cluster() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}
// What this block has read of the others is in its registers: nothing to make visible.
__device__ __forceinline__ void leave_cluster() {
  asm volatile("barrier.cluster.arrive.relaxed;\nbarrier.cluster.wait;" ::: "memory");
}
__device__ __forceinline__ void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@done bra finished;\n"
      "bra again;\nfinished:\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void make_barriers_visible() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Ordinary stores to shared memory become visible to the copy engine and to wgmma.
__device__ __forceinline__ void fence_shared_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}
// Copies the box at (column, row, sequence) of a 3-D map, or (column, row, head, sequence) of a 4-D one.
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, int column, int row, int sequence,
                                         uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
               ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(sequence), "r"(barrier)
               : "memory");
}
__device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap& map, int column, int row, int head, int sequence,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
      ::"r"(to), "l"(&map), "r"(column), "r"(row), "r"(head), "r"(sequence), "r"(barrier)
      : "memory");
}
// The same box to the same place of every block of the cluster that `blocks` has a bit for; each one's own barrier counts it.
__device__ __forceinline__ void copy_box_to_blocks(uint32_t to, const CUtensorMap& map, int column, int row, int sequence,
                                                   uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, "
      "%4}], [%5], %6;" ::"r"(to),
      "l"(&map), "r"(column), "r"(row), "r"(sequence), "r"(barrier), "h"(blocks)
      : "memory");
}
// Tiles in halves, `half_size` bytes apart; the caller has told the barrier how many bytes to expect.
template <int P>
__device__ __forceinline__ void copy_key_tile(uint32_t to, const CUtensorMap& map, int half_size, int row, int head,
                                              int sequence, uint32_t full) {
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * half_size, map, half * kHalf, row, head, sequence, full);
}
template <int P>
__device__ __forceinline__ void copy_token_tile(uint32_t to, const CUtensorMap& map, int half_size, int column, int row,
                                                int sequence, uint32_t full) {
#pragma unroll
  for (int half = 0; half < P / kHalf; ++half)
    copy_box(to + half * half_size, map, column + half * kHalf, row, sequence, full);
}

__device__ __forceinline__ void store_box(const CUtensorMap& map, uint32_t from, int column, int row, int sequence) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(&map), "r"(from),
               "r"(column), "r"(row), "r"(sequence)
               : "memory");
}
__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until all but the newest PENDING groups have been read.
template <int PENDING = 0>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory");
}

// 128 threads of one warpgroup.
__device__ __forceinline__ void sync_warpgroup(int barrier) {
  asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
}
template <int REGISTERS>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}
template <int REGISTERS>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

__device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Ties the compiler's use of accumulators to the wait before it.
template <int N>
__device__ __forceinline__ void hold(float (&sums)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(sums[i])::"memory");
}

// Operand with K contiguous: rows from `at`, groups of 8 rows 1024 bytes apart.
__device__ __forceinline__ uint64_t rows_operand(uint32_t at) {
  return static_cast<uint64_t>((at & 0x3ffff) >> 4) | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
// Operand with N contiguous (the tile's rows are K): halves of 64 columns `half_bytes` apart.
__device__ __forceinline__ uint64_t columns_operand(uint32_t at, int half_bytes) {
  return static_cast<uint64_t>((at & 0x3ffff) >> 4) | static_cast<uint64_t>(half_bytes >> 4) << 16 |
         uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
}
// An operand some bytes further on.
__device__ __forceinline__ uint64_t further(uint64_t operand, int bytes) {
  return operand + static_cast<uint64_t>(bytes >> 4);
}

// Byte offset of 16-byte piece `piece` (0 .. P/8 - 1) of row `row` in a tile of ROWS rows.
template <int ROWS>
__device__ __forceinline__ uint32_t tile_at(int row, int piece) {
  return static_cast<uint32_t>((piece >> 3) * ROWS * 128 + row * 128 + (((piece & 7) ^ (row & 7)) << 4));
}
// What a lane names for four 8 x 8 matrices: rows [first_row, first_row + 16) of pieces `piece` and `piece` + 1. Loaded or
// stored, they are what a thread has of two pieces of an accumulator, two rows (lane / 4 and 8 below) of each.
template <int ROWS>
__device__ __forceinline__ uint32_t quad_at(int first_row, int piece) {
  const int lane = threadIdx.x % 32;
  return tile_at<ROWS>(first_row + lane % 16, piece + lane / 16);
}
__device__ __forceinline__ void store_matrices(uint32_t at, const uint32_t (&r)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(r[0]), "r"(r[1]), "r"(r[2]),
               "r"(r[3])
               : "memory");
}

}  // namespace rat::kernels::cuda::hopper
