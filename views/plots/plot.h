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
  double opacity = 1.0;
  bool band = false;  // y_low .. y_high as a filled band instead of error bars
  bool line = true;
  std::vector<double> x, y;
  std::vector<double> y_low, y_high;  // empty or as long as y: interval
  std::vector<double> x_low, x_high;
  std::vector<double> raw;              // empty, or as long as y: the values before smoothing, drawn faint behind
  std::vector<int64_t> count;           // empty, or as long as y: how many runs each point is the mean of
  std::vector<double> bad_x;            // where the metric was NaN or infinite: marked on the lower edge
  std::vector<double> size;             // empty, or marker diameter in points
  std::vector<std::string> labels;      // empty, or a label for each point
  std::vector<std::string> point_runs;  // empty, or the run behind each point (click opens it)
  std::vector<std::vector<std::string>> point_seeds;  // empty, or all runs that each point is the mean of
  std::vector<std::string> details;     // empty, or what the read-out strip says of each point
};

// A matrix drawn as one lossless image, one pixel a cell. NaN cells are masked: they take the background.
struct HeatMap {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;  // (rows, cols); row 0 at the top
  ColorMap map = ColorMap::viridis;
  bool log_color = false;
  bool gamma_color = false;               // colours follow the square root of the linear position
  float low = 0, high = 1;                // range of the colour bar; for log_color low > 0
  std::string value_label;                // "attention weight"
  double x0 = 0, x1 = 1, y0 = 0, y1 = 1;  // data coordinates of the outer edges; row 0 lies at y0, drawn at the top
  std::vector<double> column_lines, row_lines;  // chunk boundaries, data coordinates
  // What each row and column is in the CSV ("token 12", "chunk 3"); an empty column name is a gap or a repetition.
  std::vector<std::string> row_names, column_names;
  std::string corner_name;                                    // heading of the row names in the CSV: "token"
  std::vector<std::pair<double, std::string>> column_labels;  // extra tick labels on the x axis: the own state
  std::vector<std::pair<double, std::string>> row_labels;     // named rows: all ticks of y, and x has only its labels
};

struct Bar {
  std::string name;
  double value = 0, low = 0, high = 0;  // low == high == value: no interval
  int color = 0;
  std::string run_id;  // empty: derived
};

struct PlotDescription {
  std::string title;  // on screen only; papers have captions
  std::string note;   // what this is: "train, f32, batch 16, T 512, EMA s=0.93 (half-life 9.6 steps), n = 1"
  Axis x, y;
  std::vector<Series> series;
  std::optional<HeatMap> heat_map;
  std::vector<Bar> bars;              // horizontal bars, the first at the top; x is the value axis
  std::vector<std::string> warnings;  // "3 values <= 0 not drawn on the log axis"
  std::vector<std::string> run_ids;   // pedigree
};

}  // namespace rat
