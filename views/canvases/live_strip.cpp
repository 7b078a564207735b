#include "views/canvases/live_strip.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "views/canvases/format.h"
#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

// Before anything is generated, the strip has what else is looked at.
bool generated(const TraceSnapshot& trace) { return trace.source == "generation"; }

}  // namespace

LiveStrip::What LiveStrip::effective(const LayerConfig& layer) const {
  if (wanted_ == What::gate && !has_probe(layer, Probe::gate)) return What::attention;
  if (wanted_ == What::attention && !has_probe(layer, Probe::attention)) return What::state;
  return wanted_;
}

Probe LiveStrip::probe_of(What what, const LayerConfig& layer) {
  if (what == What::attention) return Probe::attention;
  if (what == What::gate) return Probe::gate;
  return has_probe(layer, Probe::state_v) ? Probe::state_v : Probe::residual;
}

ProbeRequest LiveStrip::probes(const Selection& selection, const ModelConfig& model) const {
  if (model.layers.empty()) return {};
  const int index = std::clamp(selection.layer, 0, static_cast<int>(model.layers.size()) - 1);
  const LayerConfig& layer = model.layers[static_cast<std::size_t>(index)];
  ProbeRequest request;
  request.items.push_back({probe_of(effective(layer), layer), index});
  return request;
}

std::optional<Recipe> LiveStrip::recipe(const Frame& frame) const {
  if (!frame.trace || !frame.selection || frame.trace->model.layers.empty()) return std::nullopt;
  Selection selection = *frame.selection;
  clamp_selection(selection, frame.trace->model);
  const LayerConfig& layer = frame.trace->model.layers[static_cast<std::size_t>(selection.layer)];
  const What what = effective(layer);
  if (!frame.trace->find(probe_of(what, layer), selection.layer)) return std::nullopt;
  Recipe recipe;
  recipe.kind = what == What::attention ? FigureKind::attention : FigureKind::states;
  if (!frame.trace->run_id.empty()) recipe.runs = {frame.trace->run_id};
  recipe.probe = probe_of(what, layer);
  recipe.layer = selection.layer, recipe.head = selection.head;
  const MapControls& controls = what == What::attention ? controls_ : state_controls_;
  copy_colors(controls, what == What::state, recipe);
  if (what == What::state)
    if (const auto scale = controls.shown(); scale) recipe.color_limits = {scale->low, scale->high};
  return recipe;
}

void LiveStrip::set_matrix(const Frame& frame, const ProbeTensor& tensor, What what, int layer) {
  identity_ = fmt::format("{}/{}/{}/{}", static_cast<const void*>(frame.trace.get()), frame.trace->serial, layer,
                          static_cast<int>(tensor.probe));
  map_.set_matrix(identity_, [&] {
    if (what == What::attention) {  // newest query: heads x keys
      const int64_t heads = tensor.shape[0], queries = tensor.shape[1], keys = tensor.shape[2];
      return MatrixPyramid(frame.trace, tensor.values.data() + (queries - 1) * keys, heads, keys, queries * keys,
                           CellKind::masked);
    }
    const int64_t tokens = tensor.shape[0], channels = tensor.shape[1];
    auto values = std::make_shared<std::vector<float>>(static_cast<std::size_t>(tokens * channels));
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t c = 0; c < channels; ++c)
        (*values)[static_cast<std::size_t>(c * tokens + t)] = tensor.values[static_cast<std::size_t>(t * channels + c)];
    const float* data = values->data();
    return MatrixPyramid(std::move(values), data, channels, tokens, tokens, CellKind::signed_);
  });
}

void LiveStrip::draw_header(const Pen& pen, Box& box, const TraceSnapshot& trace, Selection& selection, What what) {
  static constexpr std::array<std::string_view, 3> names{"state", "gate", "attention"};
  const float control = pen.px(small_control), segments = segmented_width(pen, names);
  pen.heading({box.x0, box.y0}, generated(trace) ? "Inside the newest token" : "Inside the last token of the " + trace.source);
  box.take_top(pen.caps->FontSize + pen.px(4));
  const bool same_row = box.width() > segments + pen.px(240);
  Box row = box;
  if (same_row) {
    const Box at = row.take_right(segments);
    wanted_ = static_cast<What>(segmented(pen, "inside", at.min(), names, static_cast<int>(what), control));
    row.take_right(pen.px(12));
  }
  const float before = row.y0;
  selection.layer = layer_chips(pen, row, trace.model, selection.layer);
  box.take_top(row.y0 - before + pen.px(6));
}

void LiveStrip::draw(const Pen& pen, Box box, Frame& frame) {
  const TraceSnapshot& trace = *frame.trace;
  Selection& selection = *frame.selection;
  if (box.empty() || trace.model.layers.empty()) return;
  clamp_selection(selection, trace.model);
  pen.hairline(box.x0, box.y0, box.x1, box.y0);
  box.take_top(pen.px(8));
  draw_header(pen, box, trace, selection, effective(trace.model.layers[static_cast<std::size_t>(selection.layer)]));
  const LayerConfig& layer = trace.model.layers[static_cast<std::size_t>(selection.layer)];
  const What what = effective(layer);
  const ProbeTensor* tensor = trace.find(probe_of(what, layer), selection.layer);
  const std::size_t rank = what == What::attention ? 3 : 2;
  if (!tensor || tensor->shape.size() != rank || tensor->values.empty()) {
    empty_state(pen, box, "Waiting for the next token...", "The strip follows each generated token.");
    return;
  }
  set_matrix(frame, *tensor, what, selection.layer);
  MapControls& controls = what == What::attention ? controls_ : state_controls_;
  ColorScale scale = controls.scale(map_.matrix(), identity_);
  if (what == What::gate) scale.low = 0, scale.high = 1;
  const int64_t chunk = chunk_length(layer, trace.token_count());
  MapAxes axes;
  if (what == What::attention) {
    axes = {chunk > 0 ? fmt::format("key: chunk of {}, last column = own running state", grouped(chunk)) : "key token",
            "head",
            "weight, log",
            chunk > 0,
            0,
            0};
  } else {
    axes = {
        "token", "channel", what == What::gate ? "gate" : tensor->probe == Probe::residual ? "residual" : "value state",
        false,   chunk,     0};
  }
  MapCursor cursor;
  const Box readout = box.take_bottom(pen.line_height() + pen.px(4));
  const MapResult result = map_.draw(pen, box, frame.textures, axes, scale, cursor);
  const int32_t newest = trace.tokens.back();
  std::string text = fmt::format("{} token {} {}", generated(trace) ? "newest" : "last", grouped(trace.token_count() - 1),
                                 quoted_token(newest, style_of(trace)));
  if (result.hovered) {
    text += fmt::format("  \xc2\xb7  {} {}, {} {}: {}", axes.y_label, grouped(result.row),
                        what == What::attention ? (axes.last_column_apart ? "chunk" : "key") : "token",
                        axes.last_column_apart && result.col == map_.matrix().cols() - 1 ? "own" : grouped(result.col),
                        number(map_.matrix().at(result.row, result.col)));
  }
  pen.text_fitted({readout.x0, readout.y0 + pen.px(2)}, pen.theme->secondary, text, readout.width());
}

}  // namespace rat::views
