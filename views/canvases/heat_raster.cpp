#include "views/canvases/heat_raster.h"

#include <algorithm>
#include <cmath>

namespace rat::views {
namespace {

struct CellRange {
  int64_t begin = 0, end = 0;  // empty: outside the matrix
  bool operator==(const CellRange&) const = default;
};

// The cells that each of `pixels` pixels covers between the data coordinates a and b.
std::vector<CellRange> cell_ranges(double a, double b, int pixels, int64_t cells) {
  std::vector<CellRange> ranges(static_cast<std::size_t>(pixels));
  const double per_pixel = (b - a) / pixels;
  for (int i = 0; i < pixels; ++i) {
    double from = a + i * per_pixel, to = from + per_pixel;
    if (per_pixel <= 1) from = to = (from + to) / 2;  // magnified: the cell under the pixel's centre
    if (to < 0 || from >= static_cast<double>(cells)) continue;
    const auto begin = std::max<int64_t>(0, static_cast<int64_t>(std::floor(from)));
    const auto end = std::min(cells, per_pixel <= 1 ? begin + 1 : static_cast<int64_t>(std::ceil(to)));
    ranges[static_cast<std::size_t>(i)] = {begin, std::max(end, begin)};
  }
  return ranges;
}

// Positions of values in the colour table; a log scale pays one logarithm a pixel, not a cell.
struct Painter {
  std::array<uint32_t, 256> table;
  ColorScale scale;
  uint32_t background, alarm;
  bool masked;

  uint32_t operator()(float value, int x, int y) const {
    if (std::isnan(value)) return masked || ((x + y) / 3) % 2 == 0 ? background : alarm;
    return table[static_cast<std::size_t>(scale.position(value) * 255.0f + 0.5f)];
  }
};

}  // namespace

Raster rasterise(const MatrixPyramid& matrix, const Window& window, int width, int height, const ColorScale& scale,
                 Color background, Color alarm) {
  Raster raster;
  raster.width = std::clamp(width, 1, 8192), raster.height = std::clamp(height, 1, 8192);
  const uint32_t empty = packed(background);
  raster.pixels.assign(static_cast<std::size_t>(raster.width) * static_cast<std::size_t>(raster.height), empty);
  raster.cells_per_pixel_x = std::max(1.0, (window.x1 - window.x0) / raster.width);
  raster.cells_per_pixel_y = std::max(1.0, (window.y1 - window.y0) / raster.height);
  if (matrix.rows() == 0 || matrix.cols() == 0) return raster;

  const auto columns = cell_ranges(window.x0, window.x1, raster.width, matrix.cols());
  const auto rows = cell_ranges(window.y0, window.y1, raster.height, matrix.rows());
  int64_t first = matrix.cols(), last = 0;
  for (const CellRange& range : columns)
    if (range.end > range.begin) first = std::min(first, range.begin), last = std::max(last, range.end);
  if (first >= last) return raster;

  const Painter paint{color_table(scale.map), scale, empty, packed(alarm), matrix.kind() == CellKind::masked};
  std::vector<float> merged(static_cast<std::size_t>(last - first));
  CellRange done{-1, -1};
  for (int y = 0; y < raster.height; ++y) {
    const CellRange range = rows[static_cast<std::size_t>(y)];
    if (range.end <= range.begin) continue;
    if (range != done) {
      matrix.merge_rows(range.begin, range.end, first, merged);
      done = range;
    } else if (matrix.kind() == CellKind::masked) {  // no hatch: the line above is the same
      std::copy_n(&raster.pixels[static_cast<std::size_t>(y - 1) * static_cast<std::size_t>(raster.width)],
                  raster.width, &raster.pixels[static_cast<std::size_t>(y) * static_cast<std::size_t>(raster.width)]);
      continue;
    }
    uint32_t* out = &raster.pixels[static_cast<std::size_t>(y) * static_cast<std::size_t>(raster.width)];
    CellRange before{-1, -1};
    float value = 0;
    for (int x = 0; x < raster.width; ++x) {
      const CellRange cells = columns[static_cast<std::size_t>(x)];
      if (cells.end <= cells.begin) continue;
      if (cells != before) {
        value =
            matrix.merge({merged.data() + (cells.begin - first), static_cast<std::size_t>(cells.end - cells.begin)});
        before = cells;
      } else if (!std::isnan(value)) {
        out[x] = out[x - 1];
        continue;
      }
      out[x] = paint(value, x, y);
    }
  }
  return raster;
}

}  // namespace rat::views
