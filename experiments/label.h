// Names and tags of runs, as lists and figures show them.
#pragma once

#include <string>

#include "kernels/base/status.h"

namespace rat {

// A line break, a tab, an escape: what must not reach a terminal.
constexpr bool is_control(unsigned char c) { return c < 0x20 || c == 0x7f; }

// One line of at most 200 characters; empty is allowed. `what`: "The name", "A tag".
Status check_label(const std::string& what, const std::string& text);

}  // namespace rat
