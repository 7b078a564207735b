// What a configuration costs, from the numbers alone: shown before Start and drawn against measurements.
#pragma once

#include <cstdint>

#include "core/config.h"

namespace rat {

struct CostEstimate {
  int64_t parameters = 0;
  double train_flops_per_token = 0;    // forward + backward at sequence length T, multiply and add counted apart
  double prefill_flops_per_token = 0;
  double decode_flops_per_token = 0;   // at position T
  int64_t decode_cache_bytes = 0;      // one sequence at T tokens; equals DecodeState::cache_bytes() in f32
  int64_t training_bytes = 0;          // weights, gradients, moments and activations of one batch
};

CostEstimate estimate_cost(const ModelConfig& config, int64_t seq_len, int64_t batch);

}  // namespace rat
