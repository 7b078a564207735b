// One case of a golden file: its settings and its tensors, both read so that what nobody asked for is noticed.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/io/safetensors.h"
#include "core/model.h"
#include "experiments/verify/verify.h"

namespace rat {

// A JSON object whose keys are read one by one; `all_read` fails on any key that was never asked for.
class Settings {
 public:
  Settings(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool has(const std::string& key) const { return object_.contains(key); }
  const nlohmann::json* find(const std::string& key);
  Result<int64_t> integer(const std::string& key);   // 0 or more
  Result<int64_t> positive(const std::string& key);  // 1 or more
  Result<double> number(const std::string& key);
  Result<std::string> text(const std::string& key);
  Status must_be_true(const std::string& key);
  Status all_read() const;
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& object_;
  std::string where_;  // for messages: "settings", "layer 2"
  std::set<std::string> read_;
};

// Adds a layer: its kind, its own settings and its positions. `groups` and `kv_heads` may stand at the layer too but hold
// for the whole model.
Status read_layer(Settings& settings, ModelConfig& config);
// `pos` of a layer or a model: "rope" or "none".
Result<Positions> read_positions(Settings& settings);
// Reads `groups` and `kv_heads` where they are given; a value that contradicts an earlier layer's is an error.
struct SharedSettings {
  std::optional<int64_t> groups, kv_heads;
  Status read(Settings& settings);
  void apply(ModelConfig& config) const;
};

// The tensors below "CASE/", read once each.
class CaseTensors {
 public:
  CaseTensors(const SafetensorsFile& file, std::string case_name) : file_(file), prefix_(std::move(case_name) + "/") {}

  bool has(const std::string& what) const { return file_.contains(prefix_ + what); }
  std::vector<int64_t> shape(const std::string& what) const;  // empty when it is not there
  Result<std::vector<float>> floats(const std::string& what, const std::vector<int64_t>& shape);
  Result<std::vector<int32_t>> ints(const std::string& what, const std::vector<int64_t>& shape);
  // Copies "param/NAME" into every parameter; the two sets of names and shapes must be the same. All differences at
  // once.
  Status load_parameters(std::span<Parameter> parameters);
  // Everything was read, probes aside.
  Status all_read() const;

 private:
  Result<std::string> expect(const std::string& what, const std::vector<int64_t>& shape);

  const SafetensorsFile& file_;
  std::string prefix_;
  std::set<std::string> read_;
};

// ||a - b|| / ||b|| in double. NaN if either holds one; infinite if only b is zero throughout.
double relative_error(std::span<const float> a, std::span<const float> b);
// The worst of several errors; NaN is worse than everything.
class WorstError {
 public:
  void add(double error, const std::string& what);
  double value() const { return value_; }
  const std::string& what() const { return what_; }

 private:
  double value_ = 0;
  std::string what_;
};

// Compares every parameter's gradient with "grad/NAME".
Status compare_gradients(CaseTensors& tensors, std::span<const Parameter> parameters, WorstError& worst);

// Judges one group: false and a part of the reason unless worst.value() <= bound.
bool within(const WorstError& worst, double bound, std::string_view group, std::string& reason);

// Run one case; what stops it half-way is a Status, its errors so far stay in `result`.
Status verify_layer(Settings& settings, CaseTensors& tensors, const VerifyOptions& options, CaseResult& result);
Status verify_model(Settings& settings, CaseTensors& tensors, const VerifyOptions& options, CaseResult& result);

}  // namespace rat
