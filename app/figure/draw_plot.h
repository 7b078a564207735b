// Fills a QCustomPlot with a description. The window and the paper call this one function with different styles, so
// they cannot disagree in data, limits or colours.
#pragma once

#include <qcustomplot.h>

#include <optional>
#include <string>
#include <utility>

#include "views/plots/plot.h"
#include "views/theme/theme.h"

namespace rat::app {

enum class LegendPlace { none, inside, below };

struct DrawStyle {
  const Theme* colors = nullptr;
  QString family;
  double px = 1;  // units of the plot per point (1/72 in)
  double label_pt = 9, tick_pt = 7, line_pt = 0.9;
  LegendPlace legend = LegendPlace::inside;
  bool title = false;
  bool grid = false;
  bool frame = false;        // all four sides
  std::string selected_run;  // ringed point
};

using Limits = std::optional<std::pair<double, double>>;

// Replaces everything in `target`. Limits are in data coordinates; none fits the data.
void draw_plot(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style);

// The range an axis takes when nothing is typed; in axis coordinates (symlog is transformed).
QCPRange fitted_x_range(const PlotDescription& plot);
QCPRange fitted_y_range(const PlotDescription& plot);
// Data to axis coordinates: the identity except for symlog.
double x_to_axis(const PlotDescription& plot, double value);
double y_to_axis(const PlotDescription& plot, double value);

}  // namespace rat::app
