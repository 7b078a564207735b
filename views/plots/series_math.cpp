#include "views/plots/series_math.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace rat {
namespace {

bool is_log(Scale scale) { return scale == Scale::log10 || scale == Scale::log2; }

}  // namespace

std::vector<std::size_t> thin_min_max(std::span<const double> x, std::span<const std::span<const double>> columns,
                                      int64_t max_points) {
  std::vector<std::size_t> kept;
  const std::size_t n = x.size();
  if (max_points <= 0 || n <= static_cast<std::size_t>(max_points) || n < 3) {
    for (std::size_t i = 0; i < n; ++i) kept.push_back(i);
    return kept;
  }
  const auto per_bucket = static_cast<int64_t>(2 * std::max<std::size_t>(columns.size(), 1));
  const auto buckets = static_cast<std::size_t>(std::max<int64_t>(1, max_points / per_bucket));
  const double width = (x[n - 1] - x[0]) / static_cast<double>(buckets);
  const auto bucket_of = [&](std::size_t i) {
    return width > 0 ? std::min(buckets - 1, static_cast<std::size_t>((x[i] - x[0]) / width)) : 0;
  };
  kept.push_back(0);
  for (std::size_t begin = 0; begin < n;) {
    std::size_t end = begin + 1;
    while (end < n && bucket_of(end) == bucket_of(begin)) ++end;
    for (const auto& column : columns) {
      std::size_t low = n, high = n;
      for (std::size_t i = begin; i < end; ++i) {
        if (std::isnan(column[i])) continue;
        if (low == n || column[i] < column[low]) low = i;
        if (high == n || column[i] > column[high]) high = i;
      }
      if (low < n) kept.insert(kept.end(), {low, high});
    }
    begin = end;
  }
  kept.push_back(n - 1);
  std::sort(kept.begin(), kept.end());
  kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
  return kept;
}

std::vector<std::pair<std::size_t, std::size_t>> ascending_pieces(std::span<const double> x) {
  std::vector<std::pair<std::size_t, std::size_t>> pieces;
  for (std::size_t begin = 0, i = 1; i <= x.size(); ++i)
    if (i == x.size() || !(x[i] > x[i - 1])) pieces.emplace_back(begin, i), begin = i;
  return pieces;
}

void keep_points(Series& series, std::span<const std::size_t> indices) {
  series.x = pick(series.x, indices);
  series.y = pick(series.y, indices);
  series.x_low = pick(series.x_low, indices);
  series.x_high = pick(series.x_high, indices);
  series.y_low = pick(series.y_low, indices);
  series.y_high = pick(series.y_high, indices);
  series.raw = pick(series.raw, indices);
  series.count = pick(series.count, indices);
  series.size = pick(series.size, indices);
  series.labels = pick(series.labels, indices);
  series.point_runs = pick(series.point_runs, indices);
  series.point_seeds = pick(series.point_seeds, indices);
  series.details = pick(series.details, indices);
}

void apply_scales(PlotDescription& plot) {
  int64_t dropped_x = 0, dropped_y = 0, faint = 0, low_ends = 0;
  const bool log_x = is_log(plot.x.scale), log_y = is_log(plot.y.scale);
  if (!log_x && !log_y) return;
  for (Series& series : plot.series) {
    std::vector<std::size_t> kept;
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (log_x && !(series.x[i] > 0))
        ++dropped_x;
      else if (log_y && series.y[i] <= 0)
        ++dropped_y;
      else
        kept.push_back(i);
    }
    if (kept.size() < series.x.size()) keep_points(series, kept);
    if (log_x) std::erase_if(series.bad_x, [](double x) { return !(x > 0); });
    if (log_y)
      for (double& raw : series.raw)
        if (raw <= 0) raw = std::nan(""), ++faint;
    // An interval that reaches below zero is cut at the point itself: there is no place on the axis for its end.
    const auto cut = [&low_ends](std::vector<double>& low, const std::vector<double>& at) {
      for (std::size_t i = 0; i < low.size(); ++i)
        if (low[i] <= 0) low[i] = at[i], ++low_ends;
    };
    if (log_y) cut(series.y_low, series.y);
    if (log_x) cut(series.x_low, series.x);
  }
  if (log_x)
    for (Bar& bar : plot.bars)
      if (!(bar.value > 0)) ++dropped_x;
  if (log_x) std::erase_if(plot.bars, [](const Bar& bar) { return !(bar.value > 0); });
  const auto say = [&plot](int64_t n, std::string_view what) {
    if (n > 0) plot.warnings.push_back(fmt::format("{} {}", n, what));
  };
  say(dropped_x, "values <= 0 not drawn on the log x axis");
  say(dropped_y, "values <= 0 not drawn on the log y axis");
  say(faint, "unsmoothed values <= 0 not drawn on the log y axis");
  say(low_ends, "intervals reach below 0: their lower ends are not drawn on the log axis");
}

std::vector<double> share_non_dominated(std::span<const UncertainPoint> points, Goal x_goal, Goal y_goal,
                                        int resamples) {
  std::vector<double> share(points.size()), x(points.size()), y(points.size());
  std::mt19937_64 random(20240229);  // fixed: a figure rebuilt later says the same
  const auto draw = [&random](double mean, double error, int64_t count) {
    if (count < 2 || !(error > 0)) return mean;
    return mean + error * std::student_t_distribution<double>(static_cast<double>(count - 1))(random);
  };
  for (int r = 0; r < resamples; ++r) {
    for (std::size_t i = 0; i < points.size(); ++i) {
      x[i] = draw(points[i].x, points[i].x_error, points[i].x_count);
      y[i] = draw(points[i].y, points[i].y_error, points[i].y_count);
    }
    for (const std::size_t i : pareto_front(x, y, x_goal, y_goal)) share[i] += 1;
  }
  for (double& one : share) one /= resamples;
  return share;
}

}  // namespace rat
