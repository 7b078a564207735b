#include "views/canvases/ticks.h"

#include <algorithm>
#include <cmath>

namespace rat::views {

std::vector<double> linear_ticks(double low, double high, int most) {
  std::vector<double> ticks;
  if (!(high > low) || !std::isfinite(high - low) || most < 1) return ticks;
  const double rough = (high - low) / most;
  const double magnitude = std::pow(10.0, std::floor(std::log10(rough)));
  if (!(magnitude > 0)) return ticks;
  double step = 10 * magnitude;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * magnitude >= rough * (1 - 1e-9)) {
      step = factor * magnitude;
      break;
    }
  const double first = std::ceil(low / step - 1e-9);
  for (int i = 0; i <= most + 1; ++i) {
    const double value = (first + i) * step;
    if (!(value <= high + step * 1e-9)) break;
    ticks.push_back(value == 0 ? 0.0 : value);  // no -0
  }
  while (static_cast<int>(ticks.size()) > std::max(most, 1)) ticks.pop_back();
  return ticks;
}

std::vector<int64_t> power_of_two_ticks(double low, double high, int most) {
  std::vector<int64_t> ticks;
  if (!(high >= low) || !std::isfinite(high - low) || most < 1) return ticks;
  int64_t step = 1;
  const auto count = [&](int64_t s) {
    return std::floor(high / static_cast<double>(s)) - std::ceil(low / static_cast<double>(s)) + 1;
  };
  while (count(step) > most && step < (int64_t{1} << 50)) step *= 2;
  for (auto at = static_cast<int64_t>(std::ceil(low / static_cast<double>(step))) * step;
       static_cast<double>(at) <= high; at += step)
    ticks.push_back(at);
  return ticks;
}

std::vector<double> log_ticks(double low, double high, int most) {
  std::vector<double> ticks;
  if (!(low > 0) || !(high > low) || !std::isfinite(high) || most < 1) return ticks;
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  const auto collect = [&](std::initializer_list<double> factors, int every) {
    ticks.clear();
    for (int exponent = first; exponent <= last; ++exponent) {
      if ((exponent - first) % every != 0) continue;
      for (const double factor : factors) {
        const double value = factor * std::pow(10.0, exponent);
        if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.push_back(value);
      }
    }
    return static_cast<int>(ticks.size()) <= most;
  };
  if (collect({1, 2, 5}, 1) || collect({1}, 1)) return ticks;
  for (int every = 2; every < 400; ++every)
    if (collect({1}, every)) return ticks;
  return {};
}

}  // namespace rat::views
