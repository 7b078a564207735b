// One metric of every configuration against another, with intervals over seeds and the Pareto front.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "core/mixer_list.h"
#include "experiments/statistics.h"
#include "views/plots/build_parts.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

constexpr double smallest_pt = 4, largest_pt = 13;  // marker diameters
constexpr double warm_up_share = 0.1;               // of a run's steps, left out of its speed

struct Quantity {
  std::vector<double> values;                  // one per seed
  double mean = 0, error = 0, half_width = 0;  // standard error; 95 % interval, 0 with one value

  int64_t count() const { return static_cast<int64_t>(values.size()); }
};

struct Configuration {
  std::vector<RunRow> runs;  // the seeds
  Quantity x, y, size;
  double share = 1;  // of resamples in which it is non-dominated
  bool on_front = false;
};

// One number for a finished or running run: the last one, or the median after warm-up of what every step measures.
// None when the run has no finite value (yet).
Result<std::optional<double>> run_value(PlotData& data, const RunRow& run, const std::string& metric) {
  if (!metric_info(metric).per_step) {
    const auto found = run.metrics.find(metric);
    if (found == run.metrics.end() || !std::isfinite(found->second.last)) return std::optional<double>();
    return std::optional(found->second.last);
  }
  RAT_ASSIGN(const std::span<const MetricPoint> points, data.series(run.id, metric));
  const auto skipped = static_cast<std::size_t>(warm_up_share * static_cast<double>(points.size()));
  std::vector<double> values;
  for (std::size_t i = skipped; i < points.size(); ++i)
    if (std::isfinite(points[i].value)) values.push_back(points[i].value);
  if (values.empty()) return std::optional<double>();
  return std::optional(median(values));
}

void summarise(Quantity& quantity) {
  const Spread over_seeds = spread(quantity.values);
  quantity.mean = over_seeds.mean;
  if (over_seeds.n < 2) return;
  quantity.error = over_seeds.deviation / std::sqrt(static_cast<double>(over_seeds.n));
  quantity.half_width = (over_seeds.high - over_seeds.low) / 2;
}

// Configurations of which at least one seed has both x and y; the others are counted in `missing`.
Result<std::vector<Configuration>> read_configurations(const Recipe& recipe, PlotData& data,
                                                       const std::vector<RunRow>& runs, int64_t& missing) {
  std::vector<Configuration> all;
  for (const std::vector<RunRow>& group : group_seeds(runs)) {
    Configuration one;
    for (const RunRow& run : group) {
      RAT_ASSIGN(const std::optional<double> x, run_value(data, run, recipe.x_metric));
      RAT_ASSIGN(const std::optional<double> y, run_value(data, run, recipe.y_metric));
      if (!x || !y) {
        ++missing;
        continue;
      }
      one.runs.push_back(run);
      one.x.values.push_back(*x);
      one.y.values.push_back(*y);
      if (recipe.size_metric.empty()) continue;
      RAT_ASSIGN(const std::optional<double> size, run_value(data, run, recipe.size_metric));
      if (size && *size > 0) one.size.values.push_back(*size);
    }
    if (one.runs.empty()) continue;
    summarise(one.x);
    summarise(one.y);
    if (!one.size.values.empty()) summarise(one.size);
    all.push_back(std::move(one));
  }
  return all;
}

struct Means {
  std::vector<double> x, y;
};

Means means_of(const std::vector<Configuration>& all) {
  Means means;
  for (const Configuration& one : all) means.x.push_back(one.x.mean), means.y.push_back(one.y.mean);
  return means;
}

void find_front(std::vector<Configuration>& all, Goal x_goal, Goal y_goal) {
  std::vector<UncertainPoint> uncertain;
  for (const Configuration& one : all)
    uncertain.push_back({one.x.mean, one.y.mean, one.x.error, one.y.error, one.x.count(), one.y.count()});
  const Means means = means_of(all);
  for (const std::size_t i : pareto_front(means.x, means.y, x_goal, y_goal)) all[i].on_front = true;
  const std::vector<double> share = share_non_dominated(uncertain, x_goal, y_goal);
  for (std::size_t i = 0; i < all.size(); ++i) all[i].share = share[i];
}

// "rat", "attention", ..., or "hybrid" for more than one kind of layer.
std::string family_of(const RunRow& run) {
  const auto layers = parse_layers(run.layers);
  if (!layers || layers->empty()) return "other";
  for (const LayerConfig& layer : *layers)
    if (layer.kind != layers->front().kind) return "hybrid";
  return layers->front().kind;
}

// In the order of the legend, which gives each its colour and marker.
std::vector<std::string> family_names() {
  std::vector<std::string> names{"rat", "attention", "rnn", "hybrid", "swa"};
  for (const MixerType& type : mixer_types())
    if (std::find(names.begin(), names.end(), type.name) == names.end()) names.emplace_back(type.name);
  names.emplace_back("other");
  return names;
}

// "rat:16" for "rat:16*4": the depth is the same all over a sweep and only costs room.
std::string short_label(const RunRow& run, bool same_depth) {
  const auto layers = parse_layers(run.layers);
  if (!layers || layers->empty() || !same_depth) return run.layers;
  std::vector<LayerConfig> period = *layers;
  for (std::size_t p = 1; p < layers->size(); ++p) {
    if (layers->size() % p != 0) continue;
    bool repeats = true;
    for (std::size_t i = p; repeats && i < layers->size(); ++i) repeats = (*layers)[i] == (*layers)[i - p];
    if (repeats) {
      period.resize(p);
      break;
    }
  }
  return format_layers(period);
}

bool depths_agree(const std::vector<Configuration>& all) {
  std::size_t depth = 0;
  for (const Configuration& one : all) {
    const auto layers = parse_layers(one.runs.front().layers);
    if (!layers || (depth != 0 && layers->size() != depth)) return false;
    depth = layers->size();
  }
  return true;
}

// What is written at each point: the layers, and the run's name where several points have the same.
std::vector<std::string> labels_of(const std::vector<Configuration>& all) {
  const bool same_depth = depths_agree(all);
  std::vector<std::string> layers, labels;
  std::map<std::string, int> points;
  for (const Configuration& one : all) ++points[layers.emplace_back(short_label(one.runs.front(), same_depth))];
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool alone = points[layers[i]] == 1;
    const RunRow& run = all[i].runs.front();
    labels.push_back(alone ? layers[i] : fmt::format("{} · {}", layers[i], run.name.empty() ? run.id : run.name));
  }
  return labels;
}

// What keeps the points from being compared: other data, or training that did not come to its end.
std::vector<std::string> unlike(const std::vector<Configuration>& all) {
  std::vector<std::string> found;
  std::set<std::string> data;
  std::set<int64_t> steps;
  int64_t runs = 0, unfinished = 0;
  for (const Configuration& one : all)
    for (const RunRow& run : one.runs) {
      if (!run.data_hash.empty()) data.insert(run.data_hash);
      steps.insert(run.steps_done);
      ++runs;
      unfinished += run.state != RunState::finished;
    }
  if (data.size() > 1) found.push_back(fmt::format("the points were trained on {} different data sets", data.size()));
  if (unfinished > 0) found.push_back(fmt::format("{} of {} runs are not finished", unfinished, runs));
  if (steps.size() > 1)
    found.push_back(fmt::format("the runs have done {} to {} steps", *steps.begin(), *steps.rbegin()));
  return found;
}

std::string detail_of(const Configuration& one, const Recipe& recipe) {
  const auto part = [](const Quantity& q, const std::string& metric) {
    const MetricInfo info = metric_info(metric);
    std::string text = fmt::format("{} {}", info.title, with_unit(q.mean, info));
    if (q.count() > 1) text += fmt::format(" ± {}", short_number(q.half_width));
    return text;
  };
  std::string text = part(one.y, recipe.y_metric) + " · " + part(one.x, recipe.x_metric);
  if (!one.size.values.empty()) text += " · " + part(one.size, recipe.size_metric);
  text += " · " + count_of(one.runs);
  if (one.runs.size() > 1)
    text += fmt::format(" · non-dominated in {:.0f} % of resamples", 100 * one.share);
  else
    text += one.on_front ? " · on the front" : " · dominated";
  return text;
}

void add_point(const Configuration& one, const Recipe& recipe, const std::string& label, double largest,
               Series& series) {
  series.x.push_back(one.x.mean);
  series.y.push_back(one.y.mean);
  series.x_low.push_back(one.x.mean - one.x.half_width);
  series.x_high.push_back(one.x.mean + one.x.half_width);
  series.y_low.push_back(one.y.mean - one.y.half_width);
  series.y_high.push_back(one.y.mean + one.y.half_width);
  series.count.push_back(static_cast<int64_t>(one.runs.size()));
  const bool sized = !one.size.values.empty() && largest > 0;
  series.size.push_back(sized ? std::max(smallest_pt, largest_pt * std::sqrt(one.size.mean / largest)) : 7.0);
  series.labels.push_back(label);
  series.point_runs.push_back(one.runs.front().id);
  std::vector<std::string>& seeds = series.point_seeds.emplace_back();
  for (const RunRow& run : one.runs) seeds.push_back(run.id);
  series.details.push_back(detail_of(one, recipe));
}

Series front_line(const std::vector<Configuration>& all, Goal x_goal, Goal y_goal) {
  Series line;
  line.name = "Pareto front (staircase)";
  line.color = 4;
  line.dash = Dash::dotted;
  const Means means = means_of(all);
  for (const FrontPoint& corner : pareto_staircase(means.x, means.y, x_goal, y_goal))
    line.x.push_back(corner.x), line.y.push_back(corner.y);
  return line;
}

std::string note_of(const Recipe& recipe, const std::vector<Configuration>& all, const std::vector<RunRow>& runs) {
  std::string note = common_settings(runs);
  for (const std::string_view phase : {"prefill", "decode"})  // measured when a run ends, whatever it was trained with
    if (recipe.x_metric.starts_with(phase) || recipe.y_metric.starts_with(phase))
      note += fmt::format("{}{} at batch 1", note.empty() ? "" : ", ", phase);
  const auto add = [&note](const std::string& part) { note += (note.empty() ? "" : " · ") + part; };
  std::size_t fewest = all.front().runs.size(), most = fewest;
  bool seeds_differ = true;
  double low = 0, high = 0;
  for (const Configuration& one : all) {
    fewest = std::min(fewest, one.runs.size()), most = std::max(most, one.runs.size());
    seeds_differ = seeds_differ && distinct_seeds(one.runs) == static_cast<int64_t>(one.runs.size());
    if (one.size.values.empty()) continue;
    low = low == 0 ? one.size.mean : std::min(low, one.size.mean);
    high = std::max(high, one.size.mean);
  }
  const std::string n = fewest == most ? fmt::format("{}", most) : fmt::format("{} to {}", fewest, most);
  add(most > 1 ? fmt::format("bars: 95 % interval over n = {} {}", n, seeds_differ ? "seeds" : "runs, some of one seed")
               : "n = 1 seed: no intervals");
  if (high > 0) {
    const MetricInfo info = metric_info(recipe.size_metric);
    add(fmt::format("marker area: {}, {} to {}", info.title, with_unit(low, info), with_unit(high, info)));
  }
  return note;
}

}  // namespace

Result<PlotDescription> build_tradeoff(const Recipe& recipe, PlotData& data) {
  RAT_ASSIGN(const std::vector<RunRow> runs, recipe_runs(recipe, data));
  int64_t missing = 0;
  RAT_ASSIGN(std::vector<Configuration> all, read_configurations(recipe, data, runs, missing));
  if (all.empty())
    return fail(ErrorCode::not_found, "None of these {} runs has both '{}' and '{}' yet; wait until one is finished.",
                runs.size(), recipe.x_metric, recipe.y_metric);
  const MetricInfo x = metric_info(recipe.x_metric), y = metric_info(recipe.y_metric);
  const Goal x_goal = x.lower_is_better ? Goal::minimise : Goal::maximise,
             y_goal = y.lower_is_better ? Goal::minimise : Goal::maximise;
  find_front(all, x_goal, y_goal);

  PlotDescription plot;
  plot.title = fmt::format("{} against {}", y.title, x.title);
  plot.x.label = x.label();
  plot.y.label = y.label();
  apply_axis(recipe.x, plot.x);
  apply_axis(recipe.y, plot.y);
  if (x.known_direction && y.known_direction) plot.series.push_back(front_line(all, x_goal, y_goal));
  double largest = 0;
  for (const Configuration& one : all)
    if (!one.size.values.empty()) largest = std::max(largest, one.size.mean);
  const std::vector<std::string> families = family_names(), labels = labels_of(all);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Configuration& one = all[i];
    const std::string family = family_of(one.runs.front());
    auto at = std::find_if(plot.series.begin(), plot.series.end(), [&](const Series& s) { return s.name == family; });
    if (at == plot.series.end()) {
      const auto k = static_cast<std::size_t>(std::find(families.begin(), families.end(), family) - families.begin());
      Series series;
      series.name = family;
      constexpr std::array colors{0, 1, 2, 3, 5, 6, 7};  // 4 is the front's
      series.color = colors[k % colors.size()];
      series.marker = marker_of(k);
      series.line = false;
      at = plot.series.insert(plot.series.end(), series);
    }
    add_point(one, recipe, labels[i], largest, *at);
    for (const RunRow& run : one.runs) plot.run_ids.push_back(run.id);
  }
  // The front first, then families in their fixed order: the legend does not jump when a run arrives.
  std::stable_sort(plot.series.begin(), plot.series.end(), [&](const Series& a, const Series& b) {
    const auto rank = [&](const Series& s) {
      return s.line ? -1 : std::find(families.begin(), families.end(), s.name) - families.begin();
    };
    return rank(a) < rank(b);
  });
  plot.note = note_of(recipe, all, runs);
  std::vector<std::vector<RunRow>> groups;
  for (const Configuration& one : all) groups.push_back(one.runs);
  plot.warnings = unlike(all);
  std::ranges::copy(repeated_seed_warnings(groups), std::back_inserter(plot.warnings));
  if (missing > 0)
    plot.warnings.push_back(fmt::format("{} of {} runs without {} or {}", missing, runs.size(), x.title, y.title));
  apply_scales(plot);
  return plot;
}

}  // namespace rat
