// CSV (RFC 4180) of exactly what is drawn.
#include <cmath>

#include "views/plots/exporters.h"

namespace rat {
namespace {

constexpr std::string_view end_of_row = "\r\n";

std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

// The shortest text that reads back to the same bits.
template <class Number>
std::string number(Number value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return fmt::format("{}", value);
}

template <class T>
std::string cell(const std::vector<T>& column, std::size_t i) {
  return i < column.size() ? number(column[i]) : "";
}

void add_series(const Series& series, std::size_t index, std::string& out) {
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const std::string run = i < series.point_runs.size() ? series.point_runs[i] : series.run_id;
    out += fmt::format("{},{},{},{},", index, quoted(series.name), quoted(run),
                       i < series.labels.size() ? quoted(series.labels[i]) : "");
    out += fmt::format("{},{},{},{},{},{},{},", number(series.x[i]), number(series.y[i]), cell(series.raw, i),
                       cell(series.y_low, i), cell(series.y_high, i), cell(series.x_low, i), cell(series.x_high, i));
    const std::string count = i < series.count.size() ? fmt::format("{}", series.count[i])
                              : series.run_id.empty() ? ""
                                                      : "1";
    out += fmt::format("{},{}", count, cell(series.size, i));
    out += end_of_row;
  }
  for (const double x : series.bad_x) {
    out += fmt::format("{},{},{},,{},nan,,,,,,,", index, quoted(series.name), quoted(series.run_id), number(x));
    out += end_of_row;
  }
}

std::string series_csv(const PlotDescription& plot) {
  std::string out("series,name,run_id,label,x,y,raw,y_low,y_high,x_low,x_high,n,size_pt");
  out += end_of_row;
  for (std::size_t s = 0; s < plot.series.size(); ++s) add_series(plot.series[s], s, out);
  return out;
}

std::string bars_csv(const PlotDescription& plot) {
  std::string out("bar,name,run_id,value,low,high");
  out += end_of_row;
  for (std::size_t b = 0; b < plot.bars.size(); ++b) {
    const Bar& bar = plot.bars[b];
    out += fmt::format("{},{},{},{},{},{}", b, quoted(bar.name), quoted(bar.run_id), number(bar.value), number(bar.low),
                       number(bar.high));
    out += end_of_row;
  }
  return out;
}

std::string map_csv(const HeatMap& map) {
  std::string out = quoted(map.corner_name);
  for (const std::string& name : map.column_names)
    if (!name.empty()) out.append(",").append(quoted(name));
  out += end_of_row;
  for (int64_t r = 0; r < map.rows; ++r) {
    out += quoted(map.row_names[static_cast<std::size_t>(r)]);
    for (int64_t c = 0; c < map.cols; ++c) {
      if (map.column_names[static_cast<std::size_t>(c)].empty()) continue;
      const float value = map.values[static_cast<std::size_t>(r * map.cols + c)];
      out += ',';
      if (!std::isnan(value)) out += number(value);
    }
    out += end_of_row;
  }
  return out;
}

}  // namespace

std::string to_csv(const PlotDescription& plot) {
  if (plot.heat_map) return map_csv(*plot.heat_map);
  if (!plot.bars.empty()) return bars_csv(plot);
  return series_csv(plot);
}

}  // namespace rat
