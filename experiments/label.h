// Names and tags of runs, as lists and figures show them.
#pragma once

#include <string>

#include "kernels/base/status.h"

namespace rat {

// One line of at most 200 characters; empty is allowed. `what`: "The name", "A tag".
Status check_label(const std::string& what, const std::string& text);

}  // namespace rat
