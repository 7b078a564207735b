// Time or peak memory against sequence length: a line for each layer configuration that `rat bench` measured.
#include <algorithm>
#include <cmath>
#include <set>

#include "views/plots/build_parts.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

using Rows = std::vector<BenchRow>;

std::string where(const BenchRow& row) { return fmt::format("{} at T = {}", row.layers, row.seq_len); }

Result<Rows> rows_of_phase(const Recipe& recipe) {
  Rows rows;
  for (const BenchRow& row : recipe.bench)
    if (row.what == recipe.phase) rows.push_back(row);
  if (!rows.empty()) return rows;
  return fail(ErrorCode::not_found, "None of the {} measurements is of '{}'; measure it with `rat bench`{}",
              recipe.bench.size(), recipe.phase,
              recipe.bench.empty() ? "." : fmt::format(" or draw '{}'.", recipe.bench.front().what));
}

// One sentence when the rows differ in a setting that a reader of the figure must take to be the same for all.
template <class Get>
Status same(const Rows& rows, std::string_view setting, Get get) {
  for (const BenchRow& row : rows)
    if (get(row) != get(rows.front()))
      return fail(ErrorCode::invalid_argument,
                  "The measurements cannot be compared: {} is {} for {}, but {} for {}; draw them apart.", setting,
                  get(rows.front()), where(rows.front()), get(row), where(row));
  return ok();
}

int64_t tokens_of(const BenchRow& row) { return row.batch * row.seq_len; }

// The batch shrinks as T grows. (Of one length alone that cannot be told: it has a batch.)
bool same_tokens(const Rows& rows) {
  const auto all_as_first = [&rows](auto get) {
    return std::ranges::all_of(rows, [&](const BenchRow& row) { return get(row) == get(rows.front()); });
  };
  return all_as_first(tokens_of) && !all_as_first([](const BenchRow& row) { return row.seq_len; });
}

Status check_comparable(const Rows& rows) {
  RAT_TRY(same(rows, "what was measured", [](const BenchRow& r) { return r.whole_model ? "a model" : "a layer"; }));
  RAT_TRY(same(rows, "the device", [](const BenchRow& r) { return r.device; }));
  RAT_TRY(same(rows, "the dtype", [](const BenchRow& r) { return r.dtype; }));
  RAT_TRY(same(rows, "D", [](const BenchRow& r) { return r.d_model; }));
  RAT_TRY(same(rows, "the number of heads", [](const BenchRow& r) { return r.heads; }));
  RAT_TRY(same(rows, "the number of key/value heads", [](const BenchRow& r) { return r.kv_heads; }));
  RAT_TRY(same(rows, "the number of groups", [](const BenchRow& r) { return r.groups; }));
  // Either one batch for all, or one number of tokens: both make the heights of the lines mean something.
  if (!same_tokens(rows)) RAT_TRY(same(rows, "the batch", [](const BenchRow& r) { return r.batch; }));
  return ok();
}

double value_of(const BenchRow& row, bool time) {
  return time ? row.median_ms : static_cast<double>(*row.peak_bytes) / (1 << 20);
}

// Rows of each configuration, ascending in T, in the order in which the configurations first appear.
Result<std::vector<Rows>> lines_of(Rows rows) {
  std::vector<Rows> lines;
  for (const BenchRow& row : rows) {
    const auto known = std::ranges::find(lines, row.layers, [](const Rows& line) { return line.front().layers; });
    if (known == lines.end())
      lines.push_back({row});
    else
      known->push_back(row);
  }
  for (Rows& line : lines) {
    std::ranges::stable_sort(line, {}, &BenchRow::seq_len);
    const auto twice = std::ranges::adjacent_find(line, {}, &BenchRow::seq_len);
    if (twice != line.end())
      return fail(ErrorCode::invalid_argument, "There are two measurements of {}; leave one of them out.",
                  where(*twice));
  }
  return lines;
}

Series series_of(const Rows& line, std::size_t index, bool time) {
  Series series;
  series.name = line.front().layers;
  series.color = static_cast<int>(index % 8);
  series.dash = dash_of(index);
  series.marker = marker_of(index);
  series.band = time;
  for (const BenchRow& row : line) {
    series.x.push_back(static_cast<double>(row.seq_len));
    series.y.push_back(value_of(row, time));
    if (!time) continue;
    series.count.push_back(row.repetitions);
    series.y_low.push_back(row.q1_ms);
    series.y_high.push_back(row.q3_ms);
  }
  return series;
}

// What growing in proportion to T looks like: a straight line below all others.
std::optional<Series> slope_one(const std::vector<Series>& lines) {
  std::set<double> lengths;
  double least = INFINITY;
  for (const Series& line : lines)
    for (std::size_t i = 0; i < line.x.size(); ++i) {
      if (!(line.y[i] > 0)) continue;  // dropped from a logarithmic axis
      lengths.insert(line.x[i]);
      least = std::min(least, line.y[i] / line.x[i]);
    }
  if (lengths.size() < 2) return std::nullopt;
  Series guide;
  guide.name = "proportional to T";
  guide.color = 7;
  guide.dash = Dash::dotted;
  for (const double T : lengths) guide.x.push_back(T), guide.y.push_back(0.6 * least * T);
  return guide;
}

// Short enough for the height of a one-column figure; the note says the rest.
std::string value_label(const BenchRow& row, bool time) {
  if (!time) return "peak memory, MiB";
  if (row.what == "train") return row.whole_model ? "training step, ms" : "forward + backward, ms";
  return row.what + ", ms";
}

std::string note_of(const Rows& rows, bool time) {
  const BenchRow& row = rows.front();
  const auto fewest = std::ranges::min_element(rows, {}, &BenchRow::repetitions)->repetitions;
  return fmt::format(
      "{} of {}, {}, {}, {}, D {}, {} heads · {}", row.what, row.whole_model ? "a model" : "one layer", row.device,
      row.dtype,
      same_tokens(rows) ? fmt::format("{} tokens a batch", tokens_of(row)) : fmt::format("batch {}", row.batch),
      row.d_model, row.heads,
      time ? fmt::format("median of n = {} or more repetitions, band: quartiles, log-log", fewest)
           : "highest resident memory above that before the measurement, n = 1, log-log");
}

}  // namespace

Result<PlotDescription> build_scaling(const Recipe& recipe) {
  const bool time = recipe.metric == "time";
  if (!time && recipe.metric != "memory")
    return fail(ErrorCode::invalid_argument, "A scaling figure shows the metric time or memory, not '{}'.",
                recipe.metric);
  PlotDescription plot;
  RAT_ASSIGN(Rows rows, rows_of_phase(recipe));
  RAT_TRY(check_comparable(rows));
  const std::size_t without =
      time ? 0 : std::erase_if(rows, [](const BenchRow& row) { return !row.peak_bytes.has_value(); });
  if (rows.empty())
    return fail(ErrorCode::not_found, "None of the {} measurements of '{}' has a peak memory; draw the time instead.",
                without, recipe.phase);
  if (without > 0) plot.warnings.push_back(fmt::format("{} measurements without peak memory not drawn", without));
  plot.title = fmt::format("{} against sequence length, {}", time ? "Time" : "Peak memory", recipe.phase);
  plot.note = note_of(rows, time);
  RAT_ASSIGN(const std::vector<Rows> lines, lines_of(rows));
  for (const Rows& line : lines) plot.series.push_back(series_of(line, plot.series.size(), time));
  // At a constant number of tokens it is the level line that is linear in T.
  if (!same_tokens(rows))
    if (std::optional<Series> guide = slope_one(plot.series)) plot.series.push_back(*std::move(guide));
  plot.x.label = "sequence length T, tokens";
  plot.y.label = value_label(rows.front(), time);
  apply_axis(recipe.x, plot.x);
  apply_axis(recipe.y, plot.y);
  if (recipe.x.scale == Scale::linear) plot.x.scale = Scale::log2;
  if (recipe.y.scale == Scale::linear) plot.y.scale = Scale::log10;
  apply_scales(plot);
  return plot;
}

}  // namespace rat
