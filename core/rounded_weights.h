// All weights of a model rounded to bf16, for decoding: made once after the weights changed, laid out as they are.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matmul/matmul.h"

namespace rat {

class RoundedWeights {
 public:
  void invalidate() { valid_ = false; }
  // Rounds `weights`, one contiguous block, unless that was done since the last invalidate().
  Status ensure(std::span<const float> weights) {
    if (valid_) return ok();
    begin_ = weights.data();
    values_.resize(weights.size());
    RAT_TRY(kernels::round_weights(weights, values_));
    valid_ = true;
    return ok();
  }
  const uint16_t* of(std::span<const float> weight) const { return values_.data() + (weight.data() - begin_); }

 private:
  const float* begin_ = nullptr;
  std::vector<uint16_t> values_;
  bool valid_ = false;
};

}  // namespace rat
