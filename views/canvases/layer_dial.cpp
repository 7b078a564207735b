#include "views/canvases/layer_dial.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "views/canvases/format.h"
#include "views/canvases/map_controls.h"

namespace rat::views {
namespace {

constexpr int64_t largest_dilation = 1024;

const LayerConfig* first_of(const std::vector<LayerConfig>& layers, std::string_view kind) {
  const auto at = std::find_if(layers.begin(), layers.end(), [&](const LayerConfig& l) { return l.kind == kind; });
  return at == layers.end() ? nullptr : &*at;
}

int log2_of(int64_t value) { return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(value, 1))) - 1; }

}  // namespace

std::optional<LayerDial> layer_dial(const InspectStatus& status, int64_t tokens) {
  if (status.layers.size() != status.trained_layers.size()) return std::nullopt;
  const int64_t most = std::max<int64_t>(int64_t{1} << log2_of(std::max<int64_t>(tokens, 2)), 2);
  if (const LayerConfig* now = first_of(status.layers, "ratplus"))
    return LayerDial{"D", "dilation", now->dilation, first_of(status.trained_layers, "ratplus")->dilation,
                     std::min(most, largest_dilation)};
  if (const LayerConfig* now = first_of(status.layers, "rat"))
    return LayerDial{"L", "chunk length", now->chunk, first_of(status.trained_layers, "rat")->chunk, most};
  return std::nullopt;
}

std::vector<LayerConfig> turned_layers(const InspectStatus& status, int64_t value) {
  std::vector<LayerConfig> layers = status.trained_layers;
  const bool dilates = first_of(layers, "ratplus") != nullptr;
  for (LayerConfig& layer : layers) {
    if (dilates && layer.kind == "ratplus") {
      // A dilated layer also sees its last D tokens, so that nothing falls between the ones it picks.
      layer.dilation = value;
      if (value > 1) layer.window = std::max<int64_t>(value, 1);
    } else if (!dilates && layer.kind == "rat") {
      layer.chunk = value;
    }
  }
  return layers;
}

int64_t turned_by(const LayerDial& dial, int steps) {
  int64_t value = int64_t{1} << log2_of(dial.value);
  if (steps < 0 && value < dial.value) ++steps;  // from 12 down is 8
  for (; steps > 0; --steps) value *= 2;
  for (; steps < 0; ++steps) value = std::max<int64_t>(value / 2, 1);
  return std::clamp<int64_t>(value, 1, dial.most);
}

void draw_layer_dial(const Pen& pen, Box& box, const Frame& frame) {
  if (!frame.inspect || !frame.commands || !frame.commands->set_layers) return;
  const int64_t tokens = frame.trace ? frame.trace->token_count() : 0;
  const std::optional<LayerDial> dial = layer_dial(*frame.inspect, tokens);
  if (!dial) return;
  const InspectStatus& status = *frame.inspect;
  const float height = pen.px(small_control);
  const Box row = box.take_top(height);
  box.take_top(pen.px(4));
  const float y = row.y0 + (height - pen.line_height()) / 2;
  const std::string label = fmt::format("{} {}", dial->what, dial->name);
  pen.text({row.x0, y}, pen.theme->secondary, label);
  float x = row.x0 + pen.width(label) + pen.px(8);
  const float wide = std::clamp(row.width() * 0.25f, pen.px(90), pen.px(220));
  if (x + wide > row.x1) return;
  int position = log2_of(dial->value);
  ImGui::SetCursorScreenPos({x, row.y0});
  ImGui::SetNextItemWidth(wide);
  ImGui::PushStyleVar(ImGuiStyleVar_FramePadding, {pen.px(4), std::max(0.0f, (height - pen.line_height()) / 2)});
  if (ImGui::SliderInt("##dial", &position, 0, log2_of(dial->most), "", ImGuiSliderFlags_NoInput))
    frame.commands->set_layers(turned_layers(status, int64_t{1} << position));
  ImGui::PopStyleVar();
  hint(dial->name == "D" ? "Every D-th token is attended to, and the last D: the same weights"
                         : "Cuts the text into other chunks on the same weights, which were not trained for it");
  x += wide + pen.px(8);
  // Beside the slider, where its handle never covers the value; as wide as the largest one, so that nothing moves.
  pen.text({x, y}, pen.theme->text, grouped(dial->value));
  x += pen.width(grouped(dial->most)) + pen.px(8);
  const bool changed = status.layers != status.trained_layers;
  const float reset = small_button_width(pen, "as trained");
  if (x + reset <= row.x1) {
    if (small_button(pen, "as trained", {x, row.y0}, "as trained", false, height, changed))
      frame.commands->set_layers({});
    x += reset + pen.px(8);
  }
  const std::string note = changed ? status.layer_note : fmt::format("as trained: {} = {}", dial->name, dial->trained);
  const Color ink = changed && dial->name == "L" ? pen.theme->warning : pen.theme->secondary;
  if (x < row.x1) pen.text_fitted({x, y}, ink, note, row.x1 - x);
}

}  // namespace rat::views
