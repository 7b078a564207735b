// Tiles of bf16 in shared memory and the tensor-core products over them (mma.sync m16n8k16, Ampere and later).
//
// A tile is ROWS rows of P values; the 16-byte pieces of a row are XORed with the row number, so that the eight rows an
// ldmatrix reads lie in different banks.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"

namespace rat::kernels::cuda::tiles {

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// 16 bytes from global to shared memory, zeros when not `valid`; the L2 cache takes the whole line: in pieces of 16, rows that
// are read once come at 4.0 instead of 4.4 TB/s.
__device__ __forceinline__ void copy_16(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// 4 or 8 bytes, or as many zeros.
template <int BYTES>
__device__ __forceinline__ void copy_few(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? BYTES : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(BYTES), "r"(bytes) : "memory");
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Byte offset of the 16-byte piece `piece` of row `row`.
template <int P>
__device__ __forceinline__ uint32_t piece_at(int row, int piece) {
  return static_cast<uint32_t>(row * P * 2 + ((piece ^ (row & 7)) * 16));
}

// Starts copying ROWS rows from `from` (stride in elements); rows from `valid` on are filled with zeros.
template <int ROWS, int P, int THREADS>
__device__ __forceinline__ void copy_tile(uint32_t tile, const bf16* from, int64_t stride, int valid) {
  constexpr int PIECES = P / 8;
#pragma unroll
  for (int i = 0; i < ROWS * PIECES / THREADS; ++i) {
    const int at = i * THREADS + static_cast<int>(threadIdx.x);
    const int row = at / PIECES, piece = at % PIECES;
    const bool inside = row < valid;
    copy_16(tile + piece_at<P>(row, piece), from + (inside ? row : 0) * stride + piece * 8, inside);
  }
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sums (16 M rows, 8 N columns) += a[a_row..] b[0..8N)^T over P, both row-major tiles.
template <int M, int N, int P>
__device__ __forceinline__ void multiply_transposed(float (&sums)[M][N][4], uint32_t a, int a_row, uint32_t b) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < P / 16; ++k) {
    uint32_t left[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m)
      load_matrices(left[m], a + piece_at<P>(a_row + m * 16 + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      uint32_t right[4];
      load_matrices(right, b + piece_at<P>(n * 8 + (lane & 7) + ((lane >> 4) << 3), k * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma(sums[m][n], left[m], right[0], right[1]);
        mma(sums[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// sums (16 M rows, P columns) += weights (16 M rows, 16 K columns, in registers) b[0..16K), b a row-major tile.
template <int M, int K, int P>
__device__ __forceinline__ void multiply_add(float (&sums)[M][P / 8][4], const uint32_t (&weights)[M][K][4], uint32_t b) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K; ++k) {
#pragma unroll
    for (int n = 0; n < P / 8; n += 2) {
      uint32_t right[4];
      load_matrices_transposed(right, b + piece_at<P>(k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3), n + (lane >> 4)));
#pragma unroll
      for (int m = 0; m < M; ++m) {
        mma(sums[m][n], weights[m][k], right[0], right[1]);
        mma(sums[m][n + 1], weights[m][k], right[2], right[3]);
      }
    }
  }
}

// The accumulators of a product become the left operand of the next one.
template <int M, int N>
__device__ __forceinline__ void as_left_operand(uint32_t (&weights)[M][N / 2][4], const float (&sums)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int k = 0; k < N / 2; ++k) {
      weights[m][k][0] = pack_pair(sums[m][2 * k][0], sums[m][2 * k][1]);
      weights[m][k][1] = pack_pair(sums[m][2 * k][2], sums[m][2 * k][3]);
      weights[m][k][2] = pack_pair(sums[m][2 * k + 1][0], sums[m][2 * k + 1][1]);
      weights[m][k][3] = pack_pair(sums[m][2 * k + 1][2], sums[m][2 * k + 1][3]);
    }
}

// Reduction over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

constexpr float kLog2e = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

}  // namespace rat::kernels::cuda::tiles
