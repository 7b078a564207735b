// A regular file opened for reading by position. Pipes, devices and folders are refused without being opened, and a
// file that shrinks while open gives an error instead of a signal (no mmap).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "kernels/base/status.h"

namespace rat {

// Owns a POSIX file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(FileDescriptor&& other) noexcept;
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor();

  int get() const { return fd_; }
  int release();  // the caller closes it

 private:
  int fd_ = -1;
};

class RegularFile {
 public:
  static Result<RegularFile> open(const std::filesystem::path& path);
  // Adopts a descriptor (the spooled standard input); `name` stands for it in messages.
  static Result<RegularFile> adopt(FileDescriptor fd, const std::string& name);

  uint64_t size() const { return size_; }  // when it was opened
  int64_t modified_ns() const { return modified_ns_; }
  const std::string& name() const { return name_; }
  // All of `out`, from byte `offset`; a short read is an error.
  Status read_at(uint64_t offset, std::span<char> out) const;

 private:
  FileDescriptor fd_;
  std::string name_;
  uint64_t size_ = 0;
  int64_t modified_ns_ = 0;
};

}  // namespace rat
