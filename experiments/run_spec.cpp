#include "experiments/run_spec.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/io/sha256.h"
#include "experiments/spec_fields.h"

namespace rat {
namespace {

constexpr std::size_t max_spec_bytes = 16 << 20;

// Parses JSON and refuses a key that appears twice in one object: the second would silently win.
class StrictJson {
 public:
  static Result<Json> parse(std::string_view text) {
    if (text.size() > max_spec_bytes)
      return fail(ErrorCode::invalid_argument, "The run spec is {} bytes long; the limit is {}.", text.size(),
                  max_spec_bytes);
    StrictJson strict;
    try {
      Json json =
          Json::parse(text, [&](int, Json::parse_event_t event, Json& value) { return strict.on_event(event, value); });
      if (!strict.duplicate_.empty())
        return fail(ErrorCode::invalid_argument, "{} is given twice; keep one of them.", strict.duplicate_);
      return json;
    } catch (const Json::exception& error) {
      // "[json.exception.parse_error.101] parse error at line 1, column 5: ..." -> what a reader needs of it
      std::string why = error.what();
      if (const std::size_t end = why.find("] "); end != std::string::npos) why = why.substr(end + 2);
      return fail(ErrorCode::invalid_argument, "The run spec is not valid JSON: {}.", why);
    }
  }

 private:
  bool on_event(Json::parse_event_t event, const Json& value) {
    if (event == Json::parse_event_t::object_start) objects_.emplace_back();
    if (event == Json::parse_event_t::object_end) objects_.pop_back();
    if (event == Json::parse_event_t::key) {
      Object& object = objects_.back();
      object.current = value.get<std::string>();
      if (!object.keys.insert(object.current).second && duplicate_.empty()) duplicate_ = path();
    }
    return true;
  }
  std::string path() const {
    std::string path;
    for (const Object& object : objects_) path += (path.empty() ? "" : ".") + object.current;
    return path;
  }

  struct Object {
    std::set<std::string> keys;
    std::string current;
  };
  std::vector<Object> objects_;
  std::string duplicate_;
};

Error unknown_key(std::string_view key) {
  return fail(ErrorCode::invalid_argument, "'{}' is not a key of the run spec{}", key, suggestion(key, spec_keys()));
}

bool is_section(std::string_view key) {
  return std::ranges::any_of(spec_fields(), [&](const SpecField& field) {
    return field.key.size() > key.size() && field.key.starts_with(key) && field.key[key.size()] == '.';
  });
}

Status read_object(RunSpec& spec, const std::string& prefix, const Json& json) {
  for (const auto& [name, value] : json.items()) {
    const std::string key = prefix.empty() ? name : prefix + "." + name;
    if (const SpecField* field = find_spec_field(key)) {
      RAT_TRY(field->set(spec, value));
    } else if (is_section(key)) {
      if (!value.is_object())
        return fail(ErrorCode::invalid_argument, "{} must be an object with keys in braces.", key);
      RAT_TRY(read_object(spec, key, value));
    } else {
      return unknown_key(key);
    }
  }
  return ok();
}

Json canonical(const RunSpec& spec) {
  Json json = Json::object();
  for (const SpecField& field : spec_fields()) {
    const std::size_t dot = field.key.find('.');
    Json& section = dot == std::string::npos ? json : json[field.key.substr(0, dot)];
    section[dot == std::string::npos ? field.key : field.key.substr(dot + 1)] = field.get(spec);
  }
  return json;
}

// What a person typed after `--set key=`, as the JSON the field expects.
Result<Json> json_from_typed(const SpecField& field, std::string_view typed) {
  const bool layer_list = field.key == "model.layers" && typed.starts_with('[');
  if (field.takes_text && !layer_list) return Json(std::string(typed));
  std::string text(typed);
  const bool list = field.key == "train.betas" || field.key == "train.dilations";
  if (list && !typed.starts_with('[')) text = fmt::format("[{}]", typed);
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return Json(std::string(typed));  // the field's own type error then shows what was typed
  return json;
}

void flatten(const std::string& prefix, const Json& json, std::vector<std::pair<std::string, std::string>>& out) {
  if (json.is_object()) {
    for (const auto& [name, value] : json.items()) flatten(prefix.empty() ? name : prefix + "." + name, value, out);
    return;
  }
  if (prefix == "model.layers") {
    if (const auto layers = layers_from_json(prefix, json)) {
      out.emplace_back(prefix, format_layers(*layers));
      return;
    }
  }
  out.emplace_back(
      prefix, json.is_string() ? json.get<std::string>() : json.dump(-1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

Result<RunSpec> parse_spec(std::string_view json_text) {
  RAT_ASSIGN(const Json json, StrictJson::parse(json_text));
  if (!json.is_object()) return fail(ErrorCode::invalid_argument, "The run spec must be a JSON object in braces.");
  RunSpec spec;
  RAT_TRY(read_object(spec, "", json));
  RAT_TRY(validate(spec));
  return spec;
}

std::string to_json(const RunSpec& spec, int indent) {
  return canonical(spec).dump(indent, ' ', false, Json::error_handler_t::replace);
}

Status set_value(RunSpec& spec, std::string_view key, std::string_view value) {
  const SpecField* field = find_spec_field(key);
  if (!field)
    return fail(ErrorCode::invalid_argument, "{} Valid keys: {}.", unknown_key(key).message,
                fmt::join(spec_keys(), ", "));
  RAT_ASSIGN(const Json json, json_from_typed(*field, value));
  return field->set(spec, json);
}

std::vector<std::string> spec_keys() {
  std::vector<std::string> keys;
  for (const SpecField& field : spec_fields()) keys.push_back(field.key);
  return keys;
}

std::vector<SpecProblem> problems(const RunSpec& spec) {
  std::vector<SpecProblem> found;
  const auto look = [&](std::string key, const Status& status) {
    if (!status) found.push_back({std::move(key), status.error().message});
  };
  for (const SpecField& field : spec_fields()) look(field.key, field.check(spec));
  if (!found.empty()) return found;  // what follows may divide by what is out of range
  look("model", validate(spec.model));
  look("data", validate(spec.data, spec.model, spec.train.seq_len));
  if (spec.train.batch % spec.train.accumulate != 0)
    look("train.accumulate",
         fail(ErrorCode::invalid_argument, "train.accumulate is {}; it must divide train.batch, which is {}.",
              spec.train.accumulate, spec.train.batch));
  const bool dilated =
      std::ranges::any_of(spec.model.layers, [](const LayerConfig& layer) { return layer.kind == "ratplus"; });
  if (!spec.train.dilations.empty() && !dilated)
    look("train.dilations",
         fail(ErrorCode::invalid_argument,
              "train.dilations is set, but no layer of {} is ratplus; leave it out or add a ratplus layer.",
              format_layers(spec.model.layers)));
  return found;
}

Status validate(const RunSpec& spec) {
  const std::vector<SpecProblem> found = problems(spec);
  if (found.empty()) return ok();
  return fail(ErrorCode::invalid_argument, "{}", found.front().message);
}

std::string spec_hash(const RunSpec& spec) {
  Json json = canonical(spec);
  json.erase("name");
  json["train"].erase("seed");
  return sha256_hex(json.dump(-1, ' ', false, Json::error_handler_t::replace)).substr(0, 16);
}

std::vector<SpecDifference> diff_specs(const std::vector<std::string>& spec_jsons) {
  std::vector<SpecDifference> rows;  // every key of every spec, in order of first appearance
  std::map<std::string, std::size_t> row_of;
  for (std::size_t i = 0; i < spec_jsons.size(); ++i) {
    const Json json = Json::parse(spec_jsons[i], nullptr, false);
    std::vector<std::pair<std::string, std::string>> values;
    if (!json.is_discarded()) flatten("", json, values);
    for (auto& [key, value] : values) {
      const auto [at, is_new] = row_of.try_emplace(key, rows.size());
      if (is_new) rows.push_back({key, std::vector<std::string>(spec_jsons.size())});
      rows[at->second].values[i] = std::move(value);
    }
  }
  std::erase_if(rows, [](const SpecDifference& row) {
    return std::ranges::all_of(row.values, [&](const std::string& value) { return value == row.values.front(); });
  });
  return rows;
}

}  // namespace rat
