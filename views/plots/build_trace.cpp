// Attention maps and states from a trace: one matrix, one pixel a cell, NaN where a query may not look.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/mixer_list.h"
#include "views/plots/build_parts.h"

namespace rat {
namespace {

constexpr int64_t most_lines = 64;  // boundaries drawn at most: more would hide the map

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

Result<Range> range_of(std::string_view what, int64_t begin, int64_t end, int64_t all) {
  if (begin == 0 && end == 0) return Range{0, all};
  if (begin < 0 || begin >= end || end > all)
    return fail(ErrorCode::invalid_argument,
                "The recipe shows {} {} to {}, but the trace has {} of them; use 0 to {} at most.", what, begin, end,
                all, all);
  return Range{begin, end};
}

// L of a layer that works in chunks, else 0.
int64_t chunk_of(const TraceSnapshot& trace, int layer) {
  if (layer < 0 || layer >= static_cast<int>(trace.model.layers.size())) return 0;
  const LayerConfig& config = trace.model.layers[static_cast<std::size_t>(layer)];
  const auto type = find_mixer_type(config.kind);
  return type && (*type)->uses_chunk ? config.chunk : 0;
}

std::vector<double> boundaries(int64_t chunk, const Range& tokens) {
  std::vector<double> lines;
  if (chunk <= 0 || tokens.size() / chunk > most_lines) return lines;
  for (int64_t t = (tokens.begin / chunk + 1) * chunk; t < tokens.end; t += chunk)
    lines.push_back(static_cast<double>(t));
  return lines;
}

// Limits of the colour bar, and what the note says of them.
void set_color_range(const Recipe& recipe, bool signed_values, HeatMap& map, std::string& note) {
  std::vector<float> finite;
  for (const float value : map.values)
    if (std::isfinite(value)) finite.push_back(value);
  map.map = recipe.color_map;
  map.log_color = recipe.log_color && !signed_values;
  map.gamma_color = recipe.gamma_color && !map.log_color && !signed_values;
  const auto extremes = std::minmax_element(finite.begin(), finite.end());
  float low = finite.empty() ? 0 : *extremes.first, high = finite.empty() ? 1 : *extremes.second;
  std::string how;
  if (signed_values && map.map == ColorMap::diverging && !finite.empty()) {
    for (float& value : finite) value = std::abs(value);
    const auto at = finite.begin() + static_cast<std::ptrdiff_t>(0.99 * static_cast<double>(finite.size() - 1));
    std::nth_element(finite.begin(), at, finite.end());
    high = *at > 0 ? *at : 1.0f;
    low = -high;
    how = ", symmetric, clamped at the 99th percentile";
  } else if (map.log_color) {
    float smallest = high;
    for (const float value : finite)
      if (value > 0) smallest = std::min(smallest, value);
    if (!(high > 0)) high = 1, smallest = 1e-4f;
    low = std::max(smallest, high * 1e-4f);
    how = ", log";
  }
  if (map.gamma_color) how = ", by square root";
  if (recipe.color_limits) {
    low = recipe.color_limits->first, high = recipe.color_limits->second;
    how = map.log_color ? ", log, set by hand" : map.gamma_color ? ", by square root, set by hand" : ", set by hand";
  }
  if (map.log_color && !(low > 0)) low = high * 1e-4f;
  if (!(high > low)) high = low + (low != 0 ? std::abs(low) * 1e-3f : 1.0f);
  map.low = low, map.high = high;
  note += fmt::format(" · colour {:.3g} to {:.3g}{}", low, high, how);
}

Result<const ProbeTensor*> tensor_of(const TraceSnapshot& trace, Probe probe, int layer) {
  const ProbeTensor* tensor = trace.find(probe, layer);
  if (tensor && !tensor->shape.empty() &&
      std::all_of(tensor->shape.begin(), tensor->shape.end(), [](int64_t n) { return n > 0; }))
    return tensor;
  std::string known;
  for (const ProbeTensor& one : trace.tensors)
    known += fmt::format("{}{}/{}", known.empty() ? "" : ", ", probe_name(one.probe), one.layer);
  return fail(ErrorCode::not_found, "The trace has no {} of layer {}; it has {}.", probe_name(probe), layer,
              known.empty() ? "nothing" : known);
}

std::string provenance(const TraceSnapshot& trace, int layer) {
  std::string note =
      layer >= 0 && layer < static_cast<int>(trace.model.layers.size())
          ? format_layer(trace.model.layers[static_cast<std::size_t>(layer)]) + fmt::format(", layer {}", layer)
          : std::string("whole model");
  note += fmt::format(" · step {} · {}, {}", trace.step, trace.device, trace.dtype);
  if (!trace.source.empty()) note += " · " + trace.source;
  if (!trace.kernel_path.empty()) note += " · " + trace.kernel_path;
  return note;
}

// Copies columns [columns) of the map's rows; a layer with its own running state gets it again, set apart at the right.
void fill_attention(const ProbeTensor& tensor, int head, const Range& rows, const Range& columns, bool own_state,
                    HeatMap& map) {
  const int64_t n = columns.size();
  const int64_t gap = own_state ? std::max<int64_t>(1, n / 40) : 0, own = own_state ? std::max<int64_t>(1, n / 25) : 0;
  map.rows = rows.size();
  map.cols = n + gap + own;
  map.values.assign(static_cast<std::size_t>(map.rows * map.cols), std::nanf(""));
  for (int64_t r = 0; r < map.rows; ++r) {
    const std::span<const float> from = tensor.row(head, rows.begin + r);
    float* to = map.values.data() + r * map.cols;
    std::copy_n(from.begin() + columns.begin, n, to);
    std::fill_n(to + n + gap, own, own_state ? from.back() : 0.0f);
  }
  map.x0 = static_cast<double>(columns.begin), map.x1 = static_cast<double>(columns.begin + map.cols);
  map.y0 = static_cast<double>(rows.begin), map.y1 = static_cast<double>(rows.end);
  map.column_names.assign(static_cast<std::size_t>(map.cols), "");
  for (int64_t c = 0; c < n; ++c)
    map.column_names[static_cast<std::size_t>(c)] =
        fmt::format("{} {}", own_state ? "chunk" : "token", columns.begin + c);
  if (own_state) {
    map.column_names[static_cast<std::size_t>(n + gap)] = "own state";
    map.column_labels = {{static_cast<double>(columns.end + gap) + 0.5 * static_cast<double>(own), "own"}};
  }
  for (int64_t r = 0; r < map.rows; ++r) map.row_names.push_back(fmt::format("{}", rows.begin + r));
  map.corner_name = "query token";
}

Result<PlotDescription> build_attention(const Recipe& recipe, const TraceSnapshot& trace) {
  RAT_ASSIGN(const ProbeTensor* tensor, tensor_of(trace, Probe::attention, recipe.layer));
  if (tensor->shape.size() != 3)
    return fail(ErrorCode::shape_mismatch, "The trace's attention of layer {} has {} axes instead of (H, T, K).",
                recipe.layer, tensor->shape.size());
  const int64_t heads = tensor->shape[0], tokens = tensor->shape[1], keys = tensor->shape[2];
  if (recipe.head >= heads)
    return fail(ErrorCode::invalid_argument, "The recipe shows head {}, but layer {} has heads 0 to {}.", recipe.head,
                recipe.layer, heads - 1);
  const int64_t chunk = chunk_of(trace, recipe.layer);
  const bool own_state = chunk > 0;  // K = C + 1
  RAT_ASSIGN(const Range rows, range_of("query tokens", recipe.token_begin, recipe.token_end, tokens));
  RAT_ASSIGN(const Range columns, range_of(own_state ? "chunks" : "key tokens", recipe.column_begin, recipe.column_end,
                                           own_state ? keys - 1 : keys));
  PlotDescription plot;
  plot.title = own_state ? "attention over chunk states" : "attention over tokens";
  plot.x.label = own_state ? fmt::format("chunk (L = {})", chunk) : "key token";
  plot.y.label = "query token";
  plot.note = fmt::format("head {} of {}", recipe.head, provenance(trace, recipe.layer));
  HeatMap map;
  map.value_label = "attention weight";
  fill_attention(*tensor, recipe.head, rows, columns, own_state, map);
  map.row_lines = boundaries(chunk, rows);
  set_color_range(recipe, false, map, plot.note);
  plot.heat_map = std::move(map);
  return plot;
}

// Channels by half-life of their gate, longest first.
Result<std::vector<int64_t>> channel_order(const Recipe& recipe, const TraceSnapshot& trace, int64_t channels) {
  std::vector<int64_t> order(static_cast<std::size_t>(channels));
  std::iota(order.begin(), order.end(), 0);
  if (!recipe.sort_channels) return order;
  RAT_ASSIGN(const ProbeTensor* gate, tensor_of(trace, Probe::gate, recipe.layer));
  const std::vector<double> half_lives = channel_half_lives(*gate);
  if (static_cast<int64_t>(half_lives.size()) != channels)
    return fail(ErrorCode::shape_mismatch,
                "The trace's gate has {} channels but its {} has {}; they cannot be sorted by half-life.",
                half_lives.size(), probe_name(recipe.probe), channels);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return half_lives[static_cast<std::size_t>(a)] > half_lives[static_cast<std::size_t>(b)];
  });
  return order;
}

std::string value_label_of(Probe probe) {
  switch (probe) {
    case Probe::gate:
      return "forget gate g";
    case Probe::out_gate:
      return "output gate";
    case Probe::state_k:
      return "key state";
    case Probe::state_v:
      return "value state";
    case Probe::residual:
      return "residual stream";
    default:
      return std::string(probe_name(probe));
  }
}

Result<PlotDescription> build_states(const Recipe& recipe, const TraceSnapshot& trace) {
  RAT_ASSIGN(const ProbeTensor* tensor, tensor_of(trace, recipe.probe, recipe.layer));
  if (tensor->shape.size() != 2)
    return fail(ErrorCode::invalid_argument, "The figure of states needs a (T, D) probe such as state_v, not {}.",
                probe_name(recipe.probe));
  const int64_t channels = tensor->shape[1];
  RAT_ASSIGN(const Range tokens, range_of("tokens", recipe.token_begin, recipe.token_end, tensor->shape[0]));
  RAT_ASSIGN(const Range shown, range_of("channels", recipe.column_begin, recipe.column_end, channels));
  RAT_ASSIGN(const std::vector<int64_t> order, channel_order(recipe, trace, channels));
  PlotDescription plot;
  plot.title = value_label_of(recipe.probe);
  plot.x.label = "token";
  plot.y.label = recipe.sort_channels ? "channel, longest half-life first" : "channel";
  plot.note = provenance(trace, recipe.layer);
  HeatMap map;
  map.value_label = value_label_of(recipe.probe);
  map.rows = shown.size();
  map.cols = tokens.size();
  map.corner_name = "channel";
  for (int64_t r = shown.begin; r < shown.end; ++r) {
    const int64_t channel = order[static_cast<std::size_t>(r)];
    map.row_names.push_back(fmt::format("{}", channel));
    for (int64_t t = tokens.begin; t < tokens.end; ++t)
      map.values.push_back(tensor->row(t)[static_cast<std::size_t>(channel)]);
  }
  for (int64_t t = tokens.begin; t < tokens.end; ++t) map.column_names.push_back(fmt::format("token {}", t));
  map.x0 = static_cast<double>(tokens.begin), map.x1 = static_cast<double>(tokens.end);
  map.y0 = static_cast<double>(shown.begin), map.y1 = static_cast<double>(shown.end);
  map.column_lines = boundaries(chunk_of(trace, recipe.layer), tokens);
  const bool gate = recipe.probe == Probe::gate || recipe.probe == Probe::out_gate;
  set_color_range(recipe, !gate, map, plot.note);
  plot.heat_map = std::move(map);
  return plot;
}

}  // namespace

Result<PlotDescription> build_plot(const Recipe& recipe, const TraceSnapshot& trace) {
  if (numbers_from(recipe.kind) != NumbersFrom::trace)
    return fail(ErrorCode::invalid_argument, "The {} figure is not drawn from a trace.", figure_kind_name(recipe.kind));
  RAT_ASSIGN(PlotDescription plot,
             recipe.kind == FigureKind::attention ? build_attention(recipe, trace) : build_states(recipe, trace));
  // Typed labels win; the limits of a map are its token and column ranges.
  if (!recipe.x.label.empty()) plot.x.label = recipe.x.label;
  if (!recipe.y.label.empty()) plot.y.label = recipe.y.label;
  if (!trace.run_id.empty()) plot.run_ids.push_back(trace.run_id);
  return plot;
}

}  // namespace rat
