#include "experiments/bench/peak_memory.h"

#include <malloc.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <string_view>

namespace rat {
namespace {

// One "Name:   123 kB" line of /proc/self/status, in bytes.
std::optional<int64_t> process_status(std::string_view name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(name)) return std::stoll(line.substr(name.size())) * 1024;
  return std::nullopt;
}

}  // namespace

PeakMemory::PeakMemory() {
  ::malloc_trim(0);
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;  // 5: set the high-water mark to what is resident now
  if (reset.good()) start_ = process_status("VmRSS:");
}

std::optional<int64_t> PeakMemory::bytes() const {
  const auto peak = process_status("VmHWM:");
  if (!start_ || !peak) return std::nullopt;
  return std::max<int64_t>(0, *peak - *start_);
}

}  // namespace rat
