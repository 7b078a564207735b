// The bytes of some files as one long stream, read by position. A small stream is kept in memory, so that editing its
// files does not disturb a run; a large one is read on demand, and a file that changed since is an error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/io/regular_file.h"
#include "core/stop.h"
#include "kernels/base/status.h"

namespace rat {

// Which files of a text source are used, and how many were left out and why.
struct FileSelection {
  std::vector<std::filesystem::path> files;  // sorted
  int64_t binary = 0;                        // left out: a NUL byte in the first 8 KiB
  int64_t unreadable = 0;                    // left out: could not be opened
  int64_t hidden = 0;                        // left out: hidden or build folders and files, links, devices
};

// One file as it is, whatever it holds; a folder without hidden entries, folders named build*, and binary files.
Result<FileSelection> select_files(const std::filesystem::path& path);
// The project's own sources under `root`: program text of its folders and README.md.
Result<FileSelection> select_source_tree(const std::filesystem::path& root);

class ByteStream {
 public:
  static constexpr uint64_t memory_limit = 64u << 20;  // bytes; larger streams stay on disk

  // Sees every byte once, in blocks of at most 1 MiB that begin at multiples of it, and may refuse.
  using Inspect = std::function<Status(uint64_t offset, std::span<const char> block)>;

  static Result<ByteStream> from_files(const std::vector<std::filesystem::path>& files, const StopFlag* stop,
                                       uint64_t keep_below = memory_limit, const Inspect& inspect = {});
  static ByteStream from_memory(std::vector<char> bytes);
  // Copies standard input (any descriptor) to an unnamed temporary file first.
  static Result<ByteStream> from_descriptor(int fd, const StopFlag* stop, uint64_t keep_below = memory_limit);

  uint64_t size() const { return size_; }
  const std::string& hash() const { return hash_; }  // SHA-256 of all bytes
  Status read(uint64_t offset, std::span<char> out) const;

 private:
  struct Part {
    std::filesystem::path path;
    uint64_t begin = 0, size = 0;  // bytes of the stream
    int64_t modified_ns = 0;
  };

  Status hash_and_keep(const StopFlag* stop, uint64_t keep_below, const Inspect& inspect = {});
  Status read_part(const Part& part, uint64_t offset, std::span<char> out) const;

  std::vector<Part> parts_;
  std::shared_ptr<const RegularFile> spooled_;  // standard input; then parts_ is empty
  std::vector<char> memory_;                    // the whole stream when small
  uint64_t size_ = 0;
  std::string hash_;
};

}  // namespace rat
