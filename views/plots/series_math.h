// The arithmetic of plots: which points survive thinning, which a logarithmic axis cannot show, how sure
// a Pareto front is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "experiments/statistics.h"
#include "views/plots/plot.h"

namespace rat {

// Indices, ascending, of at most about `max_points` points: the first, the last and, in each of equal-width x buckets,
// the smallest and the largest value of every column of `columns` (NaN ignored). x ascends. max_points <= 0: all.
std::vector<std::size_t> thin_min_max(std::span<const double> x, std::span<const std::span<const double>> columns,
                                      int64_t max_points);

// Where x does not increase, the line starts again: [begin, end) of each piece.
std::vector<std::pair<std::size_t, std::size_t>> ascending_pieces(std::span<const double> x);

// Drops what a logarithmic axis cannot show, and says how many values that was in plot.warnings.
void apply_scales(PlotDescription& plot);

// How often a point stays non-dominated when every mean is drawn again from its Student t distribution (given by
// standard errors and degrees of freedom; n < 2 keeps its mean). Deterministic: the same points give the same shares.
struct UncertainPoint {
  double x = 0, y = 0, x_error = 0, y_error = 0;  // means and standard errors
  int64_t x_count = 1, y_count = 1;
};
std::vector<double> share_non_dominated(std::span<const UncertainPoint> points, Goal x_goal, Goal y_goal,
                                        int resamples = 1000);

// All of a column kept by index.
template <class T>
std::vector<T> pick(const std::vector<T>& column, std::span<const std::size_t> indices) {
  std::vector<T> kept;
  if (column.empty()) return kept;
  kept.reserve(indices.size());
  for (const std::size_t i : indices) kept.push_back(column[i]);
  return kept;
}

// Every per-point column of the series, kept by index.
void keep_points(Series& series, std::span<const std::size_t> indices);

}  // namespace rat
