// --device, the same for every command that computes, and --cache, for those that generate.
#pragma once

#include <optional>
#include <string>

#include "app/cli/context.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/device_names.h"

namespace rat::cli {

inline CLI::Option* add_device_option(CLI::App& command, std::string& device) {
  return command.add_option("--device", device, "What computes")
      ->check(CLI::IsMember(kernels::device_names()))
      ->capture_default_str()
      ->type_name("");
}

inline CLI::Option* add_cache_option(CLI::App& command, std::optional<kernels::CacheDtype>& cache) {
  const auto set = [&cache](const std::string& name) { cache = *kernels::parse_cache_dtype(name); };
  return command
      .add_option_function<std::string>("--cache", set,
                                        "Keys and values between tokens in this precision (default: as the layers "
                                        "compute); fp8: of rat, ratplus, attention and swa layers in bf16 on a GPU")
      ->check(CLI::IsMember(kernels::cache_dtype_names()))
      ->type_name("");
}

}  // namespace rat::cli
