// Floats that passes use in a backend's memory and everyone else on the host. On the CPU both are the same memory; on a
// device the side that is behind is copied when it is asked for.
#pragma once

#include <span>

#include "kernels/memory/memory.h"

namespace rat {

class Mirrored {
 public:
  // Zeros, which cost no memory of the host until they are written.
  Mirrored(const kernels::Backend& backend, int64_t count);
  ~Mirrored();
  Mirrored(Mirrored&& other) noexcept;
  Mirrored(const Mirrored&) = delete;

  int64_t count() const { return count_; }
  // Where passes find the values: fixed for the life of this object, up to date after prepare().
  std::span<float> device() const;
  // Brings what the host wrote to the device.
  Status prepare();
  // A pass is about to write the device's values: the host's are behind from now on.
  void device_writes() { if (!backend_->host) newer_ = Side::device; }
  // The host's values, up to date; `host` may be written until the next prepare(). Waits for the device, and throws
  // kernels::DeviceFailure when that has failed.
  std::span<float> host();
  std::span<const float> read() const;

 private:
  enum class Side : uint8_t { none, host, device };
  void fetch() const;
  const kernels::Backend* backend_;
  int64_t count_;
  mutable float* host_ = nullptr;  // calloc
  kernels::Memory memory_;         // unused on the CPU
  mutable Side newer_ = Side::none;
};

}  // namespace rat
