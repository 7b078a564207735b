// Colour maps of the heat maps: values in [0, 1] to RGB. The same tables serve the screen and the figures.
#pragma once

#include <string_view>

#include "views/theme/theme.h"

namespace rat {

enum class ColorMap { viridis, cividis, magma, diverging };

std::string_view color_map_name(ColorMap map);
// `t` is clamped to [0, 1]; NaN is the caller's business (masked cells take the background colour).
Color color_at(ColorMap map, float t);

}  // namespace rat
