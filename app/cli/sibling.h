// The window program, which draws PDF, SVG and PNG: a separate program, so that `rat` runs where there is no Qt.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/base/status.h"

namespace rat::cli {

// rat-workbench next to this executable, else in PATH.
std::optional<std::filesystem::path> find_window_program();

// Runs it offscreen and waits. Its stderr is ours, its stdout goes nowhere. Not zero: an error with its code.
Status run_window_program(const std::filesystem::path& program, const std::vector<std::string>& arguments);

}  // namespace rat::cli
