// From values to colours: range, linear / log / gamma, and the table of 256 colours the screen uses.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "views/theme/color_map.h"

namespace rat::views {

enum class ScaleKind { linear, log, gamma };  // gamma: square root, lifts small values

struct ColorScale {
  ColorMap map = ColorMap::viridis;
  ScaleKind kind = ScaleKind::linear;
  float low = 0, high = 1;  // log: low > 0; values below take the lowest colour

  float position(float value) const;  // 0 .. 1, clamped; the value must not be NaN
  float value_at(float position) const;
  bool operator==(const ColorScale&) const = default;
};

// The colour table as ImGui packs pixels (R in the lowest byte).
std::array<uint32_t, 256> color_table(ColorMap map);
uint32_t packed(Color color);

struct ScaleTick {
  float position;
  std::string label;
};
std::vector<ScaleTick> scale_ticks(const ColorScale& scale, int most);

}  // namespace rat::views
