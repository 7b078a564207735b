// The highest resident memory of this process since the meter was made.
#pragma once

#include <cstdint>
#include <optional>

namespace rat {

class PeakMemory {
 public:
  PeakMemory();  // gives freed memory back to the system, then resets the system's high-water mark
  // Bytes above what was resident at construction; nothing if the mark could not be reset or read.
  std::optional<int64_t> bytes() const;

 private:
  std::optional<int64_t> start_;
};

}  // namespace rat
