// A kernel that starts while the one before it in the stream comes to its end (programmatic dependent launch, Hopper):
// what does not depend on that one is done meanwhile. It calls wait_for_previous where it first reads or writes what
// others do. What it reads before, the kernel ahead must not write; what is ahead of that one has ended, as nobody calls
// start_next before wait_for_previous.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/capability.h"
#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

// Everything that was started before is done, and seen. Nothing to wait for in a kernel that was launched as others
// are.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may start where this one leaves room, not only when its blocks are done. After wait_for_previous.
__device__ __forceinline__ void start_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Only machine code of Hopper's has the wait in it: elsewhere the kernel is launched as others are.
inline bool launches_early() {
#if defined(RAT_CUDA_HOPPER)
  static const bool hopper = device_capability() == 90;
  return hopper;
#else
  return false;
#endif
}

struct EarlyLaunch {
  const char* op;
  dim3 grid, block;
  int shared;  // bytes
  cudaStream_t stream;
  int cluster = 1;  // blocks in a row of the grid
};

template <class... Parameters>
Status launch_early(const EarlyLaunch& launch, void (*kernel)(Parameters...), const Parameters&... arguments) {
  cudaLaunchAttribute attributes[2]{};
  unsigned count = 0;
  if (launches_early()) {
    attributes[count].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[count++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (launch.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count++].val.clusterDim = {static_cast<unsigned>(launch.cluster), 1, 1};
  }
  cudaLaunchConfig_t config{};
  config.gridDim = launch.grid, config.blockDim = launch.block, config.stream = launch.stream;
  config.dynamicSmemBytes = static_cast<std::size_t>(launch.shared);
  config.attrs = attributes, config.numAttrs = count;
  return checked(cudaLaunchKernelEx(&config, kernel, arguments...), launch.op);
}

}  // namespace rat::kernels::cuda
