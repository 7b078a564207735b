// What this machine has and lacks, one finding per subject, each with what it costs and what to do.
#pragma once

#include <string>
#include <vector>

#include "app/cli/context.h"

namespace rat::cli {

struct Finding {
  std::string subject;  // "CPU"
  bool ok = true;
  std::string what;    // what is there
  std::string advice;  // when not ok: what it costs and what to do
};

std::vector<Finding> examine_machine(const Context& context);

}  // namespace rat::cli
