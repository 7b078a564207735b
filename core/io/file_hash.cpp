#include "core/io/file_hash.h"

#include <algorithm>
#include <vector>

#include "core/io/regular_file.h"
#include "core/io/sha256.h"

namespace rat {

Result<std::string> sha256_of_file(const std::filesystem::path& path) {
  RAT_ASSIGN(const RegularFile file, RegularFile::open(path));
  Sha256 hash;
  std::vector<char> block(std::size_t{1} << 20);
  for (uint64_t at = 0; at < file.size(); at += block.size()) {
    block.resize(std::min<uint64_t>(block.size(), file.size() - at));
    RAT_TRY(file.read_at(at, block));
    hash.update({block.data(), block.size()});
  }
  return hash.hex();
}

Result<std::string> read_small_file(const std::filesystem::path& path, uint64_t limit) {
  RAT_ASSIGN(const RegularFile file, RegularFile::open(path));
  if (file.size() > limit)
    return fail(ErrorCode::invalid_argument, "{} has {} bytes; at most {} are read", file.name(), file.size(), limit);
  std::string bytes(file.size(), '\0');
  RAT_TRY(file.read_at(0, bytes));
  return bytes;
}

}  // namespace rat
