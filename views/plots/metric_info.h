// What a stored metric is called on an axis, and which way is better.
#pragma once

#include <string>
#include <string_view>

namespace rat {

struct MetricInfo {
  std::string title;  // "validation loss"
  std::string unit;   // "nats"; empty: none
  bool lower_is_better = false;
  bool known_direction = true;  // false: a learning rate is neither good nor bad
  bool per_step = false;        // measured every step: a run's value is the median after warm-up, not the last
  std::string label() const { return unit.empty() ? title : title + ", " + unit; }
};

// Every name has one: "op_ms/gemm" is "gemm, ms a step"; a name we do not know is shown as it is.
MetricInfo metric_info(std::string_view metric);

// 61300 -> "61.3 k", 589824 with unit B -> "590 kB"; three significant digits.
std::string short_number(double value);
std::string with_unit(double value, const MetricInfo& metric);

}  // namespace rat
