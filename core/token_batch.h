// Token ids of one batch with what the model should predict after each of them.
#pragma once

#include <cstdint>
#include <vector>

namespace rat {

struct TokenBatch {
  int64_t batch = 0;             // B
  int64_t tokens = 0;            // T
  std::vector<int32_t> inputs;   // (B, T)
  std::vector<int32_t> targets;  // (B, T); ignore_target where no prediction is asked for
};

inline constexpr int32_t ignore_target = -1;

}  // namespace rat
