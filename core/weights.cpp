#include "core/weights.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "core/mixer_list.h"

namespace rat {
namespace {

constexpr int64_t alignment_floats = 16;  // 64 bytes

int64_t element_count(const WeightSpec& spec) {
  int64_t count = 1;
  for (const int64_t size : spec.shape) count *= size;
  return count;
}

int64_t padded(int64_t count) { return (count + alignment_floats - 1) / alignment_floats * alignment_floats; }

// Uniform in (0, 1]: never zero, so that its logarithm is finite. Own formulas, because the standard distributions may
// differ between libraries.
double uniform(std::mt19937_64& rng) { return (static_cast<double>(rng() >> 11) + 1.0) * 0x1p-53; }

void init_weights(const WeightSpec& spec, uint64_t seed, std::span<float> values) {
  std::mt19937_64 rng(seed);
  switch (spec.init) {
    case Init::ones:
      std::fill(values.begin(), values.end(), 1.0f);
      break;
    case Init::normal:  // N(0, 0.02) by Box-Muller
      for (float& value : values) {
        const double radius = 0.02 * std::sqrt(-2.0 * std::log(uniform(rng)));
        value = static_cast<float>(radius * std::cos(2.0 * std::numbers::pi * uniform(rng)));
      }
      break;
    case Init::gate_bias: {
      // log U(1, L-1), as published ("chrono" initialisation). L up to 2 leaves one value: log 1 = 0.
      const double widest = static_cast<double>(std::max<int64_t>(1, spec.gate_span - 1));
      for (float& value : values) value = static_cast<float>(std::log(1.0 + (widest - 1.0) * uniform(rng)));
      break;
    }
  }
}

int64_t padded_count(const std::vector<WeightSpec>& table) {
  int64_t count = 0;
  for (const WeightSpec& spec : table) count += padded(element_count(spec));
  return count;
}

void append(std::vector<WeightSpec>& table, const std::string& prefix, const std::vector<WeightSpec>& more) {
  for (WeightSpec spec : more) {
    spec.name = prefix + spec.key;
    table.push_back(std::move(spec));
  }
}

}  // namespace

ParameterStore::ParameterStore(const std::vector<WeightSpec>& table, uint64_t seed, const kernels::Backend& backend)
    : table_(table), values_(backend, padded_count(table)), grads_(backend, padded_count(table)) {
  on_device_ = views(values_.device(), grads_.device());
  std::seed_seq streams{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  std::vector<uint32_t> seeds(2 * table.size());
  streams.generate(seeds.begin(), seeds.end());
  const std::vector<Parameter> host = views(values_.host(), {});
  for (std::size_t i = 0; i < table.size(); ++i) {
    count_ += element_count(table[i]);
    init_weights(table[i], uint64_t{seeds[2 * i]} << 32 | seeds[2 * i + 1], host[i].value);
  }
}

std::vector<Parameter> ParameterStore::views(std::span<float> values, std::span<float> grads) const {
  std::vector<Parameter> parameters;
  std::size_t at = 0;
  for (const WeightSpec& spec : table_) {
    const auto size = static_cast<std::size_t>(element_count(spec));
    parameters.push_back({spec.name, spec.shape, values.subspan(at, size), {}});
    if (!grads.empty()) parameters.back().grad = grads.subspan(at, size);
    at += static_cast<std::size_t>(padded(element_count(spec)));
  }
  return parameters;
}

std::span<Parameter> ParameterStore::parameters() {
  const std::span<float> values = values_.host(), grads = grads_.host();
  if (on_host_.empty()) on_host_ = views(values, grads);
  return on_host_;
}

std::span<const Parameter> ParameterStore::parameters() const {
  const std::span<const float> values = values_.read(), grads = grads_.read();
  const auto writable = [](std::span<const float> x) { return std::span(const_cast<float*>(x.data()), x.size()); };
  if (on_host_.empty()) on_host_ = views(writable(values), writable(grads));  // handed out as const
  return on_host_;
}

Status ParameterStore::prepare() {
  RAT_TRY(values_.prepare());
  return grads_.prepare();
}

Status ParameterStore::zero_gradients(const kernels::Exec& exec) {
  RAT_TRY(grads_.prepare());
  grads_.device_writes();
  const std::span<float> grads = grads_.device();
  return kernels::zero({.x = kernels::Output(grads.data(), 1, grads_.count())}, exec);
}

int64_t weight_count(const std::vector<WeightSpec>& table) {
  int64_t count = 0;
  for (const WeightSpec& spec : table) count += element_count(spec);
  return count;
}

std::vector<WeightSpec> sequence_layer_weights(const ModelConfig& config, const LayerConfig& layer) {
  const auto type = find_mixer_type(layer.kind);
  RAT_CHECK(bool(type), "the layer kind was validated");
  const int64_t D = config.d_model;
  std::vector<WeightSpec> table{{"in_proj", "in_proj.weight", {(*type)->projected_width(config), D}},
                                {"out_proj", "out_proj.weight", {D, D}},
                                {"norm", "input_norm.weight", {D}, Init::ones}};
  for (WeightSpec& spec : (*type)->extra_weights(config, layer)) table.push_back(std::move(spec));
  return table;
}

std::vector<WeightSpec> feed_forward_weights(const ModelConfig& config) {
  const int64_t D = config.d_model, hidden = config.ffn_mult * D;
  return {{"fc1", "fc1.weight", {hidden, D}}, {"fc2", "fc2.weight", {D, hidden}}, {"ln", "ln.weight", {D}, Init::ones}};
}

std::vector<WeightSpec> model_weights(const ModelConfig& config) {
  std::vector<WeightSpec> table;
  append(table, "", {{"", "embedding.wte.weight", {config.vocab, config.d_model}}});
  for (std::size_t i = 0; i < config.layers.size(); ++i) {
    const std::string prefix = fmt::format("backbone.layers.{}.", i);
    append(table, prefix + "seq_layer.", sequence_layer_weights(config, config.layers[i]));
    append(table, prefix + "hidden_layer.", feed_forward_weights(config));
  }
  append(table, "",
         {{"", "backbone.ln.weight", {config.d_model}, Init::ones},
          {"", "head.lm_head.weight", {config.vocab, config.d_model}}});
  return table;
}

}  // namespace rat
