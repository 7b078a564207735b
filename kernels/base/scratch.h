// Aligned memory that grows and is reused: for thread_local scratch of CPU kernels, so that a steady state allocates
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "kernels/base/huge_pages.h"

namespace rat::kernels {

class Scratch {
 public:
  // At least `count` elements, 64-byte aligned; contents are undefined after growth.
  template <class T>
  T* ensure(int64_t count) {
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (bytes > capacity_) {
      data_.reset();
      data_.reset(::operator new(bytes, alignment));
      capacity_ = bytes;
      advise_huge_pages(data_.get(), bytes);
    }
    return static_cast<T*>(data_.get());
  }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(void* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<void, Free> data_;
  std::size_t capacity_ = 0;
};

}  // namespace rat::kernels
