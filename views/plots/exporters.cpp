#include "views/plots/exporters.h"

#include <array>
#include <cmath>

#include "core/io/safetensors.h"
#include "views/plots/heat_map_image.h"
#include "views/plots/venues.h"

namespace rat {
namespace {

Status write_csv(const PlotDescription& plot, const Recipe&, const std::filesystem::path& path) {
  return write_file_atomically(path, to_csv(plot));
}

Status write_recipe(const PlotDescription&, const Recipe& recipe, const std::filesystem::path& path) {
  return write_file_atomically(path, to_json(recipe));
}

// figure.tikz reads figure-pgf.csv; a heat map reads figure-map.png; points and bars are in the source.
Status write_tikz(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path) {
  const std::filesystem::path stem = path.parent_path() / path.stem();
  const std::filesystem::path table = stem.string() + "-pgf.csv", map = stem.string() + "-map.png";
  RAT_ASSIGN(const std::string source, to_tikz(plot, recipe, table.filename().string(), map.filename().string()));
  if (!plot.series.empty()) RAT_TRY(write_file_atomically(table, to_pgf_table(plot)));
  if (plot.heat_map)
    RAT_TRY(write_file_atomically(map, to_png(heat_map_image(*plot.heat_map, theme(ThemeKind::paper).background))));
  return write_file_atomically(path, source);
}

constexpr std::array<Exporter, 3> all{{
    {"csv", "exactly the numbers that are drawn", write_csv},
    {"tikz", "pgfplots source for LaTeX, with the table it reads", write_tikz},
    {"json", "the recipe: rebuilds the figure", write_recipe},
}};

}  // namespace

std::span<const Exporter> data_exporters() { return all; }

Result<const Exporter*> find_exporter(std::span<const Exporter> list, std::string_view id) {
  std::string known;
  for (const Exporter& exporter : list) {
    if (exporter.id == id) return &exporter;
    known += (known.empty() ? "" : ", ") + std::string(exporter.id);
  }
  return fail(ErrorCode::unsupported, "There is no figure format '{}'; known are {}.", id, known);
}

Result<FigureSize> figure_size(const Recipe& recipe) {
  RAT_ASSIGN(const Venue venue, find_venue(recipe.venue));
  const double width = recipe.width_in > 0 ? recipe.width_in : recipe.full_width ? venue.full_in : venue.column_in;
  const double height = recipe.height_in > 0 ? recipe.height_in : width * 0.618;
  // Down, never up: a figure a fraction of a point too wide is an overfull box.
  const FigureSize size{static_cast<int>(std::floor(width * 72 + 1e-6)), static_cast<int>(std::lround(height * 72))};
  if (size.width_pt < 72 || size.height_pt < 54)
    return fail(ErrorCode::invalid_argument,
                "A figure of {:.2f} x {:.2f} in leaves no room to draw; use at least 1 x 0.75 in.", width, height);
  return size;
}

}  // namespace rat
