// Memory that a pass writes: in the backend's memory, uninitialised, grows only, so a steady state allocates nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/memory/memory.h"

namespace rat {

// A block of floats. Contents are undefined after a call that grows it; throws kernels::OutOfMemory.
class Buffer {
 public:
  explicit Buffer(const kernels::Backend& backend) : memory_(backend) {}
  float* ensure(int64_t count) {
    return static_cast<float*>(memory_.ensure(static_cast<std::size_t>(count) * sizeof(float)));
  }
  float* data() const { return static_cast<float*>(memory_.data()); }
  int64_t capacity() const { return static_cast<int64_t>(memory_.capacity() / sizeof(float)); }

 private:
  kernels::Memory memory_;
};

// Numbered buffers; each user names its slots with an enum.
template <std::size_t Slots>
struct BufferSet {
  explicit BufferSet(const kernels::Backend& backend)
      : slots([&]<std::size_t... I>(std::index_sequence<I...>) {
          return std::array<Buffer, Slots>{((void)I, Buffer(backend))...};
        }(std::make_index_sequence<Slots>())) {}
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
