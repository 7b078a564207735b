// What every heat-map canvas offers: scale, colour map, range lock, fit; and the shared "nothing to show yet" texts.
#pragma once

#include <optional>

#include "views/canvases/heat_map_widget.h"

namespace rat::views {

class MapControls {
 public:
  explicit MapControls(ScaleKind kind) : kind_(kind) {}

  // The scale to draw with: the locked one, or the automatic one made from the data's range.
  // Masked data: 0 .. max (log: four decades below max); signed data: symmetric about 0, clamped at the 99.5th
  // percentile.
  ColorScale scale(const MatrixPyramid& matrix, const std::string& identity);
  // Controls from right to left ending at `right`; returns their left edge.
  float draw(const Pen& pen, float right, float y, float height, HeatMapWidget& map, bool is_signed);
  float width(const Pen& pen, bool is_signed) const;
  bool key_pressed(int key, HeatMapWidget& map);  // C lock, L log, A fit

  void save(Options& options) const;
  void load(const Options& options);

  ScaleKind kind() const { return kind_; }
  bool locked() const { return locked_; }
  ColorMap map_for(bool is_signed) const { return is_signed ? ColorMap::diverging : map_; }
  std::optional<ColorScale> shown() const { return identity_.empty() ? std::nullopt : std::optional(shown_); }
  std::optional<float> clamped_at() const { return clamped_at_; }  // the largest |x| when the bar ends below it

 private:
  ScaleKind kind_;
  ColorMap map_ = ColorMap::viridis;
  bool locked_ = false;
  std::string identity_;
  ColorScale automatic_;
  ScaleKind made_kind_ = ScaleKind::linear;
  ColorScale locked_scale_, shown_;
  bool locked_signed_ = false;
  std::optional<float> clamped_at_;
};

inline constexpr float small_control = 24;  // logical pixels

// The trace to draw, or null after an empty / loading / error text has been drawn into `box`.
const TraceSnapshot* trace_or_explain(const Frame& frame, const Pen& pen, Box& box);
// "step 1,240 · validation text · rat16-swa"
std::string trace_caption(const TraceSnapshot& trace);
std::string subject_name(const Frame& frame);  // "baseline · ": whose states and maps are shown; empty: nobody's
bool has_probe(const LayerConfig& layer, Probe probe);
// Tokens per chunk of a layer as its maps use it: 0 when it has no chunks.
int64_t chunk_length(const LayerConfig& layer, int64_t tokens);
// A row of chips, one a layer ("0 rat:16"); returns the chosen layer and the height used by wrapping.
int layer_chips(const Pen& pen, Box& box, const ModelConfig& model, int current);
// Up / Down and [ ] move the layer and head; returns whether the key was one of them.
bool move_layer_or_head(int key, const Frame& frame);
// Left / Right move the pinned token by 1 (Shift: 10), Ctrl: to the next chunk boundary, Home / End to the ends.
bool move_token(int key, bool ctrl, bool shift, const Frame& frame);
// The keys every map canvas has: tokens, layer and head, Esc, and those of its controls.
bool map_key_pressed(int key, bool ctrl, bool shift, const Frame& frame, MapControls& controls, HeatMapWidget& map);
// What the screen shows, for a figure: colour map and scale; the range that the user zoomed to.
void copy_colors(const MapControls& controls, bool is_signed, Recipe& recipe);
void copy_window(const HeatMapWidget& map, bool tokens_along_x, Recipe& recipe);
// Keeps layer and head inside the model.
void clamp_selection(Selection& selection, const ModelConfig& model);

}  // namespace rat::views
