#include "views/canvases/attention_overview.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "views/canvases/format.h"
#include "views/canvases/map_controls.h"

namespace rat::views {
namespace {

constexpr float thumb_gap = 4, group_gap = 14, largest_thumb = 44, smallest_thumb = 14;

std::string group_label(const TraceSnapshot& trace, int layer) {
  return fmt::format("{} \xc2\xb7 {}", layer, format_layer(trace.model.layers[static_cast<std::size_t>(layer)]));
}

int heads_of(const TraceSnapshot& trace, int layer) {
  return has_probe(trace.model.layers[static_cast<std::size_t>(layer)], Probe::attention)
             ? static_cast<int>(trace.model.heads)
             : 1;
}

bool shows_entropy_number(const Pen& pen, float thumb) { return thumb >= pen.width("0.00"); }

float row_height(const Pen& pen, float thumb) {
  return pen.line_height() + pen.px(2) + thumb +
         (shows_entropy_number(pen, thumb) ? pen.line_height() + pen.px(1) : pen.px(6)) + pen.px(4);
}

}  // namespace

float AttentionOverview::group_width(const Pen& pen, const TraceSnapshot& trace, int layer, float thumb) const {
  const auto heads = static_cast<float>(heads_of(trace, layer));
  return std::max(heads * thumb + (heads - 1) * pen.px(thumb_gap), pen.width(group_label(trace, layer)));
}

AttentionOverview::Plan AttentionOverview::plan(const Pen& pen, float width, float height, const TraceSnapshot& trace,
                                                int selected_layer) const {
  const int layers = static_cast<int>(trace.model.layers.size());
  const float caption = pen.caps->FontSize + pen.px(4);
  const auto last_that_fits = [&](int first, float thumb, int rows) {
    float x = 0;
    int row = 0, layer = first;
    for (; layer < layers; ++layer) {
      const float wide = group_width(pen, trace, layer, thumb);
      if (x > 0 && x + wide > width) x = 0, ++row;
      if (row >= rows) break;
      x += wide + pen.px(group_gap);
    }
    return layer;
  };
  Plan best;
  for (float logical = largest_thumb; logical >= smallest_thumb; logical -= 2) {
    const float thumb = std::round(pen.px(logical));
    const int rows = static_cast<int>((height - caption) / row_height(pen, thumb));
    if (rows < 1) continue;
    best = {thumb, rows, 0, last_that_fits(0, thumb, rows)};
    if (best.last_layer == layers) return best;
  }
  if (best.thumb <= 0) return best;
  while (last_that_fits(best.first_layer, best.thumb, best.rows) <= selected_layer && best.first_layer < selected_layer)
    ++best.first_layer;
  best.last_layer = std::max(last_that_fits(best.first_layer, best.thumb, best.rows), best.first_layer + 1);
  return best;
}

void AttentionOverview::build_atlas(const Pen& pen, const TraceSnapshot& trace, const Plan& plan) {
  const int edge = static_cast<int>(plan.thumb), heads = static_cast<int>(trace.model.heads),
            layers = plan.last_layer - plan.first_layer;
  atlas_.width = std::min(edge * heads, 8192), atlas_.height = std::min(edge * layers, 8192);
  atlas_.pixels.assign(static_cast<std::size_t>(atlas_.width) * static_cast<std::size_t>(atlas_.height),
                       packed(pen.theme->background));
  for (int layer = plan.first_layer; layer < plan.last_layer; ++layer) {
    const ProbeTensor* maps = trace.find(Probe::attention_overview, layer);
    if (!maps || maps->shape.size() != 3) continue;
    const int64_t rows = maps->shape[1], cols = maps->shape[2];
    for (int head = 0; head < std::min<int>(heads, static_cast<int>(maps->shape[0])); ++head) {
      const MatrixPyramid matrix(nullptr, maps->values.data() + head * rows * cols, rows, cols, cols, CellKind::masked);
      const float high = std::max(matrix.max(), 1e-12f);
      const ColorScale scale{ColorMap::viridis, ScaleKind::log, high * 1e-3f, high};
      const Raster one = rasterise(matrix, {0, static_cast<double>(cols), 0, static_cast<double>(rows)}, edge, edge,
                                   scale, pen.theme->background, pen.theme->warning);
      const int x = head * edge, y = (layer - plan.first_layer) * edge;
      for (int line = 0; line < edge && y + line < atlas_.height && x + edge <= atlas_.width; ++line)
        std::copy_n(&one.pixels[static_cast<std::size_t>(line * edge)], edge,
                    &atlas_.pixels[static_cast<std::size_t>((y + line) * atlas_.width + x)]);
    }
  }
  ++version_;
}

void AttentionOverview::draw_group(const Pen& pen, ImVec2 at, const TraceSnapshot& trace, int layer, const Plan& plan,
                                   Selection& selection, void* atlas) {
  const bool chosen_layer = layer == selection.layer;
  pen.text(at, chosen_layer ? pen.theme->text : pen.theme->secondary, group_label(trace, layer));
  const float y = std::round(at.y + pen.line_height() + pen.px(2));
  const bool has_maps = has_probe(trace.model.layers[static_cast<std::size_t>(layer)], Probe::attention);
  const ProbeTensor* entropy = trace.find(Probe::attention_entropy, layer);
  for (int head = 0; head < heads_of(trace, layer); ++head) {
    const float x = std::round(at.x) + static_cast<float>(head) * (plan.thumb + pen.px(thumb_gap));
    const Box cell{x, y, x + plan.thumb, y + plan.thumb};
    ImGui::SetCursorScreenPos(cell.min());
    ImGui::PushID(layer * 4096 + head);
    if (ImGui::InvisibleButton("thumb", {plan.thumb, plan.thumb})) {
      if (selection.layer != layer) selection.clear_pins();
      selection.layer = layer;
      if (has_maps) selection.head = head;
    }
    ImGui::PopID();
    const bool hovered = ImGui::IsItemHovered();
    if (!has_maps) {
      pen.fill(cell, pen.theme->raised);
      pen.list->AddLine({cell.x0 + pen.px(4), cell.y1 - pen.px(4)}, {cell.x1 - pen.px(4), cell.y0 + pen.px(4)},
                        to_imgui(pen.theme->hairline), pen.px(1));
    } else if (atlas) {
      const float edge = plan.thumb, w = static_cast<float>(atlas_.width), h = static_cast<float>(atlas_.height);
      const float u = static_cast<float>(head) * edge / w, v = static_cast<float>(layer - plan.first_layer) * edge / h;
      if (u + edge / w <= 1.0001f && v + edge / h <= 1.0001f)
        pen.list->AddImage(atlas, cell.min(), cell.max(), {u, v}, {u + edge / w, v + edge / h});
    }
    const bool chosen = chosen_layer && (!has_maps || head == selection.head);
    if (chosen) {
      pen.outline({cell.x0 - pen.px(2), cell.y0 - pen.px(2), cell.x1 + pen.px(2), cell.y1 + pen.px(2)},
                  pen.theme->accent);
      pen.outline({cell.x0 - pen.px(1), cell.y0 - pen.px(1), cell.x1 + pen.px(1), cell.y1 + pen.px(1)},
                  pen.theme->accent);
    } else {
      pen.outline(cell, hovered ? pen.theme->secondary : pen.theme->hairline);
    }
    if (!has_maps || !entropy || head >= static_cast<int>(entropy->values.size())) continue;
    const float bits = entropy->values[static_cast<std::size_t>(head)] / static_cast<float>(M_LN2);
    if (!std::isfinite(bits)) continue;
    if (shows_entropy_number(pen, plan.thumb)) {
      pen.text({(cell.x0 + cell.x1) / 2, cell.y1 + pen.px(3)}, chosen ? pen.theme->text : pen.theme->secondary,
               fixed(bits, bits < 9.995f ? 2 : 1), Align::center);
    } else {  // a bar: full width = uniform over all keys
      const float most = std::log2(static_cast<float>(std::max<int64_t>(trace.token_count(), 2)));
      pen.fill({cell.x0, cell.y1 + pen.px(3), cell.x0 + plan.thumb * std::clamp(bits / most, 0.0f, 1.0f),
                cell.y1 + pen.px(5)},
               chosen ? pen.theme->accent : pen.theme->secondary);
    }
    if (hovered)
      hint(fmt::format("Layer {}, head {}: entropy {} bits (mean over queries)", layer, head, fixed(bits, 2)));
  }
}

void AttentionOverview::draw(const Pen& pen, Box& box, float height, const TraceSnapshot& trace,
                             const std::string& identity, Selection& selection, TextureStore* textures) {
  const Plan plan = this->plan(pen, box.width(), height, trace, selection.layer);
  if (plan.thumb <= 0 || box.empty()) return;
  const std::string made_of = fmt::format("{}|{}|{}-{}|{}", identity, plan.thumb, plan.first_layer, plan.last_layer,
                                          pen.theme->background.hex());
  if (made_of != made_of_) {
    build_atlas(pen, trace, plan);
    made_of_ = made_of;
  }
  void* atlas =
      textures ? textures->texture(key_, version_, atlas_.width, atlas_.height, atlas_.pixels.data()) : nullptr;

  const int layers = static_cast<int>(trace.model.layers.size());
  const bool partial = plan.last_layer - plan.first_layer < layers;
  pen.heading({box.x0, box.y0},
              partial ? fmt::format("Layer \xc3\x97 head, entropy in bits \xc2\xb7 layers {} to {} of {} (Up / Down)",
                                    plan.first_layer, plan.last_layer - 1, layers)
                      : std::string("Layer \xc3\x97 head, entropy in bits"));
  float x = box.x0, y = box.y0 + pen.caps->FontSize + pen.px(4);
  for (int layer = plan.first_layer; layer < plan.last_layer; ++layer) {
    const float wide = group_width(pen, trace, layer, plan.thumb);
    if (x > box.x0 && x + wide > box.x1) x = box.x0, y += row_height(pen, plan.thumb);
    draw_group(pen, {x, y}, trace, layer, plan, selection, atlas);
    x += wide + pen.px(group_gap);
  }
  box.take_top(y + row_height(pen, plan.thumb) - box.y0);
}

}  // namespace rat::views
