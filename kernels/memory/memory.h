// Memory of a backend, and what moves values into it, out of it and inside it. A pointer into a backend's memory is only
// dereferenced by that backend's kernels; on the CPU it is ordinary memory.
//
//   upload:    device[i] = host[i]; the host values may be changed as soon as the call returns
//   download:  host[i, j] = rows[i, j], dense; waits for everything that this thread started before
//   zero:      x[i, j] = 0
//   copy_rows: y[i] = x[rows[i]], or x[i] where no rows are named; `rows` is host memory; x and y do not overlap
//   widen:     y[i, j] = x[i, j], from bf16
//   finish:    waits for everything that this thread started, and reports a fault in it
#pragma once

#include <cstddef>
#include <new>
#include <span>
#include <stdexcept>
#include <string>

#include "kernels/backend.h"
#include "kernels/base/rows.h"

namespace rat::kernels {

// Says how many bytes were wanted, and how many the device had free.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

// What a call that cannot answer with a Status throws when the device has failed.
class DeviceFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A block that grows only, at least 64-byte aligned. Throws OutOfMemory.
class Memory {
 public:
  explicit Memory(const Backend& backend = cpu_backend()) : backend_(&backend) {}
  ~Memory() { release(); }
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  // At least `bytes`; contents are undefined after growth.
  void* ensure(std::size_t bytes);
  // At least `bytes`; the contents stay. Takes half as much again as it had, so that appending row by row is linear.
  void* grow(std::size_t bytes);
  void* data() const { return data_; }
  std::size_t capacity() const { return capacity_; }
  const Backend& backend() const { return *backend_; }

 private:
  void release();
  const Backend* backend_;
  void* data_ = nullptr;
  std::size_t capacity_ = 0;
};

struct UploadArgs {
  std::span<const float> host;
  float* device = nullptr;
};

struct DownloadArgs {
  Input rows;
  float* host = nullptr;
};

struct ZeroArgs {
  Output x;
};

struct CopyRowsArgs {
  Input x;
  Output y;
  std::span<const int32_t> rows = {};
};

struct WidenArgs {
  const uint16_t* x = nullptr;  // rows without gaps
  Output y;
};

[[nodiscard]] Status upload(const UploadArgs& args, const Exec& exec);
[[nodiscard]] Status download(const DownloadArgs& args, const Exec& exec);
[[nodiscard]] Status zero(const ZeroArgs& args, const Exec& exec);
[[nodiscard]] Status copy_rows(const CopyRowsArgs& args, const Exec& exec);
[[nodiscard]] Status widen(const WidenArgs& args, const Exec& exec);
[[nodiscard]] Status finish(const Exec& exec);

}  // namespace rat::kernels
