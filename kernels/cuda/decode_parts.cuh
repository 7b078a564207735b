// Softmaxes over some of the keys of a decoding step, and how they become one: those of lanes, warps and blocks.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/mma_tiles.cuh"

namespace rat::kernels::cuda::decoding {

using tiles::exp2_fast;

// A softmax over some of the keys: maximum (log2 units), sum of weights, weighted values of this lane's E channels.
template <int E>
struct Part {
  float top, sum, out[E];

  __device__ void join(float other_top, float other_sum, const float (&other)[E]) {
    const float highest = fmaxf(top, other_top);
    const float mine = top == -INFINITY ? 0.0f : exp2_fast(top - highest);
    const float theirs = other_top == -INFINITY ? 0.0f : exp2_fast(other_top - highest);
    sum = sum * mine + other_sum * theirs;
#pragma unroll
    for (int i = 0; i < E; ++i) out[i] = out[i] * mine + other[i] * theirs;
    top = highest;
  }
  // With those of the lanes of this warp that hold the same channels of other keys.
  __device__ void join_lanes(int lanes) {
    __syncwarp();
    for (int step = lanes; step < 32; step <<= 1) {
      const float other_top = __shfl_xor_sync(0xffffffffu, top, step);
      const float other_sum = __shfl_xor_sync(0xffffffffu, sum, step);
      float other[E];
#pragma unroll
      for (int i = 0; i < E; ++i) other[i] = __shfl_xor_sync(0xffffffffu, out[i], step);
      join(other_top, other_sum, other);
    }
  }
};

// What several blocks, the splits, leave of each head in global memory. The last of them to arrive joins it in order, so
// that results do not depend on timing.
//   workspace: (items, splits, P + 2) floats, then one counter per item, zero before and after; an item is a head of a sequence
class SplitParts {
 public:
  __device__ SplitParts(float* workspace, int64_t items, int64_t item, int splits, int head_size)
      : P(head_size),
        parts(workspace + item * splits * (P + 2)),
        arrived(reinterpret_cast<unsigned*>(workspace + items * splits * (P + 2)) + item) {}

  // Channel i of this block's part of the head that is `further` items on.
  __device__ void leave(int further, int splits, int split, int i, const Part<1>& mine) const {
    float* to = parts + (int64_t{further} * splits + split) * (P + 2);
    to[i] = mine.out[0];
    if (i == 0) {
      to[P] = mine.top;
      to[P + 1] = mine.sum;
    }
  }
  // Whether all others have left theirs; for the whole block.
  __device__ bool last_of(int splits, bool& last) const {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
      last = atomicAdd(arrived, 1u) == static_cast<unsigned>(splits) - 1;
      if (last) *arrived = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
  }
  // What a split left: P channels, then the top and the sum.
  __device__ const float* of(int further, int splits, int split) const {
    return parts + (int64_t{further} * splits + split) * (P + 2);
  }
  __device__ const float* top(int further, int splits, int split) const { return of(further, splits, split) + P; }
  // Of `count` parts, for which there is room for `splits`.
  __device__ Part<1> joined(int splits, int count, int i) const {
    Part<1> whole{-INFINITY, 0.0f, {0.0f}};
    for (int split = 0; split < count; ++split) {
      const volatile float* theirs = of(0, splits, split);
      const float out[1] = {theirs[i]};
      whole.join(theirs[P], theirs[P + 1], out);
    }
    return whole;
  }

 private:
  int P;
  float* parts;
  unsigned* arrived;
};

}  // namespace rat::kernels::cuda::decoding
