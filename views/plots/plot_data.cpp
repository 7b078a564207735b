#include "views/plots/plot_data.h"

#include <algorithm>

namespace rat {

Result<RunRow> PlotData::run(const std::string& id_or_name) {
  if (const auto known = rows_.find(id_or_name); known != rows_.end()) return known->second;
  RAT_ASSIGN(RunRow row, store_->run(id_or_name));
  rows_[id_or_name] = row;
  return row;
}

Result<std::span<const MetricPoint>> PlotData::series(const std::string& run_id, const std::string& metric) {
  RAT_ASSIGN(const RunRow row, run(run_id));
  std::vector<MetricPoint>& points = points_[{run_id, metric}];
  RAT_ASSIGN(const std::vector<MetricPoint> news,
             store_->series(run_id, metric, points.empty() ? -1 : points.back().step));
  points.insert(points.end(), news.begin(), news.end());
  // A resumed run forgets the points after its checkpoint and computes them again: then what we remember up to the
  // row's last step is not what the row counted.
  const auto summary = row.metrics.find(metric);
  const int64_t counted = summary == row.metrics.end() ? 0 : summary->second.count;
  const int64_t last_step = summary == row.metrics.end() ? -1 : summary->second.last_step;
  const auto end = std::upper_bound(points.begin(), points.end(), last_step,
                                    [](int64_t step, const MetricPoint& p) { return step < p.step; });
  if (end - points.begin() != counted) {
    RAT_ASSIGN(points, store_->series(run_id, metric));
  }
  return std::span<const MetricPoint>(points);
}

}  // namespace rat
