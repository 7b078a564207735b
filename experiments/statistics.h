// Numbers about numbers, as plots and tables show them. Nothing here samples: curves are smoothed before they are
// thinned.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace rat {

// By linear interpolation between order statistics; NaN when empty. The values need not be sorted; NaN among them gives
// NaN.
double median(std::span<const double> values);
double median(std::span<const float> values);
struct Quartiles {
  double q1 = 0, median = 0, q3 = 0;
};
Quartiles quartiles(std::span<const double> values);
Quartiles quartiles(std::span<const float> values);

// Debiased exponential moving average with weight s in [0, 1), as TensorBoard computes it: last = s*last + (1-s)*y,
// out = last / (1 - s^n). Non-finite values pass through and are not accumulated; a constant series stays as it is.
std::vector<double> smooth(std::span<const double> values, double weight);
double smoothing_half_life(double weight);  // points after which a value counts half: ln(1/2) / ln(s); 0 for s = 0
double smoothing_weight(double half_life_points);  // the inverse

// Over seeds. Sample standard deviation (n - 1); a Student-t interval at 95 %. n < 2: deviation and interval are NaN.
struct Spread {
  int64_t n = 0;
  double mean = 0, deviation = 0, low = 0, high = 0;
};
Spread spread(std::span<const double> values);

enum class Goal { minimise, maximise };
// Indices of the points that no other point beats: at least as good in both and better in one. Sorted by x; of equal
// points all are on the front. Points with a NaN are never on it.
std::vector<std::size_t> pareto_front(std::span<const double> x, std::span<const double> y, Goal x_goal, Goal y_goal);
// The front as a line to draw: the corner points of the staircase that separates beaten from unbeaten.
struct FrontPoint {
  double x = 0, y = 0;
  bool operator==(const FrontPoint&) const = default;
};
std::vector<FrontPoint> pareto_staircase(std::span<const double> x, std::span<const double> y, Goal x_goal,
                                         Goal y_goal);

}  // namespace rat
