// A file that appears complete or not at all: written under a temporary name in the same folder, synced, renamed over
// the target, and the folder synced. Until `commit` succeeds the old file is untouched.
#pragma once

#include <filesystem>
#include <string_view>

#include "core/io/regular_file.h"
#include "kernels/base/status.h"

namespace rat {

class AtomicFile {
 public:
  static Result<AtomicFile> create(const std::filesystem::path& path);
  AtomicFile(AtomicFile&&) noexcept = default;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();  // without commit: removes the temporary file

  Status write(std::string_view bytes);
  Status commit();

 private:
  AtomicFile(FileDescriptor fd, std::filesystem::path path, std::filesystem::path temporary);

  FileDescriptor fd_;  // -1 once committed or moved from
  std::filesystem::path path_, temporary_;
};

// Removes temporary files of writers that are no longer running (killed half-way) from `folder`.
void remove_stale_temporaries(const std::filesystem::path& folder);

}  // namespace rat
