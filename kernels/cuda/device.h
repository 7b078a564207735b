// What every op of the cuda backend shares: the thread's stream, errors of launches, scratch memory of the device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace rat::kernels::gpu {

// Every session thread has a stream of its own, in which what it starts runs in order.
inline cudaStream_t stream() { return cudaStreamPerThread; }

std::string matmul_path(Dtype dtype);
Status supports(Dtype dtype);
Dtype careful(Dtype dtype);

// Ok, or a sentence with the device's reason. `what`: the op, or the call that failed.
Status checked(cudaError_t error, const char* what);
// After a launch: a bad configuration is seen here, a fault inside the kernel by finish() or download().
Status launched(const char* op);

// Device memory of this thread that no op keeps from one call to the next; grows only. Ops that need several blocks at a
// time number them from 0.
inline constexpr int scratch_slots = 6;
Result<void*> scratch_bytes(int slot, std::size_t bytes);
template <class T>
Result<T*> scratch(int slot, int64_t count) {
  auto memory = scratch_bytes(slot, static_cast<std::size_t>(count) * sizeof(T));
  if (!memory) return memory.error();
  return static_cast<T*>(*memory);
}
// Copies host memory, which may be changed as soon as the call returns.
Status to_device(void* device, const void* host, std::size_t bytes);
// A few values on their way to the host, for which finish_read_back waits, but not for what is started in between. One at
// a time.
inline constexpr std::size_t most_read_back = 64;
Status start_read_back(const void* device, std::size_t bytes);
Status finish_read_back(void* host, std::size_t bytes);
// Waits for what was started before.
Status to_host(void* host, const void* device, std::size_t bytes);

inline unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>((items + per_block - 1) / per_block);
}

}  // namespace rat::kernels::gpu
