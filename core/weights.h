// Weights: one table of {name, shape, init} gives memory, initial values, counts and names.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "core/mixer.h"
#include "core/model.h"

namespace rat {

// Owns values and gradients of a weight table. Gradients start as zero pages that cost no memory until written.
class ParameterStore {
 public:
  // Values are drawn from `seed`; each weight has a stream of its own, so adding a weight does not change the others.
  ParameterStore(const std::vector<WeightSpec>& table, uint64_t seed);

  std::span<Parameter> parameters() { return parameters_; }
  std::span<const Parameter> parameters() const { return parameters_; }
  int64_t count() const { return count_; }
  // All values in one block, alignment gaps (zeros) included.
  std::span<const float> values() const { return values_; }
  void zero_gradients();

 private:
  struct Free {
    void operator()(float* data) const { std::free(data); }
  };
  std::unique_ptr<float, Free> memory_;
  std::vector<Parameter> parameters_;
  std::span<const float> values_;
  int64_t count_ = 0;
};

int64_t weight_count(const std::vector<WeightSpec>& table);
// The whole model's table in the order of Model::parameters(). `name` is the published key.
std::vector<WeightSpec> model_weights(const ModelConfig& config);
// One sequence layer's: in_proj, out_proj, norm, then the mixer's own.
std::vector<WeightSpec> sequence_layer_weights(const ModelConfig& config, const LayerConfig& layer);
std::vector<WeightSpec> feed_forward_weights(const ModelConfig& config);

}  // namespace rat
