#include "app/figure/doctor.h"

#include <algorithm>
#include <cmath>

#include "app/figure/render.h"
#include "views/plots/exporters.h"
#include "views/plots/venues.h"

namespace rat::app {
namespace {

constexpr double smallest_text_pt = 6;
constexpr double distinct_lightness = 12;  // CIE L*, of 100: clearly different greys side by side

double lightness(const Color& color) {
  const auto linear = [](uint8_t v) {
    const double c = v / 255.0;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  const double y = 0.2126 * linear(color.r) + 0.7152 * linear(color.g) + 0.0722 * linear(color.b);
  return y > 0.008856 ? 116 * std::cbrt(y) - 16 : 903.3 * y;
}

// Pairs of named series that print as the same grey with the same dash and marker.
std::string confusable(const PlotDescription& plot) {
  const Theme& paper = theme(ThemeKind::paper);
  for (std::size_t a = 0; a < plot.series.size(); ++a)
    for (std::size_t b = a + 1; b < plot.series.size(); ++b) {
      const Series &p = plot.series[a], &q = plot.series[b];
      if (p.name.empty() || q.name.empty() || p.line != q.line) continue;
      const double difference = std::abs(lightness(paper.series[static_cast<std::size_t>(p.color) % 8]) -
                                         lightness(paper.series[static_cast<std::size_t>(q.color) % 8]));
      const bool same_shape = p.marker == q.marker && (!p.line || p.dash == q.dash);
      if (same_shape && difference < distinct_lightness) return fmt::format("'{}' and '{}'", p.name, q.name);
    }
  return "";
}

void add(std::vector<Finding>& findings, bool good, std::string text) {
  findings.push_back(Finding{good, std::move(text)});
}

void examine_size(const Recipe& recipe, std::vector<Finding>& findings) {
  const auto venue = find_venue(recipe.venue);
  const auto size = figure_size(recipe);
  if (!venue || !size) {
    add(findings, false, !venue ? venue.error().message : size.error().message);
    return;
  }
  const double wanted = recipe.full_width ? venue->full_in : venue->column_in;
  const double width = size->width_pt / 72.0;
  // Less than a point narrower is the rounding to whole points.
  const bool fits = width <= wanted + 1e-9 && wanted - width < 1.0 / 72 + 1e-9;
  add(findings, fits,
      fits ? fmt::format("{:.2f} in wide, as {} has it: include it without scaling.", width, venue->name)
           : fmt::format("{:.2f} in wide, but {} has {:.2f} in: LaTeX would scale the text.", width, venue->name,
                         wanted));
  const double smallest = std::min(venue->label_pt, venue->tick_pt);
  const bool readable = smallest >= smallest_text_pt;
  add(findings, readable,
      fmt::format("Smallest text {:g} pt (at least {:g} pt{}).", smallest, smallest_text_pt,
                  readable ? "" : " is wanted"));
}

void examine_fonts(std::vector<Finding>& findings) {
  const FigureFont font = figure_font();
  const std::string family = font.family.toStdString();
  if (font.preferred)
    add(findings, true, fmt::format("{}, embedded as TrueType: no Type 3 font.", family));
  else
    add(findings, false,
        fmt::format("Liberation Serif is not installed (package fonts-liberation); {} is used instead.", family));
}

void examine_colors(const PlotDescription& plot, std::vector<Finding>& findings) {
  if (plot.heat_map) {
    const bool monotone = plot.heat_map->map != ColorMap::diverging;
    add(findings, monotone,
        monotone ? fmt::format("{} is readable in grey and by colour-blind readers; the colour bar is drawn.",
                               color_map_name(plot.heat_map->map))
                 : "The diverging map prints both signs as the same grey: say so, or use viridis.");
    return;
  }
  if (plot.series.size() < 2) return;
  const std::string pair = confusable(plot);
  add(findings, pair.empty(),
      pair.empty() ? "Series differ by dash or marker, not by colour alone."
                   : fmt::format("{} look the same in grey: give the runs other colours, or show fewer.", pair));
  const auto lines =
      std::count_if(plot.series.begin(), plot.series.end(), [](const Series& s) { return s.line && !s.name.empty(); });
  if (lines > 8) add(findings, false, fmt::format("{} lines: more than eight cannot be told apart.", lines));
}

}  // namespace

std::vector<Finding> examine_figure(const PlotDescription& plot, const Recipe& recipe) {
  std::vector<Finding> findings;
  examine_size(recipe, findings);
  examine_fonts(findings);
  examine_colors(plot, findings);
  if (recipe.kind == FigureKind::curves && recipe.smoothing > 0)
    add(findings, true, "Smoothed: the caption below says how, the CSV has both values.");
  if (recipe.kind == FigureKind::curves && !recipe.collapse_seeds && recipe.runs.size() == 1)
    add(findings, false, "One run (n = 1): a reader cannot see the spread over seeds.");
  if (plot.note.find("n = 1 seed") != std::string::npos)
    add(findings, false, "One seed a point (n = 1): no intervals can be drawn.");
  for (const std::string& warning : plot.warnings) add(findings, false, warning + ".");
  return findings;
}

std::string caption_of(const PlotDescription& plot) {
  std::string text = plot.title;
  if (!text.empty()) text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0]))), text += ". ";
  text += plot.note;
  return text;
}

}  // namespace rat::app
