// What the killed writer and the test that kills it agree on.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

namespace rat {

struct Acknowledged {
  char run_id[32];
  int64_t steps;  // this many steps were flushed before this was written
};

inline constexpr int crash_metrics = 20;
inline std::string crash_metric_name(int metric) { return fmt::format("m{:02}", metric); }
inline double crash_value(int64_t step, int metric) {
  if (metric == 3) return std::numeric_limits<double>::quiet_NaN();
  if (metric == 5) return -0.0;
  return static_cast<double>(step) * 31 + metric;
}

}  // namespace rat
