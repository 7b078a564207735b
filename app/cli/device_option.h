// --device, the same for every command that computes.
#pragma once

#include <string>

#include "app/cli/context.h"
#include "kernels/base/device_names.h"

namespace rat::cli {

inline CLI::Option* add_device_option(CLI::App& command, std::string& device) {
  return command.add_option("--device", device, "What computes")
      ->check(CLI::IsMember(kernels::device_names()))
      ->capture_default_str()
      ->type_name("");
}

}  // namespace rat::cli
