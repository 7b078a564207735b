// Tiles of bf16 for linear attention on tensor cores (mma_cuda.cu): how a block copies them, multiplies them and puts
// its sums back. A block has a tile, a warp 16 of its rows. Longer tiles have fewer states between them, which are a good part
// of what moves.
#pragma once

#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/linear_attention/tiles.cuh"

namespace rat::kernels::gpu::linear::tensor_cores {

using cuda::bf16;
namespace tiles = cuda::tiles;

constexpr int warp_rows = 16;

// Heads of P, and how a block takes them. Wide: with the shared memory that data centres' GPUs since Hopper have, tiles of 128
// tokens, and all that is read asked for at once. Else 99 KiB are enough, which any GPU since Ampere has.
template <int P_, bool Wide>
struct Sizes {
  static constexpr int P = P_, warps = P == 64 || Wide ? 8 : 4, block = 32 * warps, tile = warp_rows * warps;
  static constexpr bool wide = Wide;
  // Bytes of a tile of bf16 in shared memory.
  static constexpr int bytes(int columns) { return 2 * columns * tile; }
};

// Rows of bf16, in device memory: `each` values of a head beside those of the next.
struct Packed {
  const bf16* data = nullptr;
  int64_t width = 0, stride = 0;  // of a row; heads that share them wrap around

  __device__ const bf16* rows_of(const Plan& plan, const Place& place, int64_t shift, int head, int each) const {
    return data + (place.batch * plan.tokens + place.first + shift) * stride +
           static_cast<int64_t>(head) * each % width;
  }
};

// Queries with what is read for them, or keys with their values; phi is taken once, by round_inputs.
struct PackedSide {
  Packed features, values;  // 2 P and P values of a head
  int64_t shift;
};

// Starts copying ROWS rows of `Columns` values to shared memory, `stride` apart; zeros take the place of rows from
// `rows` on.
template <class S, int ROWS, int Columns>
__device__ void copy_rows(uint32_t to, const bf16* from, int64_t stride, int rows) {
  constexpr int pieces = Columns / 8, together = S::block / pieces;  // rows
  const int piece = threadIdx.x % pieces, first = threadIdx.x / pieces;
  const bf16* at = from + first * stride + piece * 8;
#pragma unroll
  for (int row = first, i = 0; i < ROWS / together; ++i, row += together, at += together * stride)
    tiles::copy_16(to + tiles::piece_at<Columns>(row, piece), row < rows ? at : from, row < rows);
}

// What was started to copy has arrived, for all threads, but for the last `Later` groups that were committed.
template <int Later = 0>
__device__ __forceinline__ void await_copies() {
  tiles::commit_copies();
  tiles::wait_copies<Later>();
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

// sums += the products of this warp's rows with the tile's columns over K, masked, times the columns' `values` (tile, P).
// Rows that come later see the columns up to their own; `Later`: rows see the columns from their own.
template <class S, int K, bool Later>
__device__ void add_seen(float (&sums)[1][S::P / 8][4], uint32_t rows, uint32_t columns, uint32_t values) {
  constexpr int P = S::P;
  constexpr int step = 64;  // columns at a time
  const int first_row = threadIdx.x / 32 * warp_rows;
#pragma unroll
  for (int first = 0; first < S::tile; first += step) {
    if (Later ? first + step <= first_row : first >= first_row + warp_rows) continue;
    float products[1][step / 8][4] = {};
    tiles::multiply_transposed<1, step / 8, K>(products, rows, first_row, columns + first * K * 2);
#pragma unroll
    for (int n = 0; n < step / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = first + column_of(n, i);
        if (Later ? column < row_of(i) : column > row_of(i)) products[0][n][i] = 0.0f;
      }
    uint32_t weights[1][step / 16][4];
    tiles::as_left_operand<1, step / 8>(weights, products);
    tiles::multiply_add<1, step / 16, P>(sums, weights, values + first * P * 2);
  }
}

// total += what this thread's gradients of s = softmax(sign x) are as gradients of x: sign s (grad - s . grad). The features s
// are a tile in shared memory.
template <int P>
__device__ void add_through_softmax(float (&total)[P / 8][4], const float (&grad)[P / 8][4], uint32_t features,
                                    float sign) {
  const auto own = [&](int n, int i, float(&pair)[2]) {
    const int column = column_of(n, 0);
    uint32_t raw;
    asm volatile("ld.shared.b32 %0, [%1];"
                 : "=r"(raw)
                 : "r"(features + tiles::piece_at<P>(row_of(i), column / 8) + column % 8 * 2)
                 : "memory");
    pair[0] = cuda::low_half(raw), pair[1] = cuda::high_half(raw);
  };
  float s[2], along[2] = {};
#pragma unroll
  for (int n = 0; n < P / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      own(n, i, s);
      along[i / 2] = fmaf(s[0], grad[n][i], fmaf(s[1], grad[n][i + 1], along[i / 2]));
    }
  for (float& sum : along) sum = tiles::row_sum(sum);
#pragma unroll
  for (int n = 0; n < P / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      own(n, i, s);
      total[n][i] += sign * s[0] * (grad[n][i] - along[i / 2]);
      total[n][i + 1] += sign * s[1] * (grad[n][i + 1] - along[i / 2]);
    }
}

// Eight neighbours of a row, 16 bytes of bf16. Rows of f32 may start anywhere.
__device__ __forceinline__ cuda::Pack<bf16, 8> eight_at(const bf16* from) { return cuda::load<8>(from); }
__device__ __forceinline__ void put_eight(bf16* to, const float (&x)[8]) { cuda::store<8>(to, x); }
__device__ __forceinline__ cuda::Pack<float, 8> eight_at(const float* from) {
  cuda::Pack<float, 8> x;
#pragma unroll
  for (int i = 0; i < 8; ++i) reinterpret_cast<float*>(&x)[i] = from[i];
  return x;
}
__device__ __forceinline__ void put_eight(float* to, const float (&x)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) to[i] = x[i];
}

// This warp's sums into rows of a head, or added to them, by way of its place in `shared` (a tile of P floats), which other
// warps leave alone, so that whole pieces of rows move. What is added to is read before anything is written: one after the
// other, the reads took longer than all products.
template <int P, bool Add, class T>
__device__ void put_rows(const float (&sums)[P / 8][4], float* shared, const Plan& plan, const Place& place,
                         int64_t shift, const Rows<T>& out) {
  constexpr int pieces = P / 8, each = warp_rows * pieces / 32;
  const int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * warp_rows;
  // Four floats of a row: which lie in other banks in the next one.
  const auto at = [&](int row, int four) { return shared + row * P + ((four ^ (row & 7)) * 4); };
  T* const to = place.rows_of(plan, out, shift, place.unit);
  const auto row_at = [&](int i) { return first_row + (i * 32 + lane) / pieces; };
  const auto piece_of = [&](int i) { return (i * 32 + lane) % pieces; };
  cuda::Pack<T, 8> before[each];
  if constexpr (Add) {
#pragma unroll
    for (int i = 0; i < each; ++i)
      if (row_at(i) < place.rows) before[i] = eight_at(to + row_at(i) * out.stride + piece_of(i) * 8);
  }
  __syncwarp();
#pragma unroll
  for (int n = 0; n < P / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const int column = column_of(n, 0);
      *reinterpret_cast<float2*>(at(row_of(i), column / 4) + column % 4) = make_float2(sums[n][i], sums[n][i + 1]);
    }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < each; ++i) {
    const int row = row_at(i), piece = piece_of(i);
    if (row >= place.rows) continue;
    float x[8] = {}, low[4], high[4];
    if constexpr (Add) cuda::unpack(before[i], x);
    cuda::load<4>(at(row, 2 * piece), low);
    cuda::load<4>(at(row, 2 * piece + 1), high);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] += low[j], x[4 + j] += high[j];
    put_eight(to + row * out.stride + piece * 8, x);
  }
}

}  // namespace rat::kernels::gpu::linear::tensor_cores
