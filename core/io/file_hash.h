// SHA-256 of a file's bytes, as `sha256sum` prints it.
#pragma once

#include <filesystem>
#include <string>

#include "kernels/base/status.h"

namespace rat {

Result<std::string> sha256_of_file(const std::filesystem::path& path);
// The whole file, which must not have more than `limit` bytes.
Result<std::string> read_small_file(const std::filesystem::path& path, uint64_t limit);

}  // namespace rat
