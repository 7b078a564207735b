#include "experiments/spec_fields.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>

#include "core/mixer_list.h"
#include "experiments/data/data_kinds.h"
#include "kernels/base/device_names.h"
#include "kernels/base/dtype.h"

namespace rat {
namespace {

struct Range {
  double low, high;
  bool low_allowed = true, high_allowed = true;

  bool contains(double x) const {
    return (low_allowed ? x >= low : x > low) && (high_allowed ? x <= high : x < high);  // NaN fails both
  }
  std::string text() const {
    if (std::isinf(high)) return fmt::format("{} {}", low_allowed ? "at least" : "more than", low);
    return fmt::format("{} {} and {} {}", low_allowed ? "at least" : "more than", low,
                       high_allowed ? "at most" : "less than", high);
  }
};

constexpr double no_limit = std::numeric_limits<double>::infinity();
constexpr Range positive_count{1, 1e15}, count{0, 1e15}, positive{0, 1e6, false}, share{0, 1, true, false};

Error wrong_type(std::string_view key, std::string_view wanted, const Json& value) {
  std::string shown = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  return fail(ErrorCode::invalid_argument, "{} must be {}, but it is {}.", key, wanted, shown);
}

Status check_range(std::string_view key, double value, const Range& range) {
  if (range.contains(value)) return ok();
  return fail(ErrorCode::invalid_argument, "{} is {}; it must be {}.", key, value, range.text());
}

// An integer, also written as 1e3 or 1000.0; anything with a fraction is refused, not rounded.
Result<int64_t> whole_number(std::string_view key, const Json& json) {
  if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})
    return fail(ErrorCode::invalid_argument, "{} is {}; the largest value is {}.", key, json.get<uint64_t>(),
                std::numeric_limits<int64_t>::max());
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number_float()) {
    const double x = json.get<double>();
    if (std::abs(x) <= 9007199254740992.0 && x == std::floor(x)) return static_cast<int64_t>(x);
  }
  return wrong_type(key, "a whole number", json);
}

template <class Access>
SpecField integer(std::string key, Access access, Range range) {
  SpecField field{key};
  field.get = [access](const RunSpec& spec) { return Json(access(const_cast<RunSpec&>(spec))); };
  field.set = [=](RunSpec& spec, const Json& json) -> Status {
    RAT_ASSIGN(const int64_t value, whole_number(key, json));
    RAT_TRY(check_range(key, static_cast<double>(value), range));
    access(spec) = static_cast<std::decay_t<decltype(access(spec))>>(value);
    return ok();
  };
  field.check = [=](const RunSpec& spec) {
    return check_range(key, static_cast<double>(access(const_cast<RunSpec&>(spec))), range);
  };
  return field;
}

template <class Access>
SpecField real(std::string key, Access access, Range range) {
  SpecField field{key};
  field.get = [access](const RunSpec& spec) { return Json(access(const_cast<RunSpec&>(spec))); };
  field.set = [=](RunSpec& spec, const Json& json) -> Status {
    if (!json.is_number()) return wrong_type(key, "a number", json);
    RAT_TRY(check_range(key, json.get<double>(), range));
    access(spec) = json.get<double>();
    return ok();
  };
  field.check = [=](const RunSpec& spec) { return check_range(key, access(const_cast<RunSpec&>(spec)), range); };
  return field;
}

template <class Access>
SpecField text(std::string key, Access access, std::vector<std::string> choices = {}) {
  const auto check_choice = [=](const std::string& value) -> Status {
    if (choices.empty() || std::ranges::find(choices, value) != choices.end()) return ok();
    return fail(ErrorCode::invalid_argument, "{} is '{}'; it must be one of: {}{}", key, value,
                fmt::join(choices, ", "), suggestion(value, choices));
  };
  SpecField field{key, true};
  field.get = [access](const RunSpec& spec) { return Json(access(const_cast<RunSpec&>(spec))); };
  field.set = [=](RunSpec& spec, const Json& json) -> Status {
    if (!json.is_string()) return wrong_type(key, "a text in quotes", json);
    RAT_TRY(check_choice(json.get<std::string>()));
    access(spec) = json.get<std::string>();
    return ok();
  };
  field.check = [=](const RunSpec& spec) { return check_choice(access(const_cast<RunSpec&>(spec))); };
  return field;
}

template <class Enum, std::size_t N, class Access>
SpecField choice(std::string key, Access access, std::array<std::pair<Enum, std::string_view>, N> names) {
  SpecField field{key, true};
  field.get = [=](const RunSpec& spec) {
    for (const auto& [value, name] : names)
      if (value == access(const_cast<RunSpec&>(spec))) return Json(std::string(name));
    return Json();
  };
  field.set = [=](RunSpec& spec, const Json& json) -> Status {
    if (!json.is_string()) return wrong_type(key, "a text in quotes", json);
    std::vector<std::string> known;
    for (const auto& [value, name] : names) {
      if (json.get<std::string>() == name) {
        access(spec) = value;
        return ok();
      }
      known.emplace_back(name);
    }
    return fail(ErrorCode::invalid_argument, "{} is '{}'; it must be one of: {}{}", key, json.get<std::string>(),
                fmt::join(known, ", "), suggestion(json.get<std::string>(), known));
  };
  field.check = [](const RunSpec&) { return ok(); };
  return field;
}

SpecField betas() {
  SpecField field{"train.betas"};
  static constexpr Range range = share;
  field.get = [](const RunSpec& spec) { return Json{spec.train.optimizer.beta1, spec.train.optimizer.beta2}; };
  field.set = [](RunSpec& spec, const Json& json) -> Status {
    if (!json.is_array() || json.size() != 2 || !json[0].is_number() || !json[1].is_number())
      return wrong_type("train.betas", "a list of two numbers such as [0.9, 0.95]", json);
    RAT_TRY(check_range("train.betas[0]", json[0].get<double>(), range));
    RAT_TRY(check_range("train.betas[1]", json[1].get<double>(), range));
    spec.train.optimizer.beta1 = json[0].get<double>();
    spec.train.optimizer.beta2 = json[1].get<double>();
    return ok();
  };
  field.check = [](const RunSpec& spec) -> Status {
    RAT_TRY(check_range("train.betas[0]", spec.train.optimizer.beta1, range));
    return check_range("train.betas[1]", spec.train.optimizer.beta2, range);
  };
  return field;
}

// Dilations that training takes in turn, one per step.
SpecField dilations() {
  SpecField field{"train.dilations"};
  field.get = [](const RunSpec& spec) { return Json(spec.train.dilations); };
  field.set = [](RunSpec& spec, const Json& json) -> Status {
    if (!json.is_array()) return wrong_type("train.dilations", "a list of dilations such as [1, 64]", json);
    std::vector<int64_t> dilations;
    for (std::size_t i = 0; i < json.size(); ++i) {
      const std::string key = fmt::format("train.dilations[{}]", i);
      RAT_ASSIGN(dilations.emplace_back(), whole_number(key, json[i]));
      RAT_TRY(check_range(key, static_cast<double>(dilations.back()), {1, 1 << 24}));
    }
    spec.train.dilations = std::move(dilations);
    return ok();
  };
  field.check = [](const RunSpec& spec) -> Status {
    for (const int64_t dilation : spec.train.dilations)
      RAT_TRY(check_range("train.dilations", static_cast<double>(dilation), {1, 1 << 24}));
    return ok();
  };
  return field;
}

SpecField layers() {
  SpecField field{"model.layers", true};
  field.get = [](const RunSpec& spec) { return layers_to_json(spec.model.layers); };
  field.set = [](RunSpec& spec, const Json& json) -> Status {
    RAT_ASSIGN(spec.model.layers, layers_from_json("model.layers", json));
    return ok();
  };
  field.check = [](const RunSpec&) { return ok(); };  // core validates layers with the whole model
  return field;
}

// The numbers of a layer, and which kinds have them.
struct LayerNumber {
  std::string_view name;
  int64_t LayerConfig::*value;
  bool MixerType::*applies;
  Range range;
};
constexpr std::array layer_numbers{
    LayerNumber{"chunk", &LayerConfig::chunk, &MixerType::uses_chunk, positive_count},
    LayerNumber{"dilation", &LayerConfig::dilation, &MixerType::uses_dilation, positive_count},
    LayerNumber{"window", &LayerConfig::window, &MixerType::uses_window, count},
    LayerNumber{"initial", &LayerConfig::initial, &MixerType::uses_initial, count}};

Error means_nothing(const std::string& key, const LayerConfig& layer) {
  return fail(ErrorCode::invalid_argument, "{} means nothing to a layer of kind '{}'; remove it.", key, layer.kind);
}

Status set_layer_positions(const std::string& key, const MixerType& type, const Json& json, LayerConfig& layer) {
  if (!type.uses_positions) return means_nothing(key, layer);
  if (json != "rope" && json != "none") return wrong_type(key, "\"rope\" or \"none\"", json);
  layer.pos = json == "rope" ? Positions::rope : Positions::none;
  return ok();
}

Result<LayerConfig> layer_from_json(const std::string& key, const Json& json) {
  if (!json.is_object()) return wrong_type(key, "an object such as {\"kind\": \"rat\", \"chunk\": 16}", json);
  std::vector<std::string> known{"kind", "pos"};
  for (const LayerNumber& number : layer_numbers) known.emplace_back(number.name);
  for (const auto& [name, value] : json.items())
    if (std::ranges::find(known, name) == known.end())
      return fail(ErrorCode::invalid_argument, "{}.{} is not a known key{}", key, name, suggestion(name, known));
  if (!json.contains("kind")) return fail(ErrorCode::invalid_argument, "{} needs a \"kind\", such as \"rat\".", key);
  if (!json["kind"].is_string()) return wrong_type(key + ".kind", "a text in quotes", json["kind"]);

  auto made = default_layer(json["kind"].get<std::string>());
  if (!made) return fail(ErrorCode::invalid_argument, "{}.kind: {}", key, made.error().message);
  LayerConfig layer = *made;
  const MixerType& type = **find_mixer_type(layer.kind);
  for (const LayerNumber& number : layer_numbers) {
    const std::string name(number.name), number_key = fmt::format("{}.{}", key, name);
    if (!json.contains(name)) continue;
    if (!(type.*number.applies)) return means_nothing(number_key, layer);
    RAT_ASSIGN(layer.*number.value, whole_number(number_key, json[name]));
    RAT_TRY(check_range(number_key, static_cast<double>(layer.*number.value), number.range));
  }
  if (json.contains("pos")) RAT_TRY(set_layer_positions(key + ".pos", type, json["pos"], layer));
  return layer;
}

std::vector<std::string> data_kind_names() {
  std::vector<std::string> names;
  for (const DataKind& kind : data_kinds()) names.emplace_back(kind.name);
  return names;
}

// auto&: each accessor names one member; const access goes through the same lambda.
#define RAT_MEMBER(path) \
  [](RunSpec & spec) -> auto& { return spec.path; }

std::vector<SpecField> make_fields() {
  std::vector<SpecField> fields;
  fields.push_back(text("name", RAT_MEMBER(name)));
  fields.push_back(integer("model.vocab", RAT_MEMBER(model.vocab), {1, 1 << 24}));
  fields.push_back(integer("model.d_model", RAT_MEMBER(model.d_model), {1, 1 << 20}));
  fields.push_back(integer("model.heads", RAT_MEMBER(model.heads), {1, 1 << 16}));
  fields.push_back(integer("model.groups", RAT_MEMBER(model.groups), {1, 1 << 16}));
  fields.push_back(integer("model.kv_heads", RAT_MEMBER(model.kv_heads), {0, 1 << 16}));
  fields.push_back(integer("model.ffn_mult", RAT_MEMBER(model.ffn_mult), {1, 1024}));
  fields.push_back(choice("model.pos", RAT_MEMBER(model.positions),
                          std::array{std::pair{Positions::rope, std::string_view("rope")},
                                     std::pair{Positions::none, std::string_view("none")}}));
  fields.push_back(real("model.rope_base", RAT_MEMBER(model.rope_base), {1, 1e12, false}));
  fields.push_back(layers());
  fields.push_back(text("data.kind", RAT_MEMBER(data.kind), data_kind_names()));
  fields.push_back(text("data.path", RAT_MEMBER(data.path)));
  fields.push_back(text("data.tokenizer", RAT_MEMBER(data.tokenizer)));
  fields.push_back(real("data.validation_fraction", RAT_MEMBER(data.validation_fraction), {0, 1, false, false}));
  for (const DataNumber& number : data_numbers())
    fields.push_back(integer(
        std::string(number.key), [value = number.value](RunSpec& spec) -> auto& { return spec.data.*value; },
        {static_cast<double>(number.low), static_cast<double>(number.high)}));
  fields.push_back(integer("train.steps", RAT_MEMBER(train.steps), positive_count));
  fields.push_back(integer("train.batch", RAT_MEMBER(train.batch), {1, 1 << 24}));
  fields.push_back(integer("train.accumulate", RAT_MEMBER(train.accumulate), {1, 1 << 24}));
  fields.push_back(integer("train.seq_len", RAT_MEMBER(train.seq_len), {1, 1 << 28}));
  fields.push_back(real("train.lr", RAT_MEMBER(train.optimizer.lr), positive));
  fields.push_back(betas());
  fields.push_back(real("train.eps", RAT_MEMBER(train.optimizer.eps), {0, 1, false}));
  fields.push_back(real("train.weight_decay", RAT_MEMBER(train.optimizer.weight_decay), {0, 1e6}));
  fields.push_back(real("train.clip", RAT_MEMBER(train.optimizer.clip), {0, 1e12}));
  fields.push_back(integer("train.warmup", RAT_MEMBER(train.warmup), count));
  fields.push_back(choice("train.schedule", RAT_MEMBER(train.schedule),
                          std::array{std::pair{Schedule::constant, std::string_view("constant")},
                                     std::pair{Schedule::cosine, std::string_view("cosine")}}));
  fields.push_back(dilations());
  fields.push_back(text("train.dtype", RAT_MEMBER(train.dtype), kernels::dtype_names()));
  fields.push_back(integer("train.seed", RAT_MEMBER(train.seed), {0, no_limit}));
  fields.push_back(integer("train.eval_every", RAT_MEMBER(train.eval_every), count));
  fields.push_back(integer("train.eval_tokens", RAT_MEMBER(train.eval_tokens), positive_count));
  fields.push_back(integer("train.checkpoint_every", RAT_MEMBER(train.checkpoint_every), count));
  fields.push_back(integer("train.probe_every", RAT_MEMBER(train.probe_every), count));
  fields.push_back(text("device", RAT_MEMBER(device), kernels::device_names()));
  return fields;
}

#undef RAT_MEMBER

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int64_t>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int64_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

}  // namespace

const std::vector<SpecField>& spec_fields() {
  static const std::vector<SpecField> fields = make_fields();
  return fields;
}

const SpecField* find_spec_field(std::string_view key) {
  for (const SpecField& field : spec_fields())
    if (field.key == key) return &field;
  return nullptr;
}

std::string suggestion(std::string_view unknown, const std::vector<std::string>& known) {
  const std::string* nearest = nullptr;
  int64_t best = 0;
  if (unknown.size() > 200) return ".";  // not a typo
  for (const std::string& candidate : known) {
    // "lr" should find "train.lr": the last part is compared as well.
    const std::size_t dot = candidate.rfind('.');
    int64_t distance = edit_distance(unknown, candidate);
    if (dot != std::string::npos) distance = std::min(distance, edit_distance(unknown, candidate.substr(dot + 1)));
    if (!nearest || distance < best) nearest = &candidate, best = distance;
  }
  if (!nearest || best > std::max<int64_t>(2, static_cast<int64_t>(unknown.size()) / 3)) return ".";
  return fmt::format("; did you mean '{}'?", *nearest);
}

Result<std::vector<LayerConfig>> layers_from_json(const std::string& key, const Json& json) {
  std::vector<LayerConfig> layers;
  const auto add_pattern = [&](const std::string& where, const std::string& pattern) -> Status {
    auto parsed = parse_layers(pattern);
    if (!parsed) return fail(ErrorCode::invalid_argument, "{}: {}", where, parsed.error().message);
    layers.insert(layers.end(), parsed->begin(), parsed->end());
    return ok();
  };
  if (json.is_string()) {
    RAT_TRY(add_pattern(key, json.get<std::string>()));
    return layers;
  }
  if (!json.is_array()) return wrong_type(key, "a list of layers or a pattern such as \"rat:16*4\"", json);
  for (std::size_t i = 0; i < json.size(); ++i) {
    const std::string item_key = fmt::format("{}[{}]", key, i);
    if (json[i].is_string()) {
      RAT_TRY(add_pattern(item_key, json[i].get<std::string>()));
    } else {
      RAT_ASSIGN(layers.emplace_back(), layer_from_json(item_key, json[i]));
    }
  }
  if (layers.empty()) return fail(ErrorCode::invalid_argument, "{} is empty; a model needs at least one layer.", key);
  return layers;
}

Json layers_to_json(const std::vector<LayerConfig>& layers) {
  Json list = Json::array();
  for (const LayerConfig& layer : layers) {
    Json item{{"kind", layer.kind}};
    const auto type = find_mixer_type(layer.kind);
    for (const LayerNumber& number : layer_numbers)
      if (type && (*type)->*number.applies) item[std::string(number.name)] = layer.*number.value;
    if (layer.pos) item["pos"] = *layer.pos == Positions::rope ? "rope" : "none";
    list.push_back(std::move(item));
  }
  return list;
}

}  // namespace rat
