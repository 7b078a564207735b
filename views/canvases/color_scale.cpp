#include "views/canvases/color_scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "views/canvases/ticks.h"

namespace rat::views {

float ColorScale::position(float value) const {
  float t = 0;
  if (kind == ScaleKind::log) {
    if (!(value > 0) || !(high > low) || !(low > 0)) return 0;
    t = std::log2(value / low) / std::log2(high / low);
  } else {
    if (!(high > low)) return 0;
    t = (value - low) / (high - low);
    if (kind == ScaleKind::gamma) t = std::sqrt(std::max(t, 0.0f));
  }
  return std::clamp(t, 0.0f, 1.0f);
}

float ColorScale::value_at(float t) const {
  if (kind == ScaleKind::log && low > 0 && high > low) return low * std::pow(high / low, t);
  return low + (high - low) * (kind == ScaleKind::gamma ? t * t : t);
}

uint32_t packed(Color c) { return uint32_t{c.r} | uint32_t{c.g} << 8 | uint32_t{c.b} << 16 | 0xff000000u; }

std::array<uint32_t, 256> color_table(ColorMap map) {
  std::array<uint32_t, 256> table;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = packed(color_at(map, static_cast<float>(i) / 255.0f));
  return table;
}

std::vector<ScaleTick> scale_ticks(const ColorScale& scale, int most) {
  std::vector<ScaleTick> ticks;
  if (!(scale.high > scale.low)) return {{0, fmt::format("{:.3g}", scale.low)}};
  const bool log = scale.kind == ScaleKind::log;
  const std::vector<double> values =
      log ? log_ticks(scale.low, scale.high, std::max(most - 2, 1)) : linear_ticks(scale.low, scale.high, most);
  // The ends always carry their number; inner ticks too close to an end give way.
  const float gap = 0.7f / static_cast<float>(std::max(most, 1));
  ticks.push_back({0, (log ? "\xe2\x89\xa4 " : "") + fmt::format("{:.3g}", scale.low)});
  for (const double value : values) {
    const float t = scale.position(static_cast<float>(value));
    const bool crowded = t < gap || t > 1 - gap || std::fabs(t - ticks.back().position) < gap;
    if (!crowded) ticks.push_back({t, fmt::format("{:.3g}", value)});
  }
  ticks.push_back({1, fmt::format("{:.3g}", scale.high)});
  return ticks;
}

}  // namespace rat::views
