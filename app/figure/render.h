// A plot description on paper: PDF, SVG or PNG at the venue's width, fonts and line widths at final size.
// Needs a QApplication; QT_QPA_PLATFORM=offscreen is enough.
#pragma once

#include <QImage>
#include <QSizeF>
#include <filesystem>
#include <string_view>

#include "views/plots/plot.h"
#include "views/plots/recipe.h"

class QPainter;

namespace rat::app {

// Whole points (1/72 in), from the recipe's width or its venue's; PDF media boxes are whole points.
Result<QSizeF> figure_size_pt(const Recipe& recipe);

// `format` is one of the exporters: pdf, svg, png, csv, tikz, json. Atomic: on failure an older file is intact.
Status render_figure(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path,
                     std::string_view format);

// The same drawing as an image, for the preview (dots per inch of the screen) and for PNG (300).
Result<QImage> figure_image(const PlotDescription& plot, const Recipe& recipe, double dpi);

// The face that figures are set in, and whether it is the one we want (Liberation Serif: Times metrics, TrueType).
struct FigureFont {
  QString family;
  bool preferred = false;
};
FigureFont figure_font();

}  // namespace rat::app
