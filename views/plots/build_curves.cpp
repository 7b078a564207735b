// Curves over steps, tokens or time. Order of work: read every point, split where x goes back, set aside what is not
// finite, smooth, average over seeds; only then thin what is drawn.
#include <algorithm>
#include <cmath>
#include <map>

#include "experiments/statistics.h"
#include "views/plots/build_parts.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

struct Curve {
  RunRow run;
  std::vector<double> steps, x, raw, y;  // finite points; raw: as stored, y: smoothed
  std::vector<double> bad_x;
};

std::string x_label(const std::string& x_axis) {
  return x_axis == "tokens" ? "training tokens" : x_axis == "wall" ? "time since the start, s" : "step";
}

// Tokens per step, or 1 when x is not tokens.
Result<double> x_factor(const Recipe& recipe, const RunRow& run) {
  if (recipe.x_axis != "tokens") return 1.0;
  RAT_ASSIGN(const RunSpec spec, parse_spec(run.spec_json));
  return static_cast<double>(spec.train.batch) * static_cast<double>(spec.train.seq_len);
}

Result<Curve> read_curve(const Recipe& recipe, PlotData& data, const RunRow& run) {
  RAT_ASSIGN(const std::span<const MetricPoint> points, data.series(run.id, recipe.metric));
  RAT_ASSIGN(const double factor, x_factor(recipe, run));
  Curve curve;
  curve.run = run;
  for (const MetricPoint& point : points) {
    const double x = recipe.x_axis == "wall" ? point.wall_s : static_cast<double>(point.step) * factor;
    if (!std::isfinite(point.value)) {
      curve.bad_x.push_back(x);
      continue;
    }
    curve.steps.push_back(static_cast<double>(point.step));
    curve.x.push_back(x);
    curve.raw.push_back(point.value);
  }
  for (const auto& [begin, end] : ascending_pieces(curve.x)) {
    const std::span piece(curve.raw.data() + begin, end - begin);
    const std::vector<double> smoothed = smooth(piece, recipe.smoothing);
    curve.y.insert(curve.y.end(), smoothed.begin(), smoothed.end());
  }
  return curve;
}

struct Moments {
  double x = 0, raw = 0;
  std::vector<double> values;
};

// Mean and sample standard deviation over seeds, step by step; n may change along the curve.
Series average(const std::vector<Curve>& curves) {
  std::map<double, Moments> by_step;
  Series series;
  for (const Curve& curve : curves) {
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      Moments& at = by_step[curve.steps[i]];
      at.x += curve.x[i];
      at.raw += curve.raw[i];
      at.values.push_back(curve.y[i]);
    }
    series.bad_x.insert(series.bad_x.end(), curve.bad_x.begin(), curve.bad_x.end());
  }
  for (const auto& [step, at] : by_step) {
    const Spread over_seeds = spread(at.values);
    const double n = static_cast<double>(over_seeds.n), deviation = over_seeds.n > 1 ? over_seeds.deviation : 0;
    series.x.push_back(at.x / n);
    series.y.push_back(over_seeds.mean);
    series.raw.push_back(at.raw / n);
    series.y_low.push_back(over_seeds.mean - deviation);
    series.y_high.push_back(over_seeds.mean + deviation);
    series.count.push_back(over_seeds.n);
  }
  series.band = true;
  std::sort(series.bad_x.begin(), series.bad_x.end());
  return series;
}

Series single(const Curve& curve) {
  Series series;
  series.run_id = curve.run.id;
  series.x = curve.x;
  series.y = curve.y;
  series.raw = curve.raw;
  series.bad_x = curve.bad_x;
  return series;
}

// One series for each stretch in which x ascends: a line that goes back would lie. Only the first has a legend entry.
void add_pieces(const Series& whole, int64_t max_points, PlotDescription& plot, int64_t& thinned) {
  bool first = true;
  auto pieces = ascending_pieces(whole.x);
  if (pieces.empty() && !whole.bad_x.empty()) pieces.emplace_back(0, 0);
  for (const auto& [begin, end] : pieces) {
    std::vector<std::size_t> all(end - begin);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = begin + i;
    Series piece = whole;
    keep_points(piece, all);
    std::vector<std::span<const double>> columns{piece.y};
    if (!piece.raw.empty()) columns.emplace_back(piece.raw);
    const auto kept = thin_min_max(piece.x, columns, max_points);
    thinned += static_cast<int64_t>(piece.x.size() - kept.size());
    keep_points(piece, kept);
    if (!first) piece.name.clear(), piece.bad_x.clear();
    first = false;
    plot.series.push_back(std::move(piece));
  }
}

std::string display_name(const RunRow& run) { return run.name.empty() ? run.layers : run.name; }

std::string note_of(const Recipe& recipe, const std::vector<RunRow>& runs, bool seeds_differ, int64_t seeds_low,
                    int64_t seeds_high) {
  std::vector<std::string> parts;
  if (const std::string common = common_settings(runs); !common.empty()) parts.push_back(common);
  if (recipe.smoothing > 0)
    parts.push_back(fmt::format("debiased EMA s = {:g} (half-life {:.3g} points)", recipe.smoothing,
                                smoothing_half_life(recipe.smoothing)));
  if (recipe.collapse_seeds)
    parts.push_back(fmt::format(
        "band: mean ± standard deviation over {}, n = {}",
        seeds_differ ? "seeds" : "runs, some of one seed",
        seeds_low == seeds_high ? fmt::format("{}", seeds_low) : fmt::format("{} to {}", seeds_low, seeds_high)));
  else
    parts.push_back("n = 1 run a line");
  return fmt::format("{}", fmt::join(parts, " · "));
}

void warn_about(const Curve& curve, const Recipe& recipe, PlotDescription& plot) {
  const std::string name = display_name(curve.run);
  if (!curve.bad_x.empty())
    plot.warnings.push_back(fmt::format("{}: {} NaN or infinite values of '{}', marked on the lower edge", name,
                                        curve.bad_x.size(), recipe.metric));
  if (curve.x.empty() && curve.bad_x.empty())
    plot.warnings.push_back(fmt::format("{} has no values of '{}'", name, recipe.metric));
}

}  // namespace

Result<PlotDescription> build_curves(const Recipe& recipe, PlotData& data, int64_t max_points) {
  RAT_ASSIGN(const std::vector<RunRow> runs, recipe_runs(recipe, data));
  const MetricInfo info = metric_info(recipe.metric);
  PlotDescription plot;
  plot.title = info.title;
  plot.x.label = x_label(recipe.x_axis);
  plot.y.label = info.label();
  apply_axis(recipe.x, plot.x);
  apply_axis(recipe.y, plot.y);
  std::vector<std::vector<RunRow>> groups;
  bool seeds_differ = true;
  if (recipe.collapse_seeds) {
    groups = group_seeds(runs);
    plot.warnings = repeated_seed_warnings(groups);
    seeds_differ = plot.warnings.empty();
  } else {
    for (const RunRow& run : runs) groups.push_back({run});
  }

  int64_t thinned = 0;
  auto fewest = static_cast<int64_t>(runs.size());
  int64_t most = 0;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<Curve> curves;
    for (const RunRow& run : groups[g]) {
      RAT_ASSIGN(Curve curve, read_curve(recipe, data, run));
      warn_about(curve, recipe, plot);
      plot.run_ids.push_back(run.id);
      if (!curve.x.empty() || !curve.bad_x.empty()) curves.push_back(std::move(curve));
    }
    if (curves.empty()) continue;
    const auto n = static_cast<int64_t>(curves.size());
    fewest = std::min(fewest, n), most = std::max(most, n);
    Series series = recipe.collapse_seeds ? average(curves) : single(curves.front());
    const RunRow& first = curves.front().run;
    series.name = recipe.collapse_seeds ? fmt::format("{} (n = {})", first.layers, n) : display_name(first);
    series.color = static_cast<int>(first.color % 8);
    series.dash = dash_of(g);
    if (groups.size() > 4 || series.y.size() == 1) series.marker = marker_of(g);  // one point has no line to be seen by
    if (recipe.smoothing <= 0 || !recipe.show_raw) series.raw.clear();
    add_pieces(series, max_points, plot, thinned);
  }
  if (plot.series.empty())
    return fail(ErrorCode::not_found,
                "None of these {} runs has values of '{}'; choose another metric or train longer.", runs.size(),
                recipe.metric);
  plot.note = note_of(recipe, runs, seeds_differ, fewest, most);
  if (thinned > 0)
    plot.note += fmt::format(" · drawn with {} points fewer (smallest and largest of each bucket kept)", thinned);
  apply_scales(plot);
  return plot;
}

}  // namespace rat
