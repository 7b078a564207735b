// Weights: one table of {name, shape, init} gives memory, initial values, counts and names.
#pragma once

#include <vector>

#include "core/mirrored.h"
#include "core/mixer.h"
#include "core/model.h"

namespace rat {

// Owns values and gradients of a weight table, in the memory of a backend with a view on the host.
class ParameterStore {
 public:
  // Values are drawn from `seed`; each weight has a stream of its own, so adding a weight does not change the others.
  ParameterStore(const std::vector<WeightSpec>& table, uint64_t seed, const kernels::Backend& backend);

  // On the host: up to date, and what is written is used from the next prepare() on.
  std::span<Parameter> parameters();
  std::span<const Parameter> parameters() const;
  // Where passes find them: these spans never move. `prepare` brings over what the host wrote.
  std::span<Parameter> on_device() { return on_device_; }
  Status prepare();
  // What a pass or the optimizer is about to write on the device.
  void device_writes_gradients() { grads_.device_writes(); }
  void device_writes_values() { values_.device_writes(); }
  int64_t count() const { return count_; }
  // All values on the device in one block, alignment gaps (zeros) included.
  std::span<const float> values() const { return values_.device(); }
  Status zero_gradients(const kernels::Exec& exec);

 private:
  std::vector<Parameter> views(std::span<float> values, std::span<float> grads) const;
  std::vector<WeightSpec> table_;
  Mirrored values_, grads_;
  std::vector<Parameter> on_device_;
  mutable std::vector<Parameter> on_host_;
  int64_t count_ = 0;
};

int64_t weight_count(const std::vector<WeightSpec>& table);
// The whole model's table in the order of Model::parameters(). `name` is the published key.
std::vector<WeightSpec> model_weights(const ModelConfig& config);
// One sequence layer's: in_proj, out_proj, norm, then the mixer's own.
std::vector<WeightSpec> sequence_layer_weights(const ModelConfig& config, const LayerConfig& layer);
std::vector<WeightSpec> feed_forward_weights(const ModelConfig& config);

}  // namespace rat
