// Layers of every mixer of the list, for tests of what all of them must do.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/mixer_list.h"
#include "core/single_layer.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat::test {

inline ModelConfig config_of(const std::string& layer, int64_t d_model = 24, int64_t heads = 6, int64_t groups = 3) {
  ModelConfig config;
  config.d_model = d_model;
  config.heads = heads;
  config.groups = groups;
  config.layers = *parse_layers(layer);
  return config;
}

// Every kind of the list, with awkward settings of the fields it uses.
inline std::vector<std::string> all_layers() {
  std::vector<std::string> layers;
  for (const MixerType& type : mixer_types()) {
    const std::string name(type.name);
    if (type.uses_chunk)
      for (const char* chunk : {":1", ":3", ":8", ":1000"}) layers.push_back(name + chunk);
    else if (type.uses_dilation)
      for (const char* pattern : {"", ":4", ":4/w3", ":3/w2/s5", ":1000/s2", ":5/w1000", ":2/w0/s1000/nope"})
        layers.push_back(name + pattern);
    else if (type.uses_window)
      for (const char* window : {":0", ":5", ":1000"}) layers.push_back(name + window);
    else
      layers.push_back(name);
  }
  return layers;
}

inline std::unique_ptr<SingleLayer> layer_of(const ModelConfig& config, std::string_view device = "cpu") {
  auto layer = SingleLayer::create(config, 3, device);
  RAT_CHECK(bool(layer), layer ? "" : layer.error().message);
  uint64_t seed = 100;  // larger weights than the initial ones, so that every path matters
  for (Parameter& p : (*layer)->parameters()) {
    const float scale = p.shape.size() == 2 ? 1.5f / std::sqrt(static_cast<float>(config.d_model)) : 1.0f;
    auto values = uniform(p.value.size(), ++seed, -scale, scale);
    if (p.name.ends_with("norm"))
      for (float& value : values) value = 1.0f + value / 2;  // as norms are; near zero, differences would mean nothing
    std::copy(values.begin(), values.end(), p.value.begin());
  }
  return *std::move(layer);
}

inline std::vector<float> forward(SingleLayer& layer, const std::vector<float>& x, int64_t batch, int64_t tokens) {
  auto y = poison(x.size());
  const Status status = layer.forward(x, batch, tokens, y);
  RAT_CHECK(bool(status), status ? "" : status.error().message);
  return y;
}

}  // namespace rat::test
