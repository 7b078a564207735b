// Which part of the axes a plot shows when nobody asked for another.
#include <algorithm>
#include <cmath>

#include "app/figure/draw_plot.h"
#include "app/figure/tickers.h"

namespace rat::app {
namespace {

struct Extent {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  double largest = 0;  // absolute value
  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value), high = std::max(high, value), largest = std::max(largest, std::abs(value));
  }
  void add(const std::vector<double>& values) {
    for (const double value : values) add(value);
  }
};

Extent x_extent(const PlotDescription& plot) {
  Extent extent;
  for (const Series& s : plot.series) extent.add(s.x), extent.add(s.x_low), extent.add(s.x_high), extent.add(s.bad_x);
  for (const Bar& bar : plot.bars) extent.add(0), extent.add(bar.value), extent.add(bar.high);
  return extent;
}

Extent y_extent(const PlotDescription& plot) {
  Extent extent;
  for (const Series& s : plot.series) extent.add(s.y), extent.add(s.y_low), extent.add(s.y_high), extent.add(s.raw);
  return extent;
}

// Linear within a thousandth of the largest value.
double symlog_constant(const Extent& extent) {
  return extent.largest > 0 ? std::pow(10, std::floor(std::log10(extent.largest)) - 3) : 1;
}

double to_axis(Scale scale, double value, const Extent& extent) {
  return scale == Scale::symlog ? to_symlog(value, symlog_constant(extent)) : value;
}

QCPRange padded(const Axis& axis, const Extent& extent, double margin_low, double margin_high) {
  if (axis.limits)
    return {to_axis(axis.scale, axis.limits->first, extent), to_axis(axis.scale, axis.limits->second, extent)};
  const bool log = axis.scale == Scale::log10 || axis.scale == Scale::log2;
  if (!(extent.low <= extent.high)) return log ? QCPRange(1, 10) : QCPRange(0, 1);
  double low = to_axis(axis.scale, extent.low, extent), high = to_axis(axis.scale, extent.high, extent);
  if (log) {
    double span = std::log(high / low);
    if (!(span > 1e-9)) span = std::log(4.0), low /= 2, high *= 2;
    return {low * std::exp(-margin_low * span), high * std::exp(margin_high * span)};
  }
  if (!(high > low)) {
    const double half = low != 0 ? 0.1 * std::abs(low) : 1;
    low -= half, high += half;
  }
  const double span = high - low;
  // What is never negative gets no negative axis.
  const double bottom = extent.low >= 0 && low - margin_low * span < 0 ? 0 : low - margin_low * span;
  return {bottom, high + margin_high * span};
}

bool only_points(const PlotDescription& plot) {
  return std::any_of(plot.series.begin(), plot.series.end(), [](const Series& s) { return !s.line; });
}

}  // namespace

double x_to_axis(const PlotDescription& plot, double value) { return to_axis(plot.x.scale, value, x_extent(plot)); }
double y_to_axis(const PlotDescription& plot, double value) { return to_axis(plot.y.scale, value, y_extent(plot)); }

QCPRange fitted_x_range(const PlotDescription& plot) {
  if (plot.heat_map) return {plot.heat_map->x0, plot.heat_map->x1};
  if (!plot.bars.empty()) return padded(plot.x, x_extent(plot), 0, 0.14);
  // Markers and their labels need room that lines do not.
  if (only_points(plot)) return padded(plot.x, x_extent(plot), 0.09, 0.12);
  // A linear axis begins where the curve does; a logarithmic one leaves room for half the first marker.
  QCPRange range = padded(plot.x, x_extent(plot), plot.x.scale == Scale::linear ? 0 : 0.02, 0.015);
  // Curves begin at step 1; their axis at 0.
  if (plot.x.scale == Scale::linear && !plot.x.limits && range.lower > 0 && range.lower < 0.12 * range.upper)
    range.lower = 0;
  return range;
}

QCPRange fitted_y_range(const PlotDescription& plot) {
  if (plot.heat_map) return {plot.heat_map->y0, plot.heat_map->y1};
  if (!plot.bars.empty()) return {-0.6, static_cast<double>(plot.bars.size()) - 0.4};
  return only_points(plot) ? padded(plot.y, y_extent(plot), 0.12, 0.12) : padded(plot.y, y_extent(plot), 0.04, 0.06);
}

}  // namespace rat::app
