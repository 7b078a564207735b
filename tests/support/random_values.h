// Deterministic test data.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace rat::test {

inline std::vector<float> uniform(std::size_t n, uint64_t seed, float low = -1.0f, float high = 1.0f) {
  std::mt19937_64 rng(seed);
  std::uniform_real_distribution<float> draw(low, high);
  std::vector<float> values(n);
  for (float& value : values) value = draw(rng);
  return values;
}

inline std::vector<int32_t> tokens(std::size_t n, uint64_t seed, int32_t vocab) {
  std::mt19937_64 rng(seed);
  std::vector<int32_t> ids(n);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab));
  return ids;
}

// An output that was not written stays NaN and fails every comparison.
inline std::vector<float> poison(std::size_t n) {
  return std::vector<float>(n, std::numeric_limits<float>::quiet_NaN());
}

}  // namespace rat::test
