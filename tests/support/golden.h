// The golden files of tests/golden, as test cases.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/io/safetensors.h"

namespace rat::test {

struct GoldenFile {
  SafetensorsFile file;
  nlohmann::json cases;  // name -> settings

  static GoldenFile open(const std::string& name) {
    auto file = SafetensorsFile::open(std::string(RAT_TEST_DATA) + "/" + name);
    RAT_CHECK(bool(file), file ? "" : file.error().message);
    nlohmann::json cases = nlohmann::json::parse(file->metadata().at("cases"));
    return {*std::move(file), std::move(cases)};
  }
  std::vector<float> floats(const std::string& name) const {
    auto values = file.read_floats(name);
    RAT_CHECK(bool(values), values ? "" : values.error().message);
    return *std::move(values);
  }
  std::vector<int32_t> ints(const std::string& name) const {
    auto values = file.read_ints(name);
    RAT_CHECK(bool(values), values ? "" : values.error().message);
    return *std::move(values);
  }
};

inline LayerConfig layer_from(const nlohmann::json& settings) {
  LayerConfig layer = *default_layer(settings.at("kind").get<std::string>());
  layer.chunk = settings.value("chunk", layer.chunk);
  layer.window = settings.value("window", layer.window);
  layer.dilation = settings.value("dilation", layer.dilation);
  layer.initial = settings.value("initial", layer.initial);
  return layer;
}

inline ModelConfig config_from(const nlohmann::json& settings) {
  ModelConfig config;
  config.vocab = settings.value("vocab", 2);
  config.d_model = settings.at("d_model");
  config.heads = settings.at("heads");
  config.groups = settings.value("groups", 2);
  config.positions = settings.value("pos", "rope") == "rope" ? Positions::rope : Positions::none;
  config.layers.clear();
  if (settings.contains("layers"))
    for (const auto& layer : settings.at("layers")) config.layers.push_back(layer_from(layer));
  else
    config.layers.push_back(layer_from(settings));
  return config;
}

}  // namespace rat::test
