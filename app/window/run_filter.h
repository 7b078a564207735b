// The filter of the Runs table: `loss < 1.5 and chunk >= 16`, plain words, `not`, `or`, parentheses.
// A field is a number or a text of a run; a plain word matches names, tags, layers and states.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat::app {

struct RunFilter {
  std::function<bool(const RunRow& run, const RunSpec* spec)> test;  // `spec` may be null unless needs_spec
  bool needs_spec = false;
};

// The empty text matches every run. Errors say where and list the known fields.
Result<RunFilter> parse_run_filter(std::string_view text);

struct FilterField {
  std::string name, meaning;
};
const std::vector<FilterField>& filter_fields();

}  // namespace rat::app
