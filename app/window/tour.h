// `--tour DIR`: visits every canvas, dock and dialog on a database, in both themes, and saves a PNG of each.
#pragma once

#include <filesystem>

#include "kernels/base/status.h"

namespace rat::app {

// Prints each file as it is written. An error when a canvas does not show data in time or a file cannot be written.
Status run_tour(const std::filesystem::path& database, const std::filesystem::path& folder);

}  // namespace rat::app
