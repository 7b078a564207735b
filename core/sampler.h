// Picks the next token from logits. Deterministic for a seed.
#pragma once

#include <cstdint>
#include <random>
#include <span>

namespace rat {

struct SamplingConfig {
  double temperature = 0.8;  // 0: greedy
  int64_t top_k = 0;         // 0: all tokens
  uint64_t seed = 1;
  bool operator==(const SamplingConfig&) const = default;
};

class Sampler {
 public:
  explicit Sampler(SamplingConfig config) : config_(config), rng_(config.seed) {}
  int32_t sample(std::span<const float> logits);

 private:
  SamplingConfig config_;
  std::mt19937_64 rng_;
};

}  // namespace rat
