#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>

namespace rat::kernels::cuda {

// Of the current device: 90 for 9.0; 0 without one.
inline int device_capability() {
  int device = 0, major = 0, minor = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return major * 10 + minor;
}

// Of the current device; those of an H100 or H200 where it does not say.
inline int multiprocessors() {
  int device = 0, count = 132;
  if (cudaGetDevice(&device) == cudaSuccess) cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

// Bytes of shared memory that a block may ask for: 227 KiB on Hopper, 163 on A100, 99 on consumers' GPUs. 0 without a device.
// RAT_CUDA_SHARED_KIB in the environment lowers it, to try what smaller GPUs take.
inline int shared_memory_of_block() {
  int device = 0, bytes = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  const char* const most = std::getenv("RAT_CUDA_SHARED_KIB");
  return most != nullptr ? std::min(bytes, std::atoi(most) * 1024) : bytes;
}

}  // namespace rat::kernels::cuda
