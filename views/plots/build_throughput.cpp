// Where a step's time goes: one bar for each kind of operation, median over the steps, quartiles as the interval.
#include <cmath>

#include "core/op_times.h"
#include "experiments/statistics.h"
#include "views/plots/build_parts.h"

namespace rat {
namespace {

constexpr double warm_up_share = 0.1;  // of a run's steps, left out

Result<std::optional<Bar>> bar_of(PlotData& data, const RunRow& run, std::string_view op) {
  RAT_ASSIGN(const std::span<const MetricPoint> points, data.series(run.id, fmt::format("op_ms/{}", op)));
  std::vector<double> values;
  for (std::size_t i = static_cast<std::size_t>(warm_up_share * static_cast<double>(points.size())); i < points.size();
       ++i)
    if (std::isfinite(points[i].value)) values.push_back(points[i].value);
  if (values.empty()) return std::optional<Bar>();
  const Quartiles spread_of_steps = quartiles(values);
  Bar bar;
  bar.name = op;
  bar.value = spread_of_steps.median;
  bar.low = spread_of_steps.q1;
  bar.high = spread_of_steps.q3;
  bar.color = static_cast<int>(run.color % 8);
  bar.run_id = run.id;
  return std::optional(bar);
}

}  // namespace

Result<PlotDescription> build_throughput(const Recipe& recipe, PlotData& data) {
  RAT_ASSIGN(const std::vector<RunRow> runs, recipe_runs(recipe, data));
  PlotDescription plot;
  plot.title = "time per operation";
  plot.x.label = "ms a training step";
  apply_axis(recipe.x, plot.x);
  for (const RunRow& run : runs) plot.run_ids.push_back(run.id);
  for (const std::string_view op : op_names)
    for (const RunRow& run : runs) {
      RAT_ASSIGN(std::optional<Bar> bar, bar_of(data, run, op));
      if (!bar) continue;
      if (runs.size() > 1) bar->name += " · " + (run.name.empty() ? run.layers : run.name);
      plot.bars.push_back(*bar);
    }
  if (plot.bars.empty())
    return fail(ErrorCode::not_found,
                "None of these {} runs has stored operation times ('op_ms/...'); train at least one step.",
                runs.size());
  plot.note = fmt::format("{}{}train · median over steps, bars: quartiles · first {:.0f} % of steps left out",
                          common_settings(runs), common_settings(runs).empty() ? "" : " · ", 100 * warm_up_share);
  return plot;
}

}  // namespace rat
