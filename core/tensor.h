// Memory that a pass writes: aligned, uninitialised, grows only, so a steady state allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "kernels/base/huge_pages.h"

namespace rat {

// A block of floats, 64-byte aligned. Contents are undefined after a call that grows it.
class Buffer {
 public:
  float* ensure(int64_t count) {
    if (count > capacity_) {
      data_.reset(static_cast<float*>(::operator new(static_cast<std::size_t>(count) * sizeof(float), alignment)));
      capacity_ = count;
      kernels::advise_huge_pages(data_.get(), static_cast<std::size_t>(count) * sizeof(float));
    }
    return data_.get();
  }
  float* data() const { return data_.get(); }
  int64_t capacity() const { return capacity_; }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(float* data) const { ::operator delete(data, alignment); }
  };
  std::unique_ptr<float, Free> data_;
  int64_t capacity_ = 0;
};

// Numbered buffers; each user names its slots with an enum.
template <std::size_t Slots>
struct BufferSet {
  std::array<Buffer, Slots> slots;
  Buffer& operator[](std::size_t slot) { return slots[slot]; }
  int64_t capacity() const {
    int64_t sum = 0;
    for (const Buffer& buffer : slots) sum += buffer.capacity();
    return sum;
  }
};

// What backward needs of one layer's forward pass. Mixers use saved_mixer + 0 .. 5.
enum SavedSlot : std::size_t {
  saved_x,
  saved_middle,
  saved_projected,
  saved_mixed,
  saved_ffn,
  saved_mixer,
  saved_slots = saved_mixer + 6
};
using Activations = BufferSet<saved_slots>;

// Scratch that no one keeps from one call to the next. Mixers use work_mixer + 0 .. 5.
enum WorkSlot : std::size_t {
  work_normed,
  work_wide,
  work_narrow,
  work_hidden,
  work_logits,
  work_stream,
  work_step,
  work_mixer,
  work_slots = work_mixer + 6
};
using Workspace = BufferSet<work_slots>;

}  // namespace rat
