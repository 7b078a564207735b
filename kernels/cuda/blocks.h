// What ops share that compose kernels of this folder: the thread's products and rotations, answers as the backend gives
// them, and one block of memory cut into parts.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>

#include "kernels/base/status.h"
#include "kernels/cuda/gemm.h"

namespace rat::kernels::gpu {

Status answer(const cuda::Status& status);
// The thread's own plans and workspace.
Result<cuda::Gemm*> products();
// The thread's own table of rotations for positions 0 .. positions-1, (positions, P/2); null for base 0: no positions.
Result<const float2*> rotations(int64_t head_size, double base, int64_t positions);

// Cuts 256-byte aligned parts off a block; without a block it only adds up their sizes.
class Cutter {
 public:
  explicit Cutter(void* block) : block_(static_cast<unsigned char*>(block)) {}
  template <class T>
  T* take(int64_t count) {
    T* const part = block_ == nullptr ? nullptr : reinterpret_cast<T*>(block_ + used_);
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return part;
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* block_;
  std::size_t used_ = 0;
};

}  // namespace rat::kernels::gpu
