#include "views/plots/recipe.h"

#include <array>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "experiments/spec_fields.h"
#include "views/plots/venues.h"

namespace rat {
namespace {

constexpr std::array<std::string_view, 7> kind_names{"curves", "tradeoff",   "throughput", "attention",
                                                     "states", "evaluation", "scaling"};
constexpr std::array<std::string_view, 3> task_names{"length", "loss_by_position", "needle"};
constexpr std::array<std::string_view, 3> phase_names{"train", "prefill", "decode"};
constexpr std::array<std::string_view, 4> scale_names{"linear", "log10", "log2", "symlog"};
constexpr std::array<std::string_view, 4> map_names{"viridis", "cividis", "magma", "diverging"};
constexpr std::array<std::string_view, 3> x_axis_names{"step", "tokens", "wall"};
constexpr std::array<std::string_view, 3> legend_names{"inside", "below", "none"};

// A place in the recipe and how JSON gets in and out of it. `read` may assume nothing about the JSON's type.
struct Field {
  std::string key;
  std::function<Json(const Recipe&)> write;
  std::function<Status(Recipe&, const Json&)> read;
};

Error wrong(std::string_view key, std::string_view expected, const Json& json) {
  return fail(ErrorCode::invalid_argument, "The recipe's '{}' must be {}, not {}.", key, expected, json.dump());
}

template <std::size_t N>
std::string list(const std::array<std::string_view, N>& names) {
  std::string text;
  for (const std::string_view name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

template <std::size_t N>
Result<std::size_t> choice(std::string_view key, const std::array<std::string_view, N>& names, const Json& json) {
  if (json.is_string())
    for (std::size_t i = 0; i < N; ++i)
      if (names[i] == json.get_ref<const std::string&>()) return i;
  return wrong(key, "one of " + list(names), json);
}

Field text(std::string key, std::string Recipe::*member) {
  return {key, [member](const Recipe& r) { return Json(r.*member); },
          [key, member](Recipe& r, const Json& json) -> Status {
            if (!json.is_string()) return wrong(key, "a string", json);
            r.*member = json.get<std::string>();
            return ok();
          }};
}

template <std::size_t N>
Field named_text(std::string key, std::string Recipe::*member, const std::array<std::string_view, N>& names) {
  return {key, [member](const Recipe& r) { return Json(r.*member); },
          [key, member, &names](Recipe& r, const Json& json) -> Status {
            RAT_ASSIGN(const std::size_t i, choice(key, names, json));
            r.*member = std::string(names[i]);
            return ok();
          }};
}

Field flag(std::string key, bool Recipe::*member) {
  return {key, [member](const Recipe& r) { return Json(r.*member); },
          [key, member](Recipe& r, const Json& json) -> Status {
            if (!json.is_boolean()) return wrong(key, "true or false", json);
            r.*member = json.get<bool>();
            return ok();
          }};
}

Field number(std::string key, double Recipe::*member, double low, double high) {
  return {key, [member](const Recipe& r) { return Json(r.*member); },
          [key, member, low, high](Recipe& r, const Json& json) -> Status {
            if (!json.is_number() || !(json.get<double>() >= low && json.get<double>() <= high))
              return wrong(key, fmt::format("a number from {} to {}", low, high), json);
            r.*member = json.get<double>();
            return ok();
          }};
}

template <class Int>
Field whole(std::string key, Int Recipe::*member, int64_t low) {
  return {key, [member](const Recipe& r) { return Json(r.*member); },
          [key, member, low](Recipe& r, const Json& json) -> Status {
            if (!json.is_number_integer() || json.get<int64_t>() < low || json.get<int64_t>() > 1'000'000'000)
              return wrong(key, fmt::format("a whole number from {} to 1000000000", low), json);
            r.*member = static_cast<Int>(json.get<int64_t>());
            return ok();
          }};
}

// [low, high], or null for none.
Result<std::optional<std::pair<double, double>>> read_range(std::string_view key, const Json& json) {
  if (json.is_null()) return std::optional<std::pair<double, double>>();
  if (!json.is_array() || json.size() != 2 || !json[0].is_number() || !json[1].is_number() ||
      !(json[0].get<double>() < json[1].get<double>()))
    return wrong(key, "null or [low, high] with low < high", json);
  return std::optional(std::pair(json[0].get<double>(), json[1].get<double>()));
}

template <class Range>
Json write_range(const Range& range) {
  return range ? Json::array({range->first, range->second}) : Json(nullptr);
}

Status read_axis(const std::string& key, const Json& json, Axis& axis) {
  if (!json.is_object()) return wrong(key, R"(an object like {"label": "", "scale": "log10", "limits": null})", json);
  Axis next;
  for (const auto& [name, value] : json.items()) {
    const std::string full = key + "." + name;
    if (name == "label") {
      if (!value.is_string()) return wrong(full, "a string", value);
      next.label = value.get<std::string>();
    } else if (name == "scale") {
      RAT_ASSIGN(const std::size_t i, choice(full, scale_names, value));
      next.scale = static_cast<Scale>(i);
    } else if (name == "limits") {
      RAT_ASSIGN(next.limits, read_range(full, value));
    } else {
      return fail(ErrorCode::invalid_argument, "The recipe has an unknown key '{}'{}", full,
                  suggestion(full, {key + ".label", key + ".scale", key + ".limits"}));
    }
  }
  if (next.limits && next.scale != Scale::linear && next.scale != Scale::symlog && !(next.limits->first > 0))
    return fail(ErrorCode::invalid_argument,
                "The recipe's '{}.limits' start at {}, which a logarithmic axis cannot show; use a positive limit.",
                key, next.limits->first);
  axis = std::move(next);
  return ok();
}

Field axis(std::string key, Axis Recipe::*member) {
  return {key,
          [member](const Recipe& r) {
            const Axis& a = r.*member;
            return Json{{"label", a.label},
                        {"scale", scale_names[static_cast<std::size_t>(a.scale)]},
                        {"limits", write_range(a.limits)}};
          },
          [key, member](Recipe& r, const Json& json) { return read_axis(key, json, r.*member); }};
}

Field kind_field() {
  return {"kind", [](const Recipe& r) { return Json(figure_kind_name(r.kind)); },
          [](Recipe& r, const Json& json) -> Status {
            RAT_ASSIGN(const std::size_t i, choice("kind", kind_names, json));
            r.kind = static_cast<FigureKind>(i);
            return ok();
          }};
}

Field runs_field() {
  return {"runs", [](const Recipe& r) { return Json(r.runs); },
          [](Recipe& r, const Json& json) -> Status {
            if (!json.is_array()) return wrong("runs", "a list of run ids", json);
            r.runs.clear();
            for (const Json& id : json) {
              if (!id.is_string() || id.get_ref<const std::string&>().empty())
                return wrong("runs", "a list of run ids", json);
              r.runs.push_back(id.get<std::string>());
            }
            return ok();
          }};
}

Field bench_field() {
  return {"bench", [](const Recipe& r) { return Json::parse(to_json(r.bench)); },
          [](Recipe& r, const Json& json) -> Status {
            RAT_ASSIGN(r.bench, parse_bench_rows(json.dump(), "The recipe's 'bench'"));
            return ok();
          }};
}

Field probe_field() {
  return {"probe", [](const Recipe& r) { return Json(probe_name(r.probe)); },
          [](Recipe& r, const Json& json) -> Status {
            if (!json.is_string()) return wrong("probe", "the name of a probe", json);
            RAT_ASSIGN(r.probe, parse_probe(json.get_ref<const std::string&>()));
            return ok();
          }};
}

Field map_field() {
  return {"color_map", [](const Recipe& r) { return Json(color_map_name(r.color_map)); },
          [](Recipe& r, const Json& json) -> Status {
            RAT_ASSIGN(const std::size_t i, choice("color_map", map_names, json));
            r.color_map = static_cast<ColorMap>(i);
            return ok();
          }};
}

Field color_limits_field() {
  return {"color_limits", [](const Recipe& r) { return write_range(r.color_limits); },
          [](Recipe& r, const Json& json) -> Status {
            RAT_ASSIGN(const auto range, read_range("color_limits", json));
            r.color_limits.reset();
            if (range) r.color_limits = {static_cast<float>(range->first), static_cast<float>(range->second)};
            return ok();
          }};
}

Field venue_field() {
  return {"venue", [](const Recipe& r) { return Json(r.venue); },
          [](Recipe& r, const Json& json) -> Status {
            if (!json.is_string()) return wrong("venue", "the id of a venue", json);
            RAT_TRY(find_venue(json.get_ref<const std::string&>()));
            r.venue = json.get<std::string>();
            return ok();
          }};
}

const std::vector<Field>& fields() {
  static const std::vector<Field> all{
      kind_field(),
      runs_field(),
      text("metric", &Recipe::metric),
      number("smoothing", &Recipe::smoothing, 0, 0.999),
      flag("show_raw", &Recipe::show_raw),
      flag("collapse_seeds", &Recipe::collapse_seeds),
      named_text("x_axis", &Recipe::x_axis, x_axis_names),
      axis("x", &Recipe::x),
      axis("y", &Recipe::y),
      text("x_metric", &Recipe::x_metric),
      text("y_metric", &Recipe::y_metric),
      text("size_metric", &Recipe::size_metric),
      named_text("task", &Recipe::task, task_names),
      named_text("phase", &Recipe::phase, phase_names),
      bench_field(),
      text("trace_file", &Recipe::trace_file),
      probe_field(),
      whole("layer", &Recipe::layer, -1),
      whole("head", &Recipe::head, 0),
      flag("sort_channels", &Recipe::sort_channels),
      map_field(),
      flag("log_color", &Recipe::log_color),
      flag("gamma_color", &Recipe::gamma_color),
      color_limits_field(),
      whole("token_begin", &Recipe::token_begin, 0),
      whole("token_end", &Recipe::token_end, 0),
      whole("column_begin", &Recipe::column_begin, 0),
      whole("column_end", &Recipe::column_end, 0),
      venue_field(),
      flag("full_width", &Recipe::full_width),
      number("width_in", &Recipe::width_in, 0, 100),
      number("height_in", &Recipe::height_in, 0, 100),
      named_text("legend", &Recipe::legend, legend_names),
      text("commit", &Recipe::commit),
  };
  return all;
}

}  // namespace

std::string_view figure_kind_name(FigureKind kind) { return kind_names[static_cast<std::size_t>(kind)]; }

NumbersFrom numbers_from(FigureKind kind) {
  switch (kind) {
    case FigureKind::attention:
    case FigureKind::states:
      return NumbersFrom::trace;
    case FigureKind::scaling:
      return NumbersFrom::recipe;
    default:
      return NumbersFrom::store;
  }
}

Result<Recipe> parse_recipe(std::string_view text) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    return fail(ErrorCode::corrupt_data, "The recipe is not valid JSON near byte {}; a figure's .json file is one.",
                error.byte);
  }
  if (!json.is_object())
    return fail(ErrorCode::corrupt_data, "The recipe must be a JSON object, not {}.", json.type_name());
  if (!json.contains("kind"))
    return fail(ErrorCode::invalid_argument, "The recipe has no 'kind'; it must be one of {}.", list(kind_names));
  Recipe recipe;
  for (const auto& [key, value] : json.items()) {
    const Field* known = nullptr;
    for (const Field& field : fields())
      if (field.key == key) known = &field;
    if (!known) {
      std::vector<std::string> keys;
      for (const Field& field : fields()) keys.push_back(field.key);
      return fail(ErrorCode::invalid_argument, "The recipe has an unknown key '{}'{}", key, suggestion(key, keys));
    }
    RAT_TRY(known->read(recipe, value));
  }
  return recipe;
}

std::string to_json(const Recipe& recipe) {
  Json json = Json::object();
  for (const Field& field : fields()) json[field.key] = field.write(recipe);
  return json.dump(2) + "\n";
}

}  // namespace rat
