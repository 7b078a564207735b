// `--layers PATTERN` of the commands that look at a trained run: other layer settings on the same weights.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "app/cli/run_lookup.h"

namespace rat::cli {

CLI::Option* add_layers_option(CLI::App& command, std::string& pattern);
// Sets them, and says on stderr what the numbers then mean. A pattern shorter than the model is repeated to its depth;
// an empty one changes nothing.
Status override_layers(const LoadedRun& loaded, const std::string& pattern);

}  // namespace rat::cli
