#include "views/canvases/map_controls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "views/canvases/format.h"

namespace rat::views {
namespace {

constexpr std::array<std::string_view, 3> scale_names{"linear", "log", "gamma"};
constexpr std::array<ColorMap, 3> sequential{ColorMap::viridis, ColorMap::cividis, ColorMap::magma};
constexpr float decades = 1e-4f;
constexpr double clamp_share = 0.995;

std::string_view widest_map_name() { return "cividis"; }

}  // namespace

ColorScale MapControls::scale(const MatrixPyramid& matrix, const std::string& identity) {
  const bool is_signed = matrix.kind() == CellKind::signed_ && matrix.min() < 0;
  if (identity != identity_ || made_kind_ != kind_) {
    identity_ = identity;
    made_kind_ = kind_;
    clamped_at_.reset();
    if (is_signed) {
      const float limit = matrix.magnitude_quantile(clamp_share);
      if (limit < 0.98f * matrix.max_abs()) clamped_at_ = matrix.max_abs();
      automatic_ = {ColorMap::diverging, ScaleKind::linear, -limit, limit};
    } else {
      const float high = matrix.max() > 0 ? matrix.max() : 1;
      const float floor = std::max(matrix.min_positive() > 0 ? matrix.min_positive() : high * decades, high * decades);
      automatic_ = {map_, kind_, kind_ == ScaleKind::log ? std::min(floor, high * 0.5f) : 0, high};
    }
  }
  ColorScale out = locked_ && locked_signed_ == is_signed ? locked_scale_ : automatic_;
  if (!locked_) locked_scale_ = automatic_, locked_signed_ = is_signed;
  out.map = map_for(is_signed);
  shown_ = out;
  return out;
}

float MapControls::width(const Pen& pen, bool is_signed) const {
  const float maps =
      small_button_width(pen, widest_map_name()) + pen.px(8) + segmented_width(pen, scale_names) + pen.px(8);
  return (is_signed ? 0 : maps) + small_button_width(pen, "lock") + pen.px(8) + small_button_width(pen, "fit");
}

float MapControls::draw(const Pen& pen, float right, float y, float height, HeatMapWidget& map, bool is_signed) {
  float x = right;
  x -= small_button_width(pen, "fit");
  if (small_button(pen, "fit", {x, y}, "fit", false, height, !map.fitted())) map.fit();
  hint("Show everything (A, or double click on the map)");
  x -= pen.px(8) + small_button_width(pen, "lock");
  if (small_button(pen, "lock", {x, y}, "lock", locked_, height)) locked_ = !locked_;
  hint(locked_ ? "The colour range is locked; click to follow the data again (C)"
               : "Keep this colour range for every layer, head and step (C)");
  if (is_signed) return x;
  const float map_width = small_button_width(pen, widest_map_name());
  x -= pen.px(8) + map_width;
  const Box name{x, y, x + map_width, y + height};
  ImGui::SetCursorScreenPos(name.min());
  if (ImGui::InvisibleButton("color map", {name.width(), name.height()})) {
    const auto at = std::find(sequential.begin(), sequential.end(), map_) - sequential.begin();
    map_ = sequential[static_cast<std::size_t>(at + 1) % sequential.size()];
  }
  pen.fill(name, ImGui::IsItemHovered() ? pen.theme->hairline : pen.theme->raised, 1, pen.px(4));
  pen.outline(name, pen.theme->hairline, 1, pen.px(4));
  pen.text({(name.x0 + name.x1) / 2, y + (height - pen.line_height()) / 2}, pen.theme->secondary, color_map_name(map_),
           Align::center);
  hint("Colour map: click for the next one (viridis, cividis, magma)");
  x -= pen.px(8) + segmented_width(pen, scale_names);
  kind_ = static_cast<ScaleKind>(segmented(pen, "scale", {x, y}, scale_names, static_cast<int>(kind_), height));
  return x;
}

void MapControls::save(Options& options) const {
  options["scale"] = scale_names[static_cast<std::size_t>(kind_)];
  options["color_map"] = color_map_name(map_);
}

void MapControls::load(const Options& options) {
  const auto chosen = [&](const char* key) {
    const auto at = options.find(key);
    return at == options.end() ? std::string() : at->second;
  };
  for (std::size_t i = 0; i < scale_names.size(); ++i)
    if (chosen("scale") == scale_names[i]) kind_ = static_cast<ScaleKind>(i);
  for (const ColorMap map : sequential)
    if (chosen("color_map") == color_map_name(map)) map_ = map;
}

bool MapControls::key_pressed(int key, HeatMapWidget& map) {
  if (key == ImGuiKey_C || key == 'C')
    locked_ = !locked_;
  else if (key == 'L')
    kind_ = kind_ == ScaleKind::log ? ScaleKind::linear : ScaleKind::log;
  else if (key == ImGuiKey_A || key == 'A')
    map.fit();
  else
    return false;
  return true;
}

const TraceSnapshot* trace_or_explain(const Frame& frame, const Pen& pen, Box& box) {
  const bool stored = frame.subject == Subject::stored;
  if (stored && frame.inspect) message_line(pen, box, frame.inspect->message, frame.inspect->message_is_error);
  if (!stored && frame.training && frame.training->message_is_error)
    message_line(pen, box, frame.training->message, true);
  if (frame.trace && frame.trace->token_count() > 0 && !frame.trace->model.layers.empty()) return frame.trace.get();

  const bool inspecting = stored && frame.inspect && frame.inspect->busy;
  const bool training = !stored && frame.training && frame.training->activity != SessionActivity::idle;
  if (inspecting) {
    empty_state(pen, box, "Loading the run...", "Its newest checkpoint is read and traced on the validation text.");
  } else if (stored) {
    empty_state(
        pen, box, "Nothing recorded for this run yet.",
        "A stored run needs a checkpoint to be looked at. Open another run in the table below, or press Start.");
  } else if (training) {
    empty_state(pen, box, "Waiting for the first recorded step...",
                "Values are recorded between training steps, within the probe budget.");
  } else {
    empty_state(pen, box, "No run is open.", "Press Start, or open a run in the table below.");
  }
  return nullptr;
}

std::string subject_name(const Frame& frame) {
  std::string name;
  if (frame.subject == Subject::stored && frame.stored_run)
    name = frame.stored_run->name.empty() ? frame.stored_run->id : frame.stored_run->name;
  else if (frame.subject == Subject::live && frame.training)
    name = frame.training->run_name;
  return name.empty() ? name : name + " \xc2\xb7 ";
}

std::string trace_caption(const TraceSnapshot& trace) {
  std::string out = fmt::format("step {}", grouped(trace.step));
  if (!trace.source.empty()) out += " \xc2\xb7 " + trace.source;
  return out;
}

bool has_probe(const LayerConfig& layer, Probe probe) {
  const std::vector<Probe> probes = probes_of(layer);
  return std::find(probes.begin(), probes.end(), probe) != probes.end();
}

int64_t chunk_length(const LayerConfig& layer, int64_t tokens) {
  return layer.kind == "rat" ? std::clamp<int64_t>(layer.chunk, 1, std::max<int64_t>(tokens, 1)) : 0;
}

int layer_chips(const Pen& pen, Box& box, const ModelConfig& model, int current) {
  const float height = pen.px(small_control);
  const auto label = [&](std::size_t i) { return fmt::format("{} \xc2\xb7 {}", i, format_layer(model.layers[i])); };
  // Wrap, at most two rows; beyond that, the layers around the chosen one.
  std::size_t begin = 0;
  const auto fits_from = [&](std::size_t from) {
    float x = 0;
    int row = 0;
    std::size_t i = from;
    for (; i < model.layers.size(); ++i) {
      const float wide = small_button_width(pen, label(i));
      if (x > 0 && x + wide > box.width()) x = 0, ++row;
      if (row > 1) break;
      x += wide + pen.px(4);
    }
    return i;
  };
  while (static_cast<int>(fits_from(begin)) <= current && begin < static_cast<std::size_t>(current)) ++begin;
  const std::size_t end = fits_from(begin);
  int chosen = current;
  float x = box.x0, y = box.y0;
  ImGui::PushID("layers");
  for (std::size_t i = begin; i < end; ++i) {
    const std::string text = label(i);
    const float wide = small_button_width(pen, text);
    if (x > box.x0 && x + wide > box.x1) x = box.x0, y += height + pen.px(4);
    ImGui::PushID(static_cast<int>(i));
    if (small_button(pen, "layer", {x, y}, text, static_cast<int>(i) == current, height)) chosen = static_cast<int>(i);
    ImGui::PopID();
    x += wide + pen.px(4);
  }
  ImGui::PopID();
  box.take_top(y + height - box.y0);
  return chosen;
}

bool move_layer_or_head(int key, const Frame& frame) {
  if (!frame.selection || !frame.trace || frame.trace->model.layers.empty()) return false;
  Selection& selection = *frame.selection;
  if (key == ImGuiKey_UpArrow)
    --selection.layer;
  else if (key == ImGuiKey_DownArrow)
    ++selection.layer;
  else if (key == '[')
    --selection.head;
  else if (key == ']')
    ++selection.head;
  else
    return false;
  clamp_selection(selection, frame.trace->model);
  return true;
}

bool move_token(int key, bool ctrl, bool shift, const Frame& frame) {
  if (!frame.selection || !frame.trace || frame.trace->token_count() == 0 || frame.trace->model.layers.empty())
    return false;
  Selection& selection = *frame.selection;
  clamp_selection(selection, frame.trace->model);
  const int64_t tokens = frame.trace->token_count(),
                chunk = chunk_length(frame.trace->model.layers[static_cast<std::size_t>(selection.layer)], tokens);
  int64_t at = selection.query_token < 0 ? selection.hover_token : selection.query_token;
  const int64_t boundary = std::max<int64_t>(chunk, 1);
  if (key == ImGuiKey_LeftArrow)
    at = at < 0 ? tokens - 1 : ctrl ? (at - 1) / boundary * boundary : at - (shift ? 10 : 1);
  else if (key == ImGuiKey_RightArrow)
    at = at < 0 ? 0 : ctrl ? (at / boundary + 1) * boundary : at + (shift ? 10 : 1);
  else if (key == ImGuiKey_Home)
    at = 0;
  else if (key == ImGuiKey_End)
    at = tokens - 1;
  else
    return false;
  selection.query_token = std::clamp<int64_t>(at, 0, tokens - 1);
  selection.key = std::max<int64_t>(selection.key, 0);
  selection.channel = std::max<int64_t>(selection.channel, 0);
  return true;
}

bool map_key_pressed(int key, bool ctrl, bool shift, const Frame& frame, MapControls& controls, HeatMapWidget& map) {
  if (!frame.selection) return false;
  if (move_token(key, ctrl, shift, frame)) return true;
  if (ctrl) return false;
  if (key == ImGuiKey_Escape) {
    frame.selection->clear_pins();
    return true;
  }
  return move_layer_or_head(key, frame) || controls.key_pressed(key, map);
}

void copy_colors(const MapControls& controls, bool is_signed, Recipe& recipe) {
  recipe.color_map = controls.map_for(is_signed);
  recipe.log_color = !is_signed && controls.kind() == ScaleKind::log;
  recipe.gamma_color = !is_signed && controls.kind() == ScaleKind::gamma;
}

void copy_window(const HeatMapWidget& map, bool tokens_along_x, Recipe& recipe) {
  if (map.fitted()) return;
  const Window window = map.window();
  const auto range = [](double from, double to, int64_t& begin, int64_t& end) {
    begin = static_cast<int64_t>(std::floor(from)), end = static_cast<int64_t>(std::ceil(to));
  };
  if (tokens_along_x) {
    range(window.x0, window.x1, recipe.token_begin, recipe.token_end);
    range(window.y0, window.y1, recipe.column_begin, recipe.column_end);
  } else {
    range(window.y0, window.y1, recipe.token_begin, recipe.token_end);
    range(window.x0, window.x1, recipe.column_begin, recipe.column_end);
  }
}

void clamp_selection(Selection& selection, const ModelConfig& model) {
  selection.layer = std::clamp(selection.layer, 0, std::max(0, static_cast<int>(model.layers.size()) - 1));
  selection.head = std::clamp(selection.head, 0, std::max(0, static_cast<int>(model.heads) - 1));
}

}  // namespace rat::views
