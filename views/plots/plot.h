// What a figure shows, without saying how it is drawn: the window, the exporters and the CSV all render this one
// description, so screen and paper cannot disagree in data, limits or colours.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "views/theme/color_map.h"
#include "views/theme/theme.h"

namespace rat {

enum class Scale { linear, log10, log2, symlog };
enum class Dash { solid, dashed, dotted, dash_dot };
enum class Marker { none, circle, square, triangle, diamond, cross, plus };

struct Axis {
  std::string label;  // with its unit: "loss, nats"
  Scale scale = Scale::linear;
  std::optional<std::pair<double, double>> limits;  // none: fit the data
};

struct Series {
  std::string name;    // legend; empty: not in the legend
  std::string run_id;  // where the numbers come from; empty: derived
  int color = 0;       // index into Theme::series
  Dash dash = Dash::solid;
  Marker marker = Marker::none;
  double opacity = 1.0;             // faint raw curve behind a smoothed one: 0.25
  bool line = true;
  std::vector<double> x, y;
  std::vector<double> y_low, y_high;  // empty or as long as y: interval
  std::vector<double> x_low, x_high;
  std::vector<double> size;           // empty, or marker diameter in points
  std::vector<std::string> labels;    // empty, or a label for each point
  std::vector<std::string> point_runs;  // empty, or the run behind each point (click opens it)
};

// A matrix drawn as one lossless image, one pixel a cell. NaN cells are masked: they take the background.
struct HeatMap {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;  // (rows, cols); row 0 at the top
  ColorMap map = ColorMap::viridis;
  bool log_color = false;
  float low = 0, high = 1;    // range of the colour bar; for log_color low > 0
  std::string value_label;    // "attention weight"
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;  // data coordinates of the outer edges
  std::vector<double> column_lines, row_lines;  // chunk boundaries, data coordinates
};

struct Bar {
  std::string name;
  double value = 0, low = 0, high = 0;  // low == high == value: no interval
  int color = 0;
};

struct PlotDescription {
  std::string title;  // on screen only; papers have captions
  std::string note;   // what this is: "train, f32, batch 16, T 512, EMA s=0.93 (half-life 9.6 steps), n = 1"
  Axis x, y;
  std::vector<Series> series;
  std::optional<HeatMap> heat_map;
  std::vector<Bar> bars;             // horizontal bars; x is the value axis
  std::vector<std::string> warnings; // "3 values <= 0 not drawn on the log axis"
  std::vector<std::string> run_ids;  // pedigree
};

}  // namespace rat
