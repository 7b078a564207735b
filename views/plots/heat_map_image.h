// A heat map as pixels: 256 colours, index 0 for masked cells. Screen, PDF, PNG and pgfplots use these same pixels.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "views/plots/plot.h"

namespace rat {

struct IndexedImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;       // (height, width), row 0 at the top
  std::array<Color, 256> palette{};  // [0]: masked
};

// Which colour (0 to 1) a colour bar has at `share` of its length; not the same where the scale is a gamma.
float color_position_on_bar(const HeatMap& map, float share);
// The colour (0 to 1) of a value, 0 at its lower end; NaN stays NaN, values outside are clamped.
float color_position(const HeatMap& map, float value);

IndexedImage heat_map_image(const HeatMap& map, Color masked);

// The whole file. Not compressed: it is for TeX, and readable by everything.
std::string to_png(const IndexedImage& image);

}  // namespace rat
