// A figure's recipe: everything needed to rebuild it headless from a database (curves, trade-off, throughput,
// evaluation), from the trace file saved beside it (attention, states) or from itself (scaling). Stored as
// <figure>.json.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/trace/snapshot.h"
#include "experiments/bench/bench.h"
#include "experiments/store/store.h"
#include "views/plots/plot.h"

namespace rat {

class PlotData;

enum class FigureKind { curves, tradeoff, throughput, attention, states, evaluation, scaling };
std::string_view figure_kind_name(FigureKind kind);

// Where the numbers of a kind are.
enum class NumbersFrom { store, trace, recipe };
NumbersFrom numbers_from(FigureKind kind);

struct Recipe {
  FigureKind kind = FigureKind::curves;
  std::vector<std::string> runs;  // ids
  // curves
  std::string metric = "loss";
  double smoothing = 0;  // EMA weight s in [0, 0.999]; 0: none
  bool show_raw = true;
  bool collapse_seeds = false;
  std::string x_axis = "step";  // step, tokens, wall
  Axis x, y;                    // scale and typed limits; labels are derived when empty
  // tradeoff: any two metrics of the store; marker area shows a third
  std::string x_metric = "decode_tokens_per_s", y_metric = "val_loss", size_metric = "cache_bytes";
  // evaluation: what `rat eval` stored; the metric above on the y axis
  std::string task = "length";  // length, loss_by_position, needle
  // scaling: rows of `rat bench`, all phases; the metric above (time, memory) of one phase on the y axis
  std::string phase = "train";  // train, prefill, decode
  std::vector<BenchRow> bench;
  // attention, states
  std::string trace_file;  // safetensors beside the recipe
  Probe probe = Probe::attention;
  int layer = 0, head = 0;
  bool sort_channels = false;  // by gate half-life
  ColorMap color_map = ColorMap::viridis;
  bool log_color = true;
  bool gamma_color = false;  // square root, where log_color is off: lifts small values
  std::optional<std::pair<float, float>> color_limits;
  int64_t token_begin = 0, token_end = 0;  // visible range; 0, 0: all
  int64_t column_begin = 0, column_end = 0;
  // paper
  std::string venue = "neurips";  // views/plots/venues.h
  bool full_width = false;
  double width_in = 0, height_in = 0;  // 0: from the venue, height = width * 0.618
  std::string legend = "inside";       // inside, below, none
  std::string commit;                  // of the program that wrote it
};

// Unknown keys are errors that suggest the nearest known one; missing keys take the defaults above.
Result<Recipe> parse_recipe(std::string_view json);
std::string to_json(const Recipe& recipe);

// Points a line on paper is thinned to: more cannot be told apart at 600 dots per inch.
inline constexpr int64_t figure_max_points = 4000;

// The description from the stored numbers. Every statistic uses all points; `max_points` only thins what is drawn
// (min/max per bucket, said in the note) and 0 draws everything.
Result<PlotDescription> build_plot(const Recipe& recipe, const StoreReader& store,
                                   int64_t max_points = figure_max_points);
// The same, with what earlier calls read remembered: for plots that follow a training run.
Result<PlotDescription> build_plot(const Recipe& recipe, PlotData& data, int64_t max_points = figure_max_points);
// scaling: from the recipe alone.
Result<PlotDescription> build_plot(const Recipe& recipe);
// attention, states: from a trace.
Result<PlotDescription> build_plot(const Recipe& recipe, const TraceSnapshot& trace);

// Traces as safetensors (tensors named "<probe>/<layer>", tokens, metadata): `rat inspect` and figure exports use it.
Status write_trace(const std::filesystem::path& path, const TraceSnapshot& trace);
Result<TraceSnapshot> read_trace(const std::filesystem::path& path);
// Only what the figure draws (and sorts by): what is saved beside it.
TraceSnapshot trace_of_figure(const Recipe& recipe, const TraceSnapshot& trace);

}  // namespace rat
