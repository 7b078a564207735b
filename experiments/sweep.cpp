#include "experiments/sweep.h"

#include <algorithm>
#include <map>

#include "core/io/sha256.h"
#include "experiments/spec_fields.h"

namespace rat {
namespace {

constexpr std::size_t most_points = 10'000;

// A grid value as `--set` would take it: text as it stands, anything else as JSON.
std::string typed(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<Json> parse_object(std::string_view text) {
  try {
    Json json = Json::parse(text);
    if (json.is_object()) return json;
    return fail(ErrorCode::invalid_argument, "The sweep must be a JSON object in braces.");
  } catch (const Json::exception& error) {
    return fail(ErrorCode::invalid_argument, "The sweep is not valid JSON: {}.", error.what());
  }
}

Status read_grid(const Json& grid, SweepSpec& sweep) {
  if (!grid.is_object())
    return fail(ErrorCode::invalid_argument, "grid must be an object of lists, such as {{\"train.seed\": [1, 2]}}.");
  for (const auto& [key, values] : grid.items()) {
    if (!find_spec_field(key))
      return fail(ErrorCode::invalid_argument, "grid: '{}' is not a key of the run spec{}", key,
                  suggestion(key, spec_keys()));
    if (!values.is_array() || values.empty())
      return fail(ErrorCode::invalid_argument, "grid: '{}' needs a list with at least one value.", key);
    std::vector<std::string> list;
    for (const Json& value : values) {
      if (std::ranges::find(list, typed(value)) != list.end())
        return fail(ErrorCode::invalid_argument, "grid: '{}' has the value {} twice; keep one.", key, typed(value));
      list.push_back(typed(value));
    }
    sweep.grid.emplace_back(key, std::move(list));
  }
  return ok();
}

// What makes two points the same run: everything but the name.
std::pair<std::string, uint64_t> identity(const RunSpec& spec) { return {spec_hash(spec), spec.train.seed}; }

}  // namespace

Result<SweepSpec> parse_sweep(std::string_view text) {
  RAT_ASSIGN(const Json json, parse_object(text));
  const std::vector<std::string> known{"name", "question", "base", "grid"};
  SweepSpec sweep;
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) == known.end())
      return fail(ErrorCode::invalid_argument, "'{}' is not a key of a sweep{} Its keys: {}.", key,
                  suggestion(key, known), fmt::join(known, ", "));
    if ((key == "name" || key == "question") && !value.is_string())
      return fail(ErrorCode::invalid_argument, "{} must be a text in quotes.", key);
  }
  if (json.contains("name")) sweep.name = json["name"].get<std::string>();
  if (json.contains("question")) sweep.question = json["question"].get<std::string>();
  if (sweep.name.empty()) return fail(ErrorCode::invalid_argument, "The sweep needs a \"name\".");
  if (json.contains("base")) {
    auto base = parse_spec(json["base"].dump(-1, ' ', false, Json::error_handler_t::replace));
    if (!base) return fail(ErrorCode::invalid_argument, "base: {}", base.error().message);
    sweep.base = *std::move(base);
  }
  if (json.contains("grid")) RAT_TRY(read_grid(json["grid"], sweep));
  return sweep;
}

Result<std::vector<RunSpec>> expand(const SweepSpec& sweep) {
  std::size_t points = 1;
  for (const auto& [key, values] : sweep.grid) {
    points *= values.size();
    if (points > most_points)
      return fail(ErrorCode::invalid_argument, "The grid has more than {} points; make it smaller.", most_points);
  }
  std::vector<RunSpec> specs;
  for (std::size_t point = 0; point < points; ++point) {
    RunSpec spec = sweep.base;
    spec.name = sweep.name;
    std::size_t rest = point, block = points;  // the last key varies fastest
    for (const auto& [key, values] : sweep.grid) {
      block /= values.size();
      const std::string& value = values[rest / block];
      rest %= block;
      RAT_TRY(set_value(spec, key, value));
      spec.name += fmt::format(" {}={}", key, value);
    }
    if (const Status valid = validate(spec); !valid)
      return fail(ErrorCode::invalid_argument, "The point '{}' of the sweep: {}", spec.name, valid.error().message);
    specs.push_back(std::move(spec));
  }
  return specs;
}

Result<SweepPlan> plan(const SweepSpec& sweep, const StoreReader& store) {
  RAT_ASSIGN(const std::vector<RunRow> runs, store.runs());
  return plan(sweep, runs);
}

Result<SweepPlan> plan(const SweepSpec& sweep, const std::vector<RunRow>& runs) {
  RAT_ASSIGN(const std::vector<RunSpec> specs, expand(sweep));
  SweepPlan plan;
  std::string identity_text = to_json(sweep.base);
  for (const auto& [key, values] : sweep.grid) identity_text += fmt::format("\n{}={}", key, fmt::join(values, "\x1f"));
  plan.sweep_id = sha256_hex(identity_text).substr(0, 16);

  // Of several runs of one point a finished one counts first, then the one that got furthest.
  std::map<std::pair<std::string, uint64_t>, const RunRow*> best;
  for (const RunRow& run : runs) {
    const bool finished = run.state == RunState::finished;
    const bool resumable =
        (run.state == RunState::stopped || run.state == RunState::crashed) && !run.checkpoint.empty();
    if (!finished && !resumable) continue;
    const RunRow*& chosen = best[{run.spec_hash, run.seed}];
    const auto rank = [](const RunRow& row) { return std::pair(row.state == RunState::finished, row.steps_done); };
    if (!chosen || rank(run) > rank(*chosen)) chosen = &run;
  }
  for (const RunSpec& spec : specs) {
    const auto found = best.find(identity(spec));
    if (found == best.end())
      plan.to_run.push_back(spec);
    else if (found->second->state == RunState::finished)
      plan.already_finished.push_back(*found->second);
    else
      plan.to_resume.push_back(*found->second);
  }
  return plan;
}

}  // namespace rat
