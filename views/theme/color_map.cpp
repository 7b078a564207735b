#include "views/theme/color_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>

namespace rat {
namespace {

// Control points at equal distances, linear in sRGB between them; within 2/255 of the published 256-entry tables
// is not promised, monotone lightness (viridis, cividis, magma) is.
constexpr std::array<Color, 9> viridis{{{0x44, 0x01, 0x54}, {0x47, 0x2d, 0x7b}, {0x3b, 0x52, 0x8b}, {0x2c, 0x72, 0x8e}, {0x21, 0x91, 0x8c},
                                        {0x28, 0xae, 0x80}, {0x5e, 0xc9, 0x62}, {0xad, 0xdc, 0x30}, {0xfd, 0xe7, 0x25}}};
constexpr std::array<Color, 9> cividis{{{0x00, 0x22, 0x4e}, {0x12, 0x35, 0x70}, {0x3b, 0x49, 0x6c}, {0x57, 0x5d, 0x6d}, {0x70, 0x71, 0x73},
                                        {0x8a, 0x86, 0x78}, {0xa5, 0x9c, 0x74}, {0xc3, 0xb3, 0x69}, {0xfe, 0xe8, 0x38}}};
constexpr std::array<Color, 9> magma{{{0x00, 0x00, 0x04}, {0x1c, 0x10, 0x44}, {0x4f, 0x12, 0x7b}, {0x81, 0x25, 0x81}, {0xb5, 0x36, 0x7a},
                                      {0xe5, 0x50, 0x64}, {0xfb, 0x87, 0x61}, {0xfe, 0xc2, 0x87}, {0xfc, 0xfd, 0xbf}}};
constexpr std::array<Color, 9> diverging{{{0x05, 0x30, 0x61}, {0x2f, 0x79, 0xb5}, {0x75, 0xb2, 0xd4}, {0xc7, 0xe0, 0xed}, {0xf7, 0xf7, 0xf7},
                                          {0xfb, 0xd0, 0xb9}, {0xee, 0x92, 0x73}, {0xc1, 0x37, 0x3c}, {0x67, 0x00, 0x1f}}};

std::span<const Color, 9> table(ColorMap map) {
  switch (map) {
    case ColorMap::viridis: return viridis;
    case ColorMap::cividis: return cividis;
    case ColorMap::magma: return magma;
    case ColorMap::diverging: return diverging;
  }
  return viridis;
}

uint8_t mix(uint8_t a, uint8_t b, float t) {
  return static_cast<uint8_t>(std::lround(static_cast<float>(a) + (static_cast<float>(b) - static_cast<float>(a)) * t));
}

}  // namespace

std::string_view color_map_name(ColorMap map) {
  switch (map) {
    case ColorMap::viridis: return "viridis";
    case ColorMap::cividis: return "cividis";
    case ColorMap::magma: return "magma";
    case ColorMap::diverging: return "diverging";
  }
  return "viridis";
}

Color color_at(ColorMap map, float t) {
  const auto points = table(map);
  const float x = std::clamp(t, 0.0f, 1.0f) * static_cast<float>(points.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(x), points.size() - 2);
  const float f = x - static_cast<float>(i);
  const Color &a = points[i], &b = points[i + 1];
  return {mix(a.r, b.r, f), mix(a.g, b.g, f), mix(a.b, b.b, f)};
}

}  // namespace rat
