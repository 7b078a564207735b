// The visible part of a matrix at screen resolution: one texel a pixel, so that any zoom costs the same.
#pragma once

#include <cstdint>
#include <vector>

#include "views/canvases/color_scale.h"
#include "views/canvases/matrix_pyramid.h"

namespace rat::views {

// Data coordinates: cell (r, c) covers [c, c+1) x [r, r+1).
struct Window {
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;
  bool operator==(const Window&) const = default;
};

struct Raster {
  int width = 0, height = 0;
  std::vector<uint32_t> pixels;                         // row 0 at the top
  double cells_per_pixel_x = 1, cells_per_pixel_y = 1;  // above 1: the pixel shows the extreme of that many
};

// Masked cells and everything outside the matrix take `background`; NaN of a signed matrix is hatched with `alarm`.
Raster rasterise(const MatrixPyramid& matrix, const Window& window, int width, int height, const ColorScale& scale,
                 Color background, Color alarm);

}  // namespace rat::views
