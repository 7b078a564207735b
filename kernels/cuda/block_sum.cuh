// Sums over the threads of a block, always in the same order.
#pragma once

namespace rat::kernels::gpu {

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// For all threads of a block of `Threads`, a multiple of 32; every thread gets the sum. May be called once in a kernel
// per result: a second call needs a barrier before it.
template <int Threads, class T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T parts[Threads / 32];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  T sum = parts[0];
#pragma unroll
  for (int i = 1; i < Threads / 32; ++i) sum += parts[i];
  return sum;
}

}  // namespace rat::kernels::gpu
