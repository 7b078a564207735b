#include "views/canvases/heat_raster.h"

#include <algorithm>
#include <array>
#include <bit>
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

// log2 within 0.01, which is a fraction of one of the table's 256 colours; several times faster than the exact one.
float fast_log2(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const float mantissa = static_cast<float>(bits & 0x7fffffu) * 0x1p-23f;
  return static_cast<float>(static_cast<int>(bits >> 23) - 127) + mantissa + 0.3437f * mantissa * (1 - mantissa);
}

// Values to colours, with everything that is the same for all pixels worked out once.
struct Painter {
  std::array<uint32_t, 256> table;
  ColorScale scale;
  uint32_t background, alarm;
  bool masked;
  float log_low, log_factor;

  Painter(const MatrixPyramid& matrix, const ColorScale& with, Color back, Color nan)
      : table(color_table(with.map)),
        scale(with),
        background(packed(back)),
        alarm(packed(nan)),
        masked(matrix.kind() == CellKind::masked),
        log_low(0),
        log_factor(0) {
    if (scale.kind != ScaleKind::log || !(scale.low > 0) || !(scale.high > scale.low)) return;
    log_low = fast_log2(scale.low);
    log_factor = 1 / (fast_log2(scale.high) - log_low);
  }

  float position(float value) const {
    if (scale.kind != ScaleKind::log) return scale.position(value);
    return value > scale.low ? std::min((fast_log2(value) - log_low) * log_factor, 1.0f) : 0.0f;
  }
  uint32_t operator()(float value, int x, int y) const {
    if (value != value) return masked || ((x + y) / 3) % 2 == 0 ? background : alarm;
    return table[static_cast<std::size_t>(position(value) * 255.0f + 0.5f)];
  }
};

template <class Merge>
void merge_columns(const std::vector<CellRange>& columns, int64_t first, const std::vector<float>& merged,
                   std::vector<float>& line, Merge merge) {
  for (std::size_t x = 0; x < columns.size(); ++x) {
    const CellRange cells = columns[x];
    if (cells.end <= cells.begin) continue;
    float value = merged[static_cast<std::size_t>(cells.begin - first)];
    for (int64_t c = cells.begin + 1; c < cells.end; ++c)
      value = merge(value, merged[static_cast<std::size_t>(c - first)]);
    line[x] = value;
  }
}

}  // namespace

Raster rasterise(const MatrixPyramid& matrix, const Window& window, int width, int height, const ColorScale& scale,
                 Color background, Color alarm) {
  Raster raster;
  raster.width = std::clamp(width, 1, 8192), raster.height = std::clamp(height, 1, 8192);
  raster.pixels.assign(static_cast<std::size_t>(raster.width) * static_cast<std::size_t>(raster.height),
                       packed(background));
  raster.cells_per_pixel_x = std::max(1.0, (window.x1 - window.x0) / raster.width);
  raster.cells_per_pixel_y = std::max(1.0, (window.y1 - window.y0) / raster.height);
  if (matrix.rows() == 0 || matrix.cols() == 0) return raster;

  const auto columns = cell_ranges(window.x0, window.x1, raster.width, matrix.cols());
  const auto rows = cell_ranges(window.y0, window.y1, raster.height, matrix.rows());
  int64_t first = matrix.cols(), last = 0;
  for (const CellRange& range : columns)
    if (range.end > range.begin) first = std::min(first, range.begin), last = std::max(last, range.end);
  if (first >= last) return raster;

  const Painter paint(matrix, scale, background, alarm);
  std::vector<float> merged(static_cast<std::size_t>(last - first)), line(static_cast<std::size_t>(raster.width));
  CellRange done{-1, -1};
  const auto pitch = static_cast<std::size_t>(raster.width);
  for (int y = 0; y < raster.height; ++y) {
    const CellRange range = rows[static_cast<std::size_t>(y)];
    if (range.end <= range.begin) continue;
    uint32_t* out = &raster.pixels[static_cast<std::size_t>(y) * pitch];
    if (range == done && paint.masked) {  // no hatch: the same as the line above
      std::copy_n(out - pitch, pitch, out);
      continue;
    }
    if (range != done) {
      matrix.merge_rows(range.begin, range.end, first, merged);
      if (paint.masked)
        merge_columns(columns, first, merged, line, merge_masked);
      else
        merge_columns(columns, first, merged, line, merge_signed);
      done = range;
    }
    for (int x = 0; x < raster.width; ++x) {
      const CellRange cells = columns[static_cast<std::size_t>(x)];
      if (cells.end > cells.begin) out[x] = paint(line[static_cast<std::size_t>(x)], x, y);
    }
  }
  return raster;
}

}  // namespace rat::views
