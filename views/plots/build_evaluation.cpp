// What `rat eval` stored of runs: loss by position and length generalisation as lines, needle accuracy as a map.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "views/plots/build_parts.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

// The newest evaluation of the recipe's task.
Result<Evaluation> newest(const Recipe& recipe, PlotData& data, const RunRow& run) {
  RAT_ASSIGN(std::vector<Evaluation> all, data.evaluations(run.id, recipe.task));
  if (all.empty())
    return fail(ErrorCode::not_found, "Run {} has no evaluation of '{}'; measure it with: rat eval {} --task {}",
                run.id, recipe.task, run.id, recipe.task);
  return std::move(all.back());
}

std::string display_name(const RunRow& run) { return run.name.empty() ? run.layers : run.name; }

// Mean over bins of positions, each position weighing as much as it has predictions.
void add_positions(const Evaluation& evaluation, int64_t seq_len, int64_t bin, Series& series) {
  std::map<int64_t, std::pair<double, int64_t>> bins;  // sum, predictions
  for (const EvaluationPoint& point : evaluation.points) {
    if (!point.position || point.seq_len != seq_len || point.metric != "loss") continue;
    auto& [sum, targets] = bins[*point.position / bin];
    sum += point.value * static_cast<double>(point.targets);
    targets += point.targets;
  }
  for (const auto& [index, mean] : bins) {
    series.x.push_back(static_cast<double>(index * bin) + static_cast<double>(bin - 1) / 2);
    series.y.push_back(mean.first / static_cast<double>(mean.second));
  }
}

void add_lengths(const Evaluation& evaluation, const std::string& metric, Series& series) {
  std::vector<EvaluationPoint> points;
  for (const EvaluationPoint& point : evaluation.points)
    if (point.metric == metric && !point.depth && !point.position) points.push_back(point);
  std::ranges::sort(points, {}, &EvaluationPoint::seq_len);
  for (const EvaluationPoint& point : points) {
    const double error = std::isfinite(point.standard_error) ? point.standard_error : 0;
    series.x.push_back(static_cast<double>(point.seq_len));
    series.y.push_back(point.value);
    series.y_low.push_back(point.value - error);
    series.y_high.push_back(point.value + error);
  }
}

std::string axis_label(const std::string& metric) {
  if (metric == "loss") return "loss, nats";
  return metric == "loss_beyond" ? "loss past the training length, nats" : metric;
}

constexpr int64_t drawn_bins = 64;

// Bins of all runs are those of the longest sequences.
Result<PlotDescription> build_lines(const Recipe& recipe, PlotData& data, const std::vector<RunRow>& runs) {
  PlotDescription plot;
  const bool by_position = recipe.task == "loss_by_position";
  std::vector<Evaluation> evaluations;
  int64_t longest = 1, fewest = 0;
  for (const RunRow& run : runs) {
    RAT_ASSIGN(evaluations.emplace_back(), newest(recipe, data, run));
    for (const EvaluationPoint& point : evaluations.back().points) {
      if (by_position) longest = std::max(longest, point.seq_len);
      fewest = fewest == 0 ? point.sequences : std::min(fewest, point.sequences);
    }
  }
  const int64_t bin = (longest + drawn_bins - 1) / drawn_bins;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Series series;
    series.name = display_name(runs[i]);
    series.run_id = runs[i].id;
    series.color = static_cast<int>(runs[i].color % 8);
    series.dash = dash_of(i);
    series.marker = by_position ? Marker::none : marker_of(i);
    series.band = !by_position;  // the intervals of a line are drawn only as a band
    if (by_position)
      add_positions(evaluations[i], longest, bin, series);
    else
      add_lengths(evaluations[i], recipe.metric, series);
    if (series.x.empty())
      plot.warnings.push_back(fmt::format("{} has no values of '{}'", series.name, recipe.metric));
    else
      plot.series.push_back(std::move(series));
    plot.run_ids.push_back(runs[i].id);
  }
  if (plot.series.empty())
    return fail(ErrorCode::not_found, "None of these {} runs has values of '{}' in its evaluation of '{}'.",
                runs.size(), recipe.metric, recipe.task);
  plot.title = by_position ? "Loss by position" : "By length";
  plot.x.label = by_position ? "position in the sequence, tokens" : "sequence length, tokens";
  plot.y.label = axis_label(by_position ? "loss" : recipe.metric);
  plot.note = by_position ? fmt::format("T = {}, bins of {} positions, n = {} sequences or more", longest, bin, fewest)
                          : fmt::format("± one standard error over sequences, n = {} or more", fewest);
  if (const std::string common = common_settings(runs); !common.empty()) plot.note = common + " · " + plot.note;
  apply_axis(recipe.x, plot.x);
  apply_axis(recipe.y, plot.y);
  if (!by_position && recipe.x.scale == Scale::linear) plot.x.scale = Scale::log2;
  apply_scales(plot);
  return plot;
}

Result<PlotDescription> build_needle(const Recipe& recipe, PlotData& data, const std::vector<RunRow>& runs) {
  if (runs.size() != 1)
    return fail(ErrorCode::invalid_argument, "A map of needle accuracy shows one run, not {}; name one.", runs.size());
  RAT_ASSIGN(const Evaluation evaluation, newest(recipe, data, runs.front()));
  std::set<int64_t> lengths;
  std::set<double> depths;
  std::map<std::pair<double, int64_t>, EvaluationPoint> cells;
  for (const EvaluationPoint& point : evaluation.points) {
    if (!point.depth) continue;
    lengths.insert(point.seq_len);
    depths.insert(*point.depth);
    cells[{*point.depth, point.seq_len}] = point;
  }
  if (cells.empty())
    return fail(ErrorCode::not_found, "The evaluation of '{}' of run {} has no depths.", recipe.task, runs.front().id);
  HeatMap map;
  map.rows = static_cast<int64_t>(depths.size());
  map.cols = static_cast<int64_t>(lengths.size());
  map.map = recipe.color_map;
  map.value_label = "accuracy";
  map.low = recipe.color_limits ? recipe.color_limits->first : 0;
  map.high = recipe.color_limits ? recipe.color_limits->second : 1;
  map.x1 = static_cast<double>(map.cols), map.y1 = static_cast<double>(map.rows);
  map.corner_name = "depth";
  for (const double depth : depths) {
    map.row_labels.emplace_back(static_cast<double>(map.row_names.size()) + 0.5, fmt::format("{:g}", depth));
    map.row_names.push_back(fmt::format("{:g}", depth));
    for (const int64_t T : lengths) {
      const auto cell = cells.find({depth, T});
      map.values.push_back(cell == cells.end() ? std::nanf("") : static_cast<float>(cell->second.value));
    }
  }
  for (const int64_t T : lengths) {
    map.column_labels.emplace_back(static_cast<double>(map.column_names.size()) + 0.5, fmt::format("{}", T));
    map.column_names.push_back(fmt::format("T = {}", T));
  }
  PlotDescription plot;
  plot.title = "Needle accuracy, " + display_name(runs.front());
  plot.x.label = "sequence length, tokens";
  plot.y.label = "depth, share of the sequence";
  const EvaluationPoint& any = cells.begin()->second;
  plot.note =
      fmt::format("{}, accuracy of the last query, n = {} sequences a cell", runs.front().layers, any.sequences);
  plot.run_ids = {runs.front().id};
  plot.heat_map = std::move(map);
  apply_axis(recipe.x, plot.x);
  apply_axis(recipe.y, plot.y);
  return plot;
}

}  // namespace

Result<PlotDescription> build_evaluation(const Recipe& recipe, PlotData& data) {
  RAT_ASSIGN(const std::vector<RunRow> runs, recipe_runs(recipe, data));
  if (recipe.task == "needle") return build_needle(recipe, data, runs);
  return build_lines(recipe, data, runs);
}

}  // namespace rat
