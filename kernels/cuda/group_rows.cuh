// How a block shares the work of one group of heads of one chunk in the scans: which channels a thread owns, and rows on
// their way between global and shared memory. A block is one warp for each 64 channels of a head, and one for smaller heads.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/mma_tiles.cuh"
#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda::group {

// Tokens per segment: what their gates, state differences and sums take in registers decides.
template <class T>
constexpr int kSegment = sizeof(T) == 4 ? 8 : 16;

// Sizes fit into 32 bits, products of two of them may not: one instruction instead of the five of a 64-bit product.
__device__ __forceinline__ uint64_t wide(unsigned x, unsigned y) { return uint64_t{x} * y; }

// Which channels of a head a thread owns. Heads of 64 and more: two neighbours of each, half of a warp's in the lower
// half of the head and half in the upper one, so that the partners of a rotation are 16 lanes apart. Smaller heads: one.
template <class T, int N, int Warps>
struct Channels {
  int head_size, first, partner;  // elements; `partner`: that its rotation turns it with
  bool owns;                      // a lane beyond a small head owns nothing

  __device__ explicit Channels(const RatShape& s) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    head_size = N > 1 ? 64 * Warps : static_cast<int>(s.head_size);
    const int half = head_size / 2;
    first = N > 1 ? (lane < 16 ? 0 : half) + warp * 32 + lane % 16 * N : min(lane, head_size - 1);
    partner = first < half ? first + half : first - half;
    owns = N > 1 || lane < head_size;
  }
  // Where an element of a row lies in shared memory: the halves of a wide head are turned against each other, or the two
  // halves of a warp would read the same banks.
  __device__ static int placed(int element, int half) {
    return sizeof(T) == 2 && Warps > 1 && element >= half ? element ^ 32 : element;
  }
};

// S rows of a head, or of a group, copied between global and shared memory by the whole block.
template <class T, int N, int Warps>
class Tile {
  static constexpr int S = kSegment<T>, kThreads = 32 * Warps;
  static constexpr int kBytes = N > 1 ? 16 : 4;  // that one copy takes

 public:
  // Rows from `rows` on become zeros; Whole: there are none.
  template <bool Whole, class E>
  __device__ static void fetch(E* to, const E* from, unsigned stride, int rows, int head_size) {
    for_each_piece<E>(S, head_size, [&](int first, int row, int element) {
      const unsigned there = tiles::shared_address(to + first * head_size + place<E>(element, head_size)) + row * head_size * sizeof(E);
      const bool exists = Whole || first + row < rows;
      const E* source = from + (exists ? wide(first, stride) : 0) + element + (exists ? row * stride : 0u);
      if constexpr (N > 1) tiles::copy_16(there, source, exists);
      else tiles::copy_few<4>(there, source, exists);
    });
  }
  template <bool Whole>
  __device__ static void write(T* to, unsigned stride, const T* from, int rows, int head_size) {
    constexpr int piece = kBytes / sizeof(T);
    for_each_piece<T>(S, head_size, [&](int first, int row, int element) {
      if (!Whole && first + row >= rows) return;
      const auto values = load<piece>(from + first * head_size + place<T>(element, head_size) + row * head_size);
      *reinterpret_cast<Pack<T, piece>*>(to + wide(first, stride) + element + row * stride) = values;
    });
  }

 private:
  // body(first, row, element) for this thread's pieces of the rows below `rows`: they start at `element` of row
  // first + row, where `row` is known to the compiler if the head's size is.
  template <class E, class Body>
  __device__ static void for_each_piece(int rows, int head_size, const Body& body) {
    constexpr int piece = kBytes / sizeof(E);
    if constexpr (N > 1) {  // each step of the block takes so many whole rows
      constexpr int pieces = 64 * Warps / piece, step = kThreads / pieces;
      static_assert(kThreads % pieces == 0 && S % step == 0, "whole rows");
#pragma unroll
      for (int row = 0; row < S; row += step) body(threadIdx.x / pieces, row, threadIdx.x % pieces * piece);
    } else {
      const int pieces = head_size / piece;
      for (int at = threadIdx.x; at < rows * pieces; at += kThreads) body(at / pieces, 0, at % pieces * piece);
    }
  }
  template <class E>
  __device__ static int place(int element, int head_size) {
    return sizeof(E) == 4 ? element : Channels<T, N, Warps>::placed(element, head_size / 2);
  }
};

template <int Warps>
__device__ __forceinline__ void synchronize() {
  if constexpr (Warps == 1) __syncwarp();
  else __syncthreads();
}

// All copies that were asked for are there, and every thread is done with what it read before.
template <int Warps>
__device__ __forceinline__ void arrive() {
  tiles::wait_copies<0>();
  synchronize<Warps>();
}

// Adds up the warps' values in their order: lane l is given the sum of lanes l % Count. `slots`: (Warps, Count), not in use
// by an exchange that some thread may not have finished.
template <int Warps, int Count>
__device__ __forceinline__ float sum_of_warps(float of_warp, float* slots) {
  if constexpr (Warps == 1) return of_warp;
  const int lane = threadIdx.x % 32;
  if (lane < Count) slots[threadIdx.x / 32 * Count + lane] = of_warp;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int w = 0; w < Warps; ++w) sum += slots[w * Count + lane % Count];
  return sum;
}

template <class T>
Status check_row_stride(const char* op, const RatShape& s, int64_t stride) {
  const int64_t bytes = s.head_size >= 64 ? 16 : 4;
  if (stride * static_cast<int64_t>(sizeof(T)) % bytes == 0) return {};
  return refuse("%s: rows are copied %lld bytes at a time; a row stride of %lld elements is no multiple of that", op,
                static_cast<long long>(bytes), static_cast<long long>(stride));
}

}  // namespace rat::kernels::cuda::group
