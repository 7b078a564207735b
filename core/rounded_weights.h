// All weights of a model rounded to bf16, where passes compute: made once after the weights changed, laid out as they are.
#pragma once

#include <cstdint>

#include "kernels/matmul/matmul.h"
#include "kernels/memory/memory.h"

namespace rat {

class RoundedWeights {
 public:
  explicit RoundedWeights(const kernels::Backend& backend) : memory_(backend) {}
  void invalidate() { valid_ = false; }
  // Rounds `weights`, one contiguous block, unless that was done since the last invalidate().
  Status ensure(std::span<const float> weights) {
    if (valid_) return ok();
    begin_ = weights.data();
    auto* values = static_cast<uint16_t*>(memory_.ensure(weights.size() * sizeof(uint16_t)));
    RAT_TRY(kernels::round_weights({.x = weights, .out = {values, weights.size()}}, {.backend = &memory_.backend()}));
    valid_ = true;
    return ok();
  }
  const uint16_t* of(std::span<const float> weight) const {
    return static_cast<const uint16_t*>(memory_.data()) + (weight.data() - begin_);
  }

 private:
  const float* begin_ = nullptr;
  kernels::Memory memory_;
  bool valid_ = false;
};

}  // namespace rat
