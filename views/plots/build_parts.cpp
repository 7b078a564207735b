#include "views/plots/build_parts.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>

#include "views/plots/series_math.h"

namespace rat {
namespace {

// The value all runs agree on.
template <class Get>
auto shared_value(const std::vector<RunRow>& runs, Get get) -> std::optional<decltype(get(runs.front()))> {
  if (runs.empty()) return std::nullopt;
  const auto first = get(runs.front());
  for (const RunRow& run : runs)
    if (get(run) != first) return std::nullopt;
  return first;
}

int64_t batch_of(const RunRow& run) {
  const auto spec = parse_spec(run.spec_json);
  return spec ? spec->train.batch : 0;
}

int64_t seq_len_of(const RunRow& run) {
  const auto spec = parse_spec(run.spec_json);
  return spec ? spec->train.seq_len : 0;
}

}  // namespace

Result<std::vector<RunRow>> recipe_runs(const Recipe& recipe, PlotData& data) {
  if (recipe.runs.empty())
    return fail(ErrorCode::invalid_argument, "This {} figure names no runs; add their ids to the recipe's 'runs'.",
                figure_kind_name(recipe.kind));
  std::vector<RunRow> rows;
  for (const std::string& id : recipe.runs) {
    RAT_ASSIGN(RunRow row, data.run(id));
    const bool twice = std::any_of(rows.begin(), rows.end(), [&](const RunRow& other) { return other.id == row.id; });
    if (!twice) rows.push_back(std::move(row));
  }
  return rows;
}

std::string common_settings(const std::vector<RunRow>& runs) {
  std::vector<std::string> parts;
  if (const auto device = shared_value(runs, [](const RunRow& r) { return r.device; }); device && !device->empty())
    parts.push_back(*device);
  if (const auto dtype = shared_value(runs, [](const RunRow& r) { return r.dtype; }); dtype && !dtype->empty())
    parts.push_back(*dtype);
  if (const auto batch = shared_value(runs, batch_of); batch && *batch > 0)
    parts.push_back(fmt::format("training batch {}", *batch));
  if (const auto seq_len = shared_value(runs, seq_len_of); seq_len && *seq_len > 0)
    parts.push_back(fmt::format("T {}", *seq_len));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::vector<std::vector<RunRow>> group_seeds(const std::vector<RunRow>& runs) {
  std::vector<std::vector<RunRow>> groups;
  for (const RunRow& run : runs) {
    // A run without a hash (an import) stands for itself.
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) {
      return !run.spec_hash.empty() && group.front().spec_hash == run.spec_hash;
    });
    if (same == groups.end())
      groups.push_back({run});
    else
      same->push_back(run);
  }
  return groups;
}

int64_t distinct_seeds(const std::vector<RunRow>& group) {
  std::set<uint64_t> seeds;
  for (const RunRow& run : group) seeds.insert(run.seed);
  return static_cast<int64_t>(seeds.size());
}

std::string count_of(const std::vector<RunRow>& group) {
  const auto n = static_cast<int64_t>(group.size()), seeds = distinct_seeds(group);
  const auto plural = [](int64_t count) { return count == 1 ? "" : "s"; };
  if (n == seeds) return fmt::format("{} seed{}", n, plural(n));
  return fmt::format("{} runs of {} seed{}", n, seeds, plural(seeds));
}

std::vector<std::string> repeated_seed_warnings(const std::vector<std::vector<RunRow>>& groups) {
  std::vector<std::string> warnings;
  for (const std::vector<RunRow>& group : groups)
    if (distinct_seeds(group) < static_cast<int64_t>(group.size()))
      warnings.push_back(fmt::format("{}: {}; runs that repeat a seed are no independent samples of its loss",
                                     group.front().layers, count_of(group)));
  return warnings;
}

Dash dash_of(std::size_t k) {
  constexpr std::array dashes{Dash::solid, Dash::dashed, Dash::dotted, Dash::dash_dot};
  return dashes[k % dashes.size()];
}

Marker marker_of(std::size_t k) {
  constexpr std::array markers{Marker::circle,  Marker::square, Marker::triangle,
                               Marker::diamond, Marker::cross,  Marker::plus};
  return markers[k % markers.size()];
}

void apply_axis(const Axis& wanted, Axis& axis) {
  if (!wanted.label.empty()) axis.label = wanted.label;
  axis.scale = wanted.scale;
  axis.limits = wanted.limits;
}

Result<PlotDescription> build_plot(const Recipe& recipe, const StoreReader& store, int64_t max_points) {
  PlotData data(store);
  return build_plot(recipe, data, max_points);
}

Result<PlotDescription> build_plot(const Recipe& recipe, PlotData& data, int64_t max_points) {
  switch (recipe.kind) {
    case FigureKind::curves:
      return build_curves(recipe, data, max_points);
    case FigureKind::tradeoff:
      return build_tradeoff(recipe, data);
    case FigureKind::throughput:
      return build_throughput(recipe, data);
    case FigureKind::evaluation:
      return build_evaluation(recipe, data);
    case FigureKind::scaling:
      return build_scaling(recipe);
    case FigureKind::attention:
    case FigureKind::states:
      break;
  }
  return fail(ErrorCode::invalid_argument,
              "The {} figure is drawn from a trace, not from the run database; give the trace file beside its recipe.",
              figure_kind_name(recipe.kind));
}

Result<PlotDescription> build_plot(const Recipe& recipe) {
  if (numbers_from(recipe.kind) == NumbersFrom::recipe) return build_scaling(recipe);
  return fail(ErrorCode::invalid_argument, "The {} figure is drawn from a {}, not from its recipe alone.",
              figure_kind_name(recipe.kind),
              numbers_from(recipe.kind) == NumbersFrom::trace ? "trace" : "run database");
}

}  // namespace rat
