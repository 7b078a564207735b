// One definition of every colour and size; Qt's palette and style sheet, ImGui's style and the plots all read it.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace rat {

struct Color {
  uint8_t r = 0, g = 0, b = 0;
  std::string hex() const;  // "#rrggbb"
  bool operator==(const Color&) const = default;
};

enum class ThemeKind { dark, light, paper };  // paper: white, for exported figures

struct Theme {
  ThemeKind kind;
  Color background, pane, raised, hairline, text, secondary, accent, ok, warning;
  std::array<Color, 8> series;  // Okabe-Ito, those readable on this background first
};

const Theme& theme(ThemeKind kind);

// Sizes in logical pixels: 4 px grid.
inline constexpr int control_height = 28;
inline constexpr int grid_step = 4;
inline constexpr float ui_font_px = 13.0f;

}  // namespace rat
