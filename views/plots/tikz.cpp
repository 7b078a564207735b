// pgfplots source. The numbers are in a CSV of their own beside it, one group of columns a series (pgfplots cannot read
// quoted text cells); a heat map is one PNG.
#include <algorithm>
#include <cmath>

#include "views/plots/exporters.h"
#include "views/plots/heat_map_image.h"
#include "views/plots/venues.h"

namespace rat {
namespace {

std::string tex(const std::string& text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (std::string_view("_%&#${}").find(c) != std::string_view::npos)
      out += std::string("\\") + c;
    else if (c == '\\')
      out += "\\textbackslash{}";
    else if (c == '^' || c == '~')
      out += std::string("\\") + c + "{}";
    else if (c == '<' || c == '>')
      out += std::string("$") + c + "$";
    else if (text.compare(i, 2, "·") == 0)
      out += "$\\cdot$", ++i;
    else if (text.compare(i, 2, "±") == 0)
      out += "$\\pm$", ++i;
    else
      out += c;
  }
  return out;
}

// A label for the reader of the file, on one comment line.
std::string comment(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::string color_of(int index) { return fmt::format("ratcolor{}", index % 8); }

std::string_view dash_style(Dash dash) {
  switch (dash) {
    case Dash::solid:
      return "solid";
    case Dash::dashed:
      return "dashed";
    case Dash::dotted:
      return "densely dotted";
    case Dash::dash_dot:
      return "dashdotted";
  }
  return "solid";
}

std::string_view mark_style(Marker marker) {
  switch (marker) {
    case Marker::none:
      return "none";
    case Marker::circle:
      return "*";
    case Marker::square:
      return "square*";
    case Marker::triangle:
      return "triangle*";
    case Marker::diamond:
      return "diamond*";
    case Marker::cross:
      return "x";
    case Marker::plus:
      return "+";
  }
  return "none";
}

// Below two decades pgfplots would label 10^3.1, 10^3.2, ...: ticks at 1, 2, 5, 10 instead.
std::string decade_ticks(char letter, double low, double high) {
  std::string ticks, labels;
  if (!(low > 0) || !(high > low) || high / low >= 100) return "";
  for (int k = static_cast<int>(std::floor(std::log10(low))); k <= std::log10(high); ++k)
    for (const int m : {1, 2, 5}) {
      const double tick = m * std::pow(10, k);
      if (tick < low || tick > high) continue;
      ticks += fmt::format("{}{}", ticks.empty() ? "" : ",", tick);
      labels += fmt::format("{}{{{}}}", labels.empty() ? "" : ",",
                            tick < 1000 ? fmt::format("{}", tick) : fmt::format("{}\\,k", tick / 1000));
    }
  return fmt::format("  {0}tick={{{1}}}, {0}ticklabels={{{2}}},\n", letter, ticks, labels);
}

// "xmode=log, log basis x=2, ..." for one axis, whose data lie between low and high.
std::string axis_options(const Axis& axis, char letter, double low, double high) {
  std::string out = fmt::format("  {}label={{{}}},\n", letter, tex(axis.label));
  if (axis.scale == Scale::log10 || axis.scale == Scale::log2)
    out += fmt::format("  {0}mode=log, log basis {0}={1},\n", letter, axis.scale == Scale::log2 ? 2 : 10);
  if (axis.scale == Scale::log10)
    out += axis.limits ? decade_ticks(letter, axis.limits->first, axis.limits->second)
                       : decade_ticks(letter, low / 1.3, high * 1.3);
  if (axis.limits) out += fmt::format("  {0}min={1}, {0}max={2},\n", letter, axis.limits->first, axis.limits->second);
  return out;
}

// Points of different sizes, one by one: pgfplots has no column for the marker size.
void add_points(const Series& series, std::string& out) {
  const std::string look = fmt::format("{0}, only marks, mark={1}, mark options={{fill={0}}}", color_of(series.color),
                                       mark_style(series.marker));
  const auto reach = [](const std::vector<double>& end, double at, std::size_t i) {
    return i < end.size() ? std::abs(end[i] - at) : 0.0;
  };
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const double x = series.x[i], y = series.y[i], diameter = i < series.size.size() ? series.size[i] : 5;
    out += fmt::format(
        "\\addplot[{}, mark size={}pt, forget plot, error bars/.cd, x dir=both, x explicit, y dir=both, y explicit] "
        "coordinates "
        "{{({},{}) += ({},{}) -= ({},{})}};\n",
        look, diameter / 2, x, y, reach(series.x_high, x, i), reach(series.y_high, y, i), reach(series.x_low, x, i),
        reach(series.y_low, y, i));
    if (i < series.labels.size() && !series.labels[i].empty())
      out += fmt::format("\\node[anchor=west, xshift={}pt, font=\\ratticks] at (axis cs:{},{}) {{{}}};\n",
                         diameter / 2 + 1, x, y, tex(series.labels[i]));
  }
  if (!series.name.empty())
    out += fmt::format("\\addlegendimage{{{}}}\n\\addlegendentry{{{}}}\n", look, tex(series.name));
}

// One pass over the columns of a series that the picture uses.
void add_line(const Series& series, std::size_t k, std::string_view csv, std::string& out) {
  const std::string color = color_of(series.color);
  const auto table = [&](std::string_view y) {
    return fmt::format("table[col sep=comma, x=s{0}_x, y=s{0}_{1}] {{{2}}};\n", k, y, csv);
  };
  if (!series.raw.empty())
    out += fmt::format("\\addplot[{}, opacity=0.25, line width=0.4pt, forget plot] ", color) + table("raw");
  const bool band = series.band && !series.y_low.empty();
  if (band) {
    out += fmt::format("\\addplot[draw=none, forget plot, name path=low{}] ", k) + table("low");
    out += fmt::format("\\addplot[draw=none, forget plot, name path=high{}] ", k) + table("high");
    out += fmt::format("\\addplot[{}, opacity=0.15, forget plot] fill between[of=low{} and high{}];\n", color, k, k);
  }
  std::string style =
      color + ", line width=0.9pt, mark=" + std::string(mark_style(series.marker)) + ", mark options={solid}, ";
  style += dash_style(series.dash);
  if (series.marker != Marker::none)
    style += fmt::format(", mark repeat={}, mark size=1.6pt", std::max<std::size_t>(1, series.x.size() / 10));
  if (series.name.empty()) style += ", forget plot";
  out += fmt::format("\\addplot[{}] ", style) + table("y");
  if (!series.name.empty()) out += fmt::format("\\addlegendentry{{{}}}\n", tex(series.name));
}

void add_bars(const PlotDescription& plot, std::string& options, std::string& out) {
  std::string ticks, names;
  for (std::size_t b = 0; b < plot.bars.size(); ++b) {
    const Bar& bar = plot.bars[b];
    ticks += fmt::format("{}{}", b ? "," : "", b);
    names += fmt::format("{}{{{}}}", b ? "," : "", tex(bar.name));
    out += fmt::format(
        "\\addplot[xbar, bar shift=0pt, bar width=5pt, draw=none, fill={}, error bars/.cd, x dir=both, x explicit] "
        "coordinates "
        "{{({},{}) += ({},0) -= ({},0)}};\n",
        color_of(bar.color), bar.value, b, bar.high - bar.value, bar.value - bar.low);
  }
  options += fmt::format("  xmin=0, y dir=reverse, ytick={{{}}}, yticklabels={{{}}}, enlarge y limits={{abs=0.6}},\n",
                         ticks, names);
}

// Rows run downwards by counting y negatively: `y dir=reverse` would turn the picture over.
void add_map(const HeatMap& map, std::string_view file, std::string& options, std::string& out) {
  options += fmt::format("  xmin={}, xmax={}, ymin={}, ymax={}, axis on top, enlargelimits=false,\n", map.x0, map.x1,
                         -map.y1, -map.y0);
  const auto names_only = [&options](char axis, int sign, const std::vector<std::pair<double, std::string>>& labels) {
    std::vector<std::string> at, names;
    for (const auto& [position, name] : labels)
      at.push_back(fmt::format("{}", sign * position)), names.push_back("{" + tex(name) + "}");
    options +=
        fmt::format("  {0}tick={{{1}}}, {0}ticklabels={{{2}}},\n", axis, fmt::join(at, ","), fmt::join(names, ","));
  };
  if (!map.row_labels.empty()) {
    names_only('x', 1, map.column_labels);
    names_only('y', -1, map.row_labels);
  } else {
    options += "  yticklabel={\\pgfmathparse{-\\tick}\\pgfmathprintnumber{\\pgfmathresult}},\n";
  }
  if (map.row_labels.empty() && !map.column_labels.empty()) {
    // Chunk numbers stop before the own state's name.
    const double end = map.column_labels.front().first - 0.08 * (map.x1 - map.x0);
    double step = std::pow(10, std::floor(std::log10(std::max(1.0, (map.x1 - map.x0) / 3))));
    if ((map.x1 - map.x0) / step < 5) step = std::max(1.0, step / 2);
    options += "  xtick={";
    for (double tick = std::ceil(map.x0 / step) * step, first = tick; tick <= end; tick += step)
      options += fmt::format("{}{}", tick > first ? "," : "", tick);
    options += "},\n  extra x ticks={";
    for (std::size_t i = 0; i < map.column_labels.size(); ++i)
      options += fmt::format("{}{}", i ? "," : "", map.column_labels[i].first);
    options += "}, extra x tick labels={";
    for (std::size_t i = 0; i < map.column_labels.size(); ++i)
      options += fmt::format("{}{{{}}}", i ? "," : "", tex(map.column_labels[i].second));
    options += "},\n";
  }
  std::string stops;
  for (int i = 0; i <= 16; ++i) {
    const Color c = color_at(map.map, color_position_on_bar(map, static_cast<float>(i) / 16.0f));
    stops += fmt::format(" rgb255=({},{},{})", c.r, c.g, c.b);
  }
  const auto meta = [&map](float value) { return map.log_color ? std::log10(value) : value; };
  options += fmt::format("  colormap={{ratmap}}{{{}}}, colorbar, point meta min={}, point meta max={},\n", stops,
                         meta(map.low), meta(map.high));
  const std::string bar_ticks = map.log_color ? ", yticklabel={$10^{\\pgfmathprintnumber[precision=1]{\\tick}}$}" : "";
  options += fmt::format("  colorbar style={{ylabel={{{}}}{}, width=6pt}},\n", tex(map.value_label), bar_ticks);
  out += fmt::format("\\addplot graphics[xmin={}, xmax={}, ymin={}, ymax={}] {{{}}};\n", map.x0, map.x1, -map.y1,
                     -map.y0, file);
  for (const double x : map.column_lines)
    out += fmt::format("\\draw[white, opacity=0.6, line width=0.3pt] (axis cs:{},{}) -- (axis cs:{},{});\n", x, -map.y1,
                       x, -map.y0);
  for (const double y : map.row_lines)
    out += fmt::format("\\draw[white, opacity=0.6, line width=0.3pt] (axis cs:{},{}) -- (axis cs:{},{});\n", map.x0, -y,
                       map.x1, -y);
}

bool has_band(const PlotDescription& plot) {
  return std::any_of(plot.series.begin(), plot.series.end(),
                     [](const Series& s) { return s.band && !s.y_low.empty(); });
}

// Most lines end higher than they begin: then it is the left upper corner that is free.
bool rises(const PlotDescription& plot) {
  int up = 0;
  for (const Series& series : plot.series)
    if (series.line && !series.y.empty()) up += series.y.back() > series.y.front() ? 1 : -1;
  return up > 0;
}

// What pgfplots's `width` does not know of: it allows 45 pt for everything around the axis rectangle.
double unforeseen_pt(const PlotDescription& plot, const Venue& venue) {
  if (plot.heat_map) return 78;  // the colour bar with its labels
  std::size_t longest = 0;
  for (const Bar& bar : plot.bars) longest = std::max(longest, bar.name.size());
  return 18 + 0.5 * venue.tick_pt * static_cast<double>(longest);
}

std::string preamble(const PlotDescription& plot, const Venue& venue) {
  std::string out = "% Needs in the preamble: \\usepackage{pgfplots} \\pgfplotsset{compat=1.17}";
  if (has_band(plot)) out += " \\usepgfplotslibrary{fillbetween}";
  out += "\n% Then: \\input{this file}\n";
  if (!plot.note.empty()) out += "% " + comment(plot.note) + "\n";
  for (const std::string& warning : plot.warnings) out += "% " + comment(warning) + "\n";
  out += fmt::format("% runs: {}\n", fmt::join(plot.run_ids, " "));
  const Theme& paper = theme(ThemeKind::paper);
  for (std::size_t i = 0; i < paper.series.size(); ++i)
    out += fmt::format("\\definecolor{{ratcolor{}}}{{RGB}}{{{},{},{}}}\n", i, paper.series[i].r, paper.series[i].g,
                       paper.series[i].b);
  out += fmt::format("\\providecommand\\ratticks{{}}\\renewcommand\\ratticks{{\\fontsize{{{0}}}{{{1}}}\\selectfont}}\n",
                     venue.tick_pt, venue.tick_pt * 1.2);
  return out;
}

}  // namespace

Result<std::string> to_tikz(const PlotDescription& plot, const Recipe& recipe, std::string_view csv_name,
                            std::string_view map_name) {
  if (plot.x.scale == Scale::symlog || plot.y.scale == Scale::symlog)
    return fail(ErrorCode::unsupported,
                "pgfplots has no symmetric logarithmic axis; export PDF, or use a linear or log axis for pgfplots.");
  RAT_ASSIGN(const Venue venue, find_venue(recipe.venue));
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  std::string body;
  std::string options =
      fmt::format("  width={}bp, height={}bp,\n", size.width_pt - unforeseen_pt(plot, venue), size.height_pt);
  std::pair<double, double> x{INFINITY, -INFINITY}, y = x;
  for (const Series& series : plot.series)
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      x = {std::min(x.first, series.x[i]), std::max(x.second, series.x[i])};
      y = {std::min(y.first, series.y[i]), std::max(y.second, series.y[i])};
    }
  options += axis_options(plot.x, 'x', x.first, x.second);
  if (plot.bars.empty()) options += axis_options(plot.y, 'y', y.first, y.second);
  options += fmt::format(
      "  label style={{font=\\fontsize{{{}}}{{{}}}\\selectfont}}, tick label style={{font=\\ratticks, /pgf/number "
      "format/.cd, fixed, precision=6, 1000 sep={{\\,}}}}, scaled ticks=false,\n",
      venue.label_pt, venue.label_pt * 1.2);
  options += "  legend style={font=\\ratticks, draw=none, fill opacity=0.8, text opacity=1}, legend cell align=left,\n";
  const bool points = std::any_of(plot.series.begin(), plot.series.end(), [](const Series& one) { return !one.line; });
  if (points && recipe.legend == "inside")  // above: inside it could cover a point
    options += "  legend style={at={(0.5,1.02)}, anchor=south}, legend columns=3,\n";
  else if (rises(plot))
    options += "  legend pos=north west,\n";
  if (recipe.legend == "below") options += "  legend style={at={(0.5,-0.25)}, anchor=north}, legend columns=3,\n";
  options += "  unbounded coords=discard, filter discard warning=false,\n";
  if (plot.heat_map)
    add_map(*plot.heat_map, map_name, options, body);
  else if (!plot.bars.empty())
    add_bars(plot, options, body);
  for (std::size_t k = 0; k < plot.series.size(); ++k)
    plot.series[k].line ? add_line(plot.series[k], k, csv_name, body) : add_points(plot.series[k], body);
  if (recipe.legend == "none") body += "\\legend{}\n";
  return preamble(plot, venue) + "\\begin{tikzpicture}\n\\begin{axis}[\n" + options + "]\n" + body +
         "\\end{axis}\n\\end{tikzpicture}\n";
}

std::string to_pgf_table(const PlotDescription& plot) {
  std::string out;
  std::size_t rows = 0;
  std::vector<std::vector<double>> columns;
  const auto add = [&](std::size_t k, std::string_view name, std::vector<double> column) {
    out += fmt::format("{}s{}_{}", out.empty() ? "" : ",", k, name);
    rows = std::max(rows, column.size());
    columns.push_back(std::move(column));
  };
  for (std::size_t k = 0; k < plot.series.size(); ++k) {
    const Series& s = plot.series[k];
    if (!s.line) continue;
    add(k, "x", s.x);
    add(k, "y", s.y);
    if (!s.raw.empty()) add(k, "raw", s.raw);
    if (s.band && !s.y_low.empty()) add(k, "low", s.y_low), add(k, "high", s.y_high);
  }
  out += "\n";
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns.size(); ++c)
      out += fmt::format("{}{}", c ? "," : "", r < columns[c].size() ? columns[c][r] : std::nan(""));
    out += "\n";
  }
  return out;
}

}  // namespace rat
