// A zip file opened for reading by people who do not trust it: the directory is checked as a whole before anything is
// read, and no entry is ever written to disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

inline constexpr std::size_t max_zip_entries = 200'000;
inline constexpr uint64_t max_zip_expansion = 100;  // unpacked bytes per byte of the file

class ZipArchive {
 public:
  // Refuses: entries that are encrypted, packed by anything but deflate, named twice, or named so that they would
  // leave a folder; headers that disagree with the directory; more unpacked bytes than max_zip_expansion allows.
  static Result<ZipArchive> open(const std::filesystem::path& path);
  ZipArchive(ZipArchive&&) noexcept;
  ZipArchive& operator=(ZipArchive&&) noexcept;
  ~ZipArchive();

  const std::string& name() const;                         // of the file, for messages
  const std::map<std::string, uint64_t>& entries() const;  // name -> unpacked bytes
  bool contains(const std::string& entry) const;
  // All of an entry; its checksum is verified. At most `limit` bytes.
  Result<std::vector<char>> read(const std::string& entry, uint64_t limit) const;

 private:
  ZipArchive();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
