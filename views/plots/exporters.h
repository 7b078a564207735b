// The export formats that need no window. app/figure/exporters.h adds pdf, svg and png to this list. A format is added
// by a file and a line in one of the two lists.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "views/plots/plot.h"
#include "views/plots/recipe.h"

namespace rat {

struct Exporter {
  std::string_view id;           // also the file's extension
  std::string_view description;  // one line for the dialog and `rat figure --help`
  // Writes the figure atomically. May write companions beside it (tikz: its table or its picture).
  Status (*write)(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path) = nullptr;
};

std::span<const Exporter> data_exporters();
Result<const Exporter*> find_exporter(std::span<const Exporter> list, std::string_view id);  // lists the known ones

// What is drawn, as text. Lines: one row a point; maps: one row a map row, masked cells empty.
std::string to_csv(const PlotDescription& plot);
// pgfplots source that reads `csv_name` (to_pgf_table) or `map_name` (the heat map's PNG) from its own folder.
Result<std::string> to_tikz(const PlotDescription& plot, const Recipe& recipe, std::string_view csv_name,
                            std::string_view map_name);
// The numbers of the lines for pgfplots: columns s0_x, s0_y, ... of series 0, padded with nan.
// Points and bars are in the source itself.
std::string to_pgf_table(const PlotDescription& plot);

// Width and height in whole points.
struct FigureSize {
  int width_pt = 0, height_pt = 0;
};
Result<FigureSize> figure_size(const Recipe& recipe);

}  // namespace rat
