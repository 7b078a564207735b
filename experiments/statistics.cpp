#include "experiments/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace rat {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// `sorted` is not empty.
double quantile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  const double part = at - static_cast<double>(below);
  return part == 0 ? sorted[below] : sorted[below] * (1 - part) + sorted[below + 1] * part;  // inf * 0 would be NaN
}

template <class T>
Quartiles quartiles_of(std::span<const T> values) {
  std::vector<double> sorted(values.begin(), values.end());
  if (sorted.empty() || std::ranges::any_of(sorted, [](double x) { return std::isnan(x); })) return {nan, nan, nan};
  std::ranges::sort(sorted);
  return {quantile(sorted, 0.25), quantile(sorted, 0.5), quantile(sorted, 0.75)};
}

// 97.5 % points of Student's t for 1 to 30 degrees of freedom; above, Cornish-Fisher's first terms are exact to 4
// digits.
double t_975(int64_t degrees) {
  constexpr std::array<double, 30> table{12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060,
                                         2.2622,  2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
                                         2.1098,  2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
                                         2.0595,  2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (degrees <= 30) return table[static_cast<std::size_t>(degrees - 1)];
  const double z = 1.959964, d = static_cast<double>(degrees);
  return z + (z * z * z + z) / (4 * d) + (5 * std::pow(z, 5) + 16 * z * z * z + 3 * z) / (96 * d * d);
}

}  // namespace

double median(std::span<const double> values) { return quartiles_of(values).median; }
double median(std::span<const float> values) { return quartiles_of(values).median; }
Quartiles quartiles(std::span<const double> values) { return quartiles_of(values); }
Quartiles quartiles(std::span<const float> values) { return quartiles_of(values); }

std::vector<double> smooth(std::span<const double> values, double weight) {
  std::vector<double> out(values.begin(), values.end());
  const auto first_finite = std::ranges::find_if(values, [](double y) { return std::isfinite(y); });
  if (first_finite == values.end()) return out;
  if (std::ranges::all_of(values, [&](double y) { return !std::isfinite(y) || y == *first_finite; })) return out;
  double last = 0, kept = 1;  // kept = weight^n
  for (double& y : out) {
    if (!std::isfinite(y)) continue;
    last = last * weight + (1 - weight) * y;
    kept *= weight;
    y = kept < 1 ? last / (1 - kept) : last;
  }
  return out;
}

double smoothing_half_life(double weight) {
  if (weight <= 0) return 0;
  return weight >= 1 ? std::numeric_limits<double>::infinity() : std::log(0.5) / std::log(weight);
}

double smoothing_weight(double half_life_points) {
  return half_life_points <= 0 ? 0 : std::exp2(-1 / half_life_points);
}

Spread spread(std::span<const double> values) {
  Spread result{static_cast<int64_t>(values.size()), nan, nan, nan, nan};
  if (values.empty()) return result;
  const auto n = static_cast<double>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return result;
  double squares = 0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / (n - 1));
  const double half_width = t_975(result.n - 1) * result.deviation / std::sqrt(n);
  result.low = result.mean - half_width;
  result.high = result.mean + half_width;
  return result;
}

std::vector<std::size_t> pareto_front(std::span<const double> x, std::span<const double> y, Goal x_goal, Goal y_goal) {
  // With signs turned so that smaller is better in both, a walk from the best x needs only the best y so far.
  const double x_sign = x_goal == Goal::minimise ? 1 : -1, y_sign = y_goal == Goal::minimise ? 1 : -1;
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    if (!std::isnan(x[i]) && !std::isnan(y[i])) order.push_back(i);
  std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
    if (x[a] != x[b]) return x_sign * x[a] < x_sign * x[b];
    return y[a] != y[b] ? y_sign * y[a] < y_sign * y[b] : a < b;
  });
  std::vector<std::size_t> front;
  for (const std::size_t i : order) {
    const bool equal_to_last = !front.empty() && x[i] == x[front.back()] && y[i] == y[front.back()];
    if (front.empty() || equal_to_last || y_sign * y[i] < y_sign * y[front.back()]) front.push_back(i);
  }
  if (x_goal == Goal::maximise) std::ranges::stable_sort(front, {}, [&](std::size_t i) { return x[i]; });
  return front;
}

std::vector<FrontPoint> pareto_staircase(std::span<const double> x, std::span<const double> y, Goal x_goal,
                                         Goal y_goal) {
  std::vector<FrontPoint> line;
  for (const std::size_t i : pareto_front(x, y, x_goal, y_goal)) {
    const FrontPoint point{x[i], y[i]};
    if (!line.empty() && line.back() == point) continue;
    // Between neighbours the line bends where a point would be beaten by one of them: at the worse x and the worse y.
    if (!line.empty())
      line.push_back(x_goal == Goal::minimise ? FrontPoint{point.x, line.back().y}
                                              : FrontPoint{line.back().x, point.y});
    line.push_back(point);
  }
  return line;
}

}  // namespace rat
