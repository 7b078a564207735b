// The one list of run-spec keys: JSON form, command-line form, range and canonical order of each. Parsing, `--set`,
// canonical JSON, hashing and validation all walk this list, so a new key is one line here.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "experiments/run_spec.h"

namespace rat {

using Json = nlohmann::ordered_json;

struct SpecField {
  std::string key;          // dotted, e.g. "train.lr"
  bool takes_text = false;  // `--set key=VALUE` takes VALUE as it stands, not as JSON
  std::function<Json(const RunSpec&)> get = {};
  std::function<Status(RunSpec&, const Json&)> set = {};  // type, then range; leaves the spec alone on an error
  std::function<Status(const RunSpec&)> check = {};       // range of the value it has
};

const std::vector<SpecField>& spec_fields();  // in canonical order
const SpecField* find_spec_field(std::string_view key);
// What ends a sentence: "; did you mean 'train.lr'?", or "." when nothing is near.
std::string suggestion(std::string_view unknown, const std::vector<std::string>& known);

// The list of layers from JSON: objects, shorthand strings, or one shorthand string. `key` names it in errors.
Result<std::vector<LayerConfig>> layers_from_json(const std::string& key, const Json& json);
Json layers_to_json(const std::vector<LayerConfig>& layers);

}  // namespace rat
