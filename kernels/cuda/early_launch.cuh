// A kernel that starts while the one before it in the stream comes to its end (programmatic dependent launch, Hopper):
// what does not depend on that one is done meanwhile. It calls wait_for_previous where it first reads or writes what
// others do.
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

// Only machine code of Hopper's has the wait in it: elsewhere the kernel is launched as others are.
inline bool launches_early() {
#if defined(RAT_CUDA_HOPPER)
  static const bool hopper = device_capability() == 90;
  return hopper;
#else
  return false;
#endif
}

template <class... Parameters>
Status launch_early(const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 block, int shared, cudaStream_t stream,
                    const Parameters&... arguments) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid, config.blockDim = block, config.stream = stream;
  config.dynamicSmemBytes = static_cast<std::size_t>(shared);
  config.attrs = &attribute, config.numAttrs = launches_early() ? 1 : 0;
  return checked(cudaLaunchKernelEx(&config, kernel, arguments...), op);
}

}  // namespace rat::kernels::cuda
