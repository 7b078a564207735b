// Tiles of bf16 for linear attention on tensor cores (mma_cuda.cu): how a block copies them, multiplies them and puts
// its sums back. A block of four warps has a tile, a warp 16 of its rows.
#pragma once

#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/linear_attention/tiles.cuh"

namespace rat::kernels::gpu::linear::tensor_cores {

using cuda::bf16;
namespace tiles = cuda::tiles;

constexpr int warps = 4, block = 32 * warps, warp_rows = 16;
static_assert(warps * warp_rows == tile);

// Bytes of a tile of bf16 in shared memory.
template <int Columns>
constexpr int tile_bytes = 2 * Columns * tile;

// Rows of bf16, in device memory: `each` values of a head beside those of the next.
struct Packed {
  const bf16* data = nullptr;
  int64_t width = 0, stride = 0;  // of a row; heads that share them wrap around

  __device__ const bf16* rows_of(const Plan& plan, const Place& place, int64_t shift, int head, int each) const {
    return data + (place.batch * plan.tokens + place.first + shift) * stride + static_cast<int64_t>(head) * each % width;
  }
};

// Queries with what is read for them, or keys with their values; phi is taken once, by round_inputs.
struct PackedSide {
  Packed features, values;  // 2 P and P values of a head
  int64_t shift;
};

// Starts copying ROWS rows of `Columns` values to shared memory, `stride` apart; zeros take the place of rows from
// `rows` on.
template <int ROWS, int Columns>
__device__ void copy_rows(uint32_t to, const bf16* from, int64_t stride, int rows) {
  constexpr int pieces = Columns / 8, together = block / pieces;  // rows
  const int piece = threadIdx.x % pieces, first = threadIdx.x / pieces;
  const bf16* at = from + first * stride + piece * 8;
#pragma unroll
  for (int row = first, i = 0; i < ROWS / together; ++i, row += together, at += together * stride)
    tiles::copy_16(to + tiles::piece_at<Columns>(row, piece), row < rows ? at : from, row < rows);
}

// What was started to copy has arrived, for all threads.
__device__ __forceinline__ void await_copies() {
  tiles::commit_copies();
  tiles::wait_copies<0>();
  __syncthreads();
}

// sums += a b for this warp's rows of a (tile, K) and all of b (K, P), both in shared memory.
template <int K, int P>
__device__ void multiply_rows(float (&sums)[1][P / 8][4], uint32_t a, uint32_t b) {
  const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * warp_rows;
#pragma unroll 2
  for (int k = 0; k < K / 16; ++k) {
    uint32_t left[4];
    tiles::load_matrices(left, a + tiles::piece_at<K>(first + (lane & 15), k * 2 + (lane >> 4)));
#pragma unroll
    for (int n = 0; n < P / 8; n += 2) {
      uint32_t right[4];
      tiles::load_matrices_transposed(
          right, b + tiles::piece_at<P>(k * 16 + (lane & 7) + (((lane >> 3) & 1) << 3), n + (lane >> 4)));
      tiles::mma(sums[0][n], left, right[0], right[1]);
      tiles::mma(sums[0][n + 1], left, right[2], right[3]);
    }
  }
}

// Of element `i` of column tile `n` of this thread's sums.
__device__ __forceinline__ int row_of(int i) { return threadIdx.x / 32 * warp_rows + threadIdx.x % 32 / 4 + i / 2 * 8; }
__device__ __forceinline__ int column_of(int n, int i) { return n * 8 + threadIdx.x % 4 * 2 + i % 2; }

// The products of this warp's rows with all columns of the tile over K, masked, as the left operand of what follows.
// Rows that come later see the columns up to their own; `Later`: rows see the columns from their own.
template <int K, bool Later>
__device__ void seen_products(uint32_t (&weights)[1][tile / 16][4], uint32_t rows, uint32_t columns) {
  float sums[1][tile / 8][4] = {};
  tiles::multiply_transposed<1, tile / 8, K>(sums, rows, threadIdx.x / 32 * warp_rows, columns);
#pragma unroll
  for (int n = 0; n < tile / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (Later ? column_of(n, i) < row_of(i) : column_of(n, i) > row_of(i)) sums[0][n][i] = 0.0f;
  tiles::as_left_operand<1, tile / 8>(weights, sums);
}

// Two neighbours of a row of f32, or of one that is added to.
template <bool Add>
__device__ __forceinline__ void put_pair(float* to, float low, float high) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(float2) == 0) {
    auto* const pair = reinterpret_cast<float2*>(to);
    const float2 before = Add ? *pair : make_float2(0.0f, 0.0f);
    *pair = make_float2(before.x + low, before.y + high);
  } else {
    to[0] = Add ? to[0] + low : low;
    to[1] = Add ? to[1] + high : high;
  }
}
template <bool Add>
__device__ __forceinline__ void put_pair(bf16* to, float low, float high) {
  float pair[2] = {};
  if (Add) cuda::load<2>(to, pair);
  pair[0] += low, pair[1] += high;
  cuda::store<2>(to, pair);
}

// This thread's sums into rows of a head.
template <int P, bool Add, class T>
__device__ void put_rows(const float (&sums)[P / 8][4], const Plan& plan, const Place& place, int64_t shift,
                         const Rows<T>& out) {
  T* const to = place.rows_of(plan, out, shift, place.unit);
#pragma unroll
  for (int n = 0; n < P / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; i += 2)
      if (row_of(i) < place.rows)
        put_pair<Add>(to + row_of(i) * out.stride + column_of(n, 0), sums[n][i], sums[n][i + 1]);
}

}  // namespace rat::kernels::gpu::linear::tensor_cores
