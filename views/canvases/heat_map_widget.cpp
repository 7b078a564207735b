#include "views/canvases/heat_map_widget.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "views/canvases/format.h"
#include "views/canvases/ticks.h"

namespace rat::views {
namespace {

constexpr double zoom_step = 1.2;
constexpr double fewest_cells = 4;
constexpr int64_t cells_at_once = 1 << 20;  // about 5 ms of one core

}  // namespace

void HeatMapWidget::set_matrix(const std::string& identity, const std::function<MatrixPyramid()>& build) {
  if (identity != identity_) replace(identity, build());
}

bool HeatMapWidget::request_matrix(const std::string& family, const std::string& identity, int64_t cells,
                                   std::function<MatrixPyramid()> build) {
  if (coming_.valid() && coming_.wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
    MatrixPyramid arrived = coming_.get();
    if (coming_family_ == family) {  // else: asked for something else meanwhile
      replace(coming_identity_, std::move(arrived));
      family_ = family;
    }
  }
  if (identity == identity_) return true;
  if (cells <= cells_at_once) {
    replace(identity, build());
    family_ = family;
  } else if (!coming_.valid()) {
    coming_identity_ = identity, coming_family_ = family;
    coming_ = std::async(std::launch::async, std::move(build));
  }
  return family_ == family;
}

void HeatMapWidget::replace(const std::string& identity, MatrixPyramid matrix) {
  const int64_t rows = matrix_.rows(), cols = matrix_.cols();
  matrix_ = std::move(matrix);
  identity_ = identity;
  ++matrix_version_;
  if (matrix_.rows() != rows || matrix_.cols() != cols) fitted_ = true;  // another shape: the old zoom means nothing
}

int64_t HeatMapWidget::main_columns(const MapAxes& axes) const {
  return std::max<int64_t>(1, matrix_.cols() - (axes.last_column_apart ? 1 : 0));
}

HeatMapWidget::Layout HeatMapWidget::arrange(const Pen& pen, Box box, const MapAxes& axes) const {
  Layout layout;
  const float line = pen.line_height();
  if (box.width() > pen.px(220)) {
    layout.bar = box.take_right(color_bar_width(pen));
    box.take_right(pen.px(12));
  }
  const bool room_for_labels = box.width() > pen.px(160) && box.height() > pen.px(110);
  box.take_top(std::round(line / 2));  // the topmost tick label is centred on the edge
  if (box.height() > pen.px(60))
    layout.x_axis = box.take_bottom(std::round((room_for_labels ? 2 : 1) * line + pen.px(room_for_labels ? 8 : 4)));
  if (box.width() > pen.px(100)) {
    const float ticks = pen.width(grouped(std::max<int64_t>(matrix_.rows() - 1, 10))) + pen.px(8);
    layout.y_axis = box.take_left(std::round(ticks + (room_for_labels ? line + pen.px(4) : 0)));
  }
  if (axes.last_column_apart) {
    layout.apart = box.take_right(std::min(pen.px(14), box.width() / 4));
    box.take_right(std::min(pen.px(6), box.width() / 8));
  }
  const auto snap = [](Box b) { return Box{std::round(b.x0), std::round(b.y0), std::round(b.x1), std::round(b.y1)}; };
  layout.plot = snap(box), layout.apart = snap(layout.apart);
  layout.apart.y0 = layout.plot.y0, layout.apart.y1 = layout.plot.y1;
  layout.x_axis.x0 = layout.plot.x0, layout.x_axis.x1 = axes.last_column_apart ? layout.apart.x1 : layout.plot.x1;
  layout.y_axis.y0 = layout.plot.y0, layout.y_axis.y1 = layout.plot.y1;
  layout.bar.y0 = layout.plot.y0, layout.bar.y1 = layout.plot.y1;
  return layout;
}

void HeatMapWidget::keep_inside(const MapAxes& axes) {
  const auto cols = static_cast<double>(main_columns(axes)),
             rows = static_cast<double>(std::max<int64_t>(matrix_.rows(), 1));
  if (fitted_) window_ = {0, cols, 0, rows};
  const auto clamp_span = [](double& a, double& b, double all) {
    const double span = std::clamp(b - a, std::min(fewest_cells, all), all);
    a = std::clamp((a + b - span) / 2, 0.0, all - span);
    b = a + span;
  };
  clamp_span(window_.x0, window_.x1, cols);
  clamp_span(window_.y0, window_.y1, rows);
}

void HeatMapWidget::zoom(double factor, double at_x, double at_y, bool x, bool y) {
  fitted_ = false;
  const auto about = [factor](double& a, double& b, double at) {
    a = at - (at - a) * factor, b = at + (b - at) * factor;
  };
  if (x) about(window_.x0, window_.x1, at_x);
  if (y) about(window_.y0, window_.y1, at_y);
}

void HeatMapWidget::navigate(const Layout& layout, const MapAxes& axes, MapResult& result) {
  const ImGuiIO& io = ImGui::GetIO();
  Box target = layout.plot;
  if (axes.last_column_apart) target.x1 = std::max(target.x1, layout.apart.x1);
  if (target.empty()) return;
  ImGui::SetCursorScreenPos(target.min());
  ImGui::InvisibleButton(key_.c_str(), {target.width(), target.height()});
  const ImVec2 mouse = io.MousePos;
  const double x =
      window_.x0 + (mouse.x - layout.plot.x0) / std::max(1.0f, layout.plot.width()) * (window_.x1 - window_.x0);
  const double y =
      window_.y0 + (mouse.y - layout.plot.y0) / std::max(1.0f, layout.plot.height()) * (window_.y1 - window_.y0);
  const bool over_plot = ImGui::IsItemHovered();

  if (ImGui::IsItemActive() && ImGui::IsMouseDragging(ImGuiMouseButton_Left, 4.0f) && !io.KeyCtrl) {
    dragging_ = true, fitted_ = false;
    const double dx = io.MouseDelta.x / std::max(1.0f, layout.plot.width()) * (window_.x1 - window_.x0);
    const double dy = io.MouseDelta.y / std::max(1.0f, layout.plot.height()) * (window_.y1 - window_.y0);
    window_.x0 -= dx, window_.x1 -= dx, window_.y0 -= dy, window_.y1 -= dy;
  }
  if (ImGui::IsItemDeactivated()) {
    result.clicked = over_plot && !dragging_;
    dragging_ = false;
  }
  if (over_plot && ImGui::IsMouseDoubleClicked(ImGuiMouseButton_Left)) fitted_ = true;
  const bool over_x = !layout.x_axis.empty() && layout.x_axis.contains(mouse) && ImGui::IsWindowHovered();
  const bool over_y = !layout.y_axis.empty() && layout.y_axis.contains(mouse) && ImGui::IsWindowHovered();
  if (io.MouseWheel != 0 && !io.KeyCtrl && (over_plot || over_x || over_y))
    zoom(std::pow(zoom_step, -io.MouseWheel), x, y, !over_y, !over_x);

  if (!over_plot || dragging_) return;
  result.row = static_cast<int64_t>(std::floor(y));
  if (axes.last_column_apart && layout.apart.contains(mouse))
    result.col = matrix_.cols() - 1;
  else if (layout.plot.contains(mouse))
    result.col = std::clamp<int64_t>(static_cast<int64_t>(std::floor(x)), 0, main_columns(axes) - 1);
  result.hovered = result.col >= 0 && result.row >= 0 && result.row < matrix_.rows();
  if (!result.hovered) result.row = result.col = -1;
}

void HeatMapWidget::draw_image(const Pen& pen, TextureStore* textures, Image& image, const char* suffix, const Box& box,
                               const Window& window, const ColorScale& scale) {
  if (box.empty() || !textures) return;
  const int width = static_cast<int>(box.width()), height = static_cast<int>(box.height());
  const Color background = pen.theme->background;
  const std::string made_of = fmt::format("{}|{}x{}|{},{},{},{}|{}{}|{},{}|{}", matrix_version_, width, height,
                                          window.x0, window.x1, window.y0, window.y1, static_cast<int>(scale.map),
                                          static_cast<int>(scale.kind), scale.low, scale.high, background.hex());
  if (made_of != image.made_of) {
    image.raster = rasterise(matrix_, window, width, height, scale, background, pen.theme->warning);
    image.made_of = made_of;
    ++image.version;
  }
  void* texture = textures->texture(key_ + suffix, image.version, image.raster.width, image.raster.height,
                                    image.raster.pixels.data());
  pen.list->AddImage(texture, box.min(), box.max());
}

std::string HeatMapWidget::reduction_note() const {
  const auto x = static_cast<int64_t>(std::ceil(main_image_.raster.cells_per_pixel_x - 1e-6));
  const auto y = static_cast<int64_t>(std::ceil(main_image_.raster.cells_per_pixel_y - 1e-6));
  if (x <= 1 && y <= 1) return {};
  return fmt::format("each pixel: {} of {}{} cells", matrix_.kind() == CellKind::masked ? "max" : "extreme",
                     x > 1 ? fmt::format("{} \xc3\x97 ", x) : "", y);
}

void HeatMapWidget::draw_axes(const Pen& pen, const Layout& layout, const MapAxes& axes) const {
  const Color ink = pen.theme->secondary;
  const float line = pen.line_height();
  const Box& plot = layout.plot;
  if (!layout.x_axis.empty()) {
    const float label_width = pen.width(grouped(main_columns(axes))) + pen.px(16);
    const double per_cell = plot.width() / (window_.x1 - window_.x0);
    const bool apart = axes.last_column_apart && !layout.apart.empty();
    const std::string_view own = "own";
    const float end = apart ? layout.apart.x1 - pen.width(own) - pen.px(6) : std::numeric_limits<float>::max();
    for (const int64_t tick :
         power_of_two_ticks(window_.x0, window_.x1 - 1e-6, std::max(1, static_cast<int>(plot.width() / label_width)))) {
      const float x = plot.x0 + static_cast<float>((static_cast<double>(tick) + 0.5 - window_.x0) * per_cell);
      if (tick < 0 || tick >= main_columns(axes) || x > plot.x1) continue;
      pen.hairline(x, plot.y1, x, plot.y1 + pen.px(3));
      const std::string label = grouped(tick);
      if (x + pen.width(label) / 2 <= end) pen.text({x, plot.y1 + pen.px(4)}, ink, label, Align::center);
    }
    if (apart) pen.text({layout.apart.x1, plot.y1 + pen.px(4)}, ink, own, Align::right);
    if (layout.x_axis.height() > 1.9f * line)
      pen.text({(plot.x0 + plot.x1) / 2, layout.x_axis.y1 - line}, ink, axes.x_label, Align::center);
  }
  if (!layout.y_axis.empty()) {
    const double per_cell = plot.height() / (window_.y1 - window_.y0);
    for (const int64_t tick :
         power_of_two_ticks(window_.y0, window_.y1 - 1e-6, std::max(1, static_cast<int>(plot.height() / (2 * line))))) {
      const float y = plot.y0 + static_cast<float>((static_cast<double>(tick) + 0.5 - window_.y0) * per_cell);
      if (tick < 0 || tick >= matrix_.rows() || y > plot.y1) continue;
      pen.hairline(plot.x0 - pen.px(3), y, plot.x0, y);
      pen.text({plot.x0 - pen.px(6), y - line / 2}, ink, grouped(tick), Align::right);
    }
    const bool has_label = layout.y_axis.width() > pen.width(grouped(std::max<int64_t>(matrix_.rows() - 1, 10))) + line;
    if (has_label && pen.width(axes.y_label) < plot.height())
      pen.text_upwards({layout.y_axis.x0 + line / 2, (plot.y0 + plot.y1) / 2}, ink, axes.y_label);
  }
}

void HeatMapWidget::draw_boundaries(const Pen& pen, const Layout& layout, const MapAxes& axes) const {
  const Box& plot = layout.plot;
  const auto lines = [&](int64_t every, double a, double b, float pixels, int64_t cells, const auto& line) {
    if (every <= 0 || every >= cells || static_cast<double>(every) * pixels / (b - a) < pen.px(6)) return;
    for (auto k = static_cast<int64_t>(std::floor(a / static_cast<double>(every))) + 1;
         static_cast<double>(k * every) < b; ++k)
      line(std::round(static_cast<float>((static_cast<double>(k * every) - a) / (b - a)) * pixels));
  };
  const ImU32 ink = to_imgui(Color{255, 255, 255}, 0.16f);
  const float thick = std::max(1.0f, std::round(pen.scale));
  lines(axes.x_every, window_.x0, window_.x1, plot.width(), main_columns(axes), [&](float x) {
    pen.list->AddRectFilled({plot.x0 + x, plot.y0}, {plot.x0 + x + thick, plot.y1}, ink);
  });
  lines(axes.y_every, window_.y0, window_.y1, plot.height(), matrix_.rows(), [&](float y) {
    pen.list->AddRectFilled({plot.x0, plot.y0 + y}, {plot.x1, plot.y0 + y + thick}, ink);
  });
}

void HeatMapWidget::draw_crosshair(const Pen& pen, const Layout& layout, const MapAxes& axes, int64_t row, int64_t col,
                                   Color color) const {
  const Box& plot = layout.plot;
  const double cell_w = plot.width() / (window_.x1 - window_.x0), cell_h = plot.height() / (window_.y1 - window_.y0);
  const float thick = std::max(1.0f, std::round(pen.scale));
  const ImU32 ink = to_imgui(color, 0.9f), halo = to_imgui(Color{0, 0, 0}, 0.35f);  // the halo shows it on light cells
  const bool has_row = row >= 0 && row < matrix_.rows();
  const float y = plot.y0 + static_cast<float>((static_cast<double>(row) + 0.5 - window_.y0) * cell_h);
  const bool row_visible = has_row && y >= plot.y0 && y <= plot.y1;
  const float right = axes.last_column_apart ? layout.apart.x1 : plot.x1;
  const auto line = [&](float x0, float y0, float x1, float y1) {
    pen.list->AddRectFilled({x0, y0},
                            {x1 + thick * (x1 - x0 <= thick ? 1 : 0), y1 + thick * (y1 - y0 <= thick ? 1 : 0)}, halo);
    pen.list->AddRectFilled({x0, y0}, {x1, y1}, ink);
  };
  if (row_visible) line(plot.x0, std::floor(y - thick / 2), right, std::floor(y - thick / 2) + thick);
  if (col < 0 || col >= matrix_.cols()) return;
  const bool apart = axes.last_column_apart && col == matrix_.cols() - 1;
  const float x = apart ? (layout.apart.x0 + layout.apart.x1) / 2
                        : plot.x0 + static_cast<float>((static_cast<double>(col) + 0.5 - window_.x0) * cell_w);
  if (!apart && (x < plot.x0 || x > plot.x1)) return;
  const float top = row_visible ? y : plot.y0;
  line(std::floor(x - thick / 2), top, std::floor(x - thick / 2) + thick, plot.y1);
  if (!row_visible) return;
  const float half_w = std::max(pen.px(4), apart ? layout.apart.width() / 2 : static_cast<float>(cell_w) / 2),
              half_h = std::max(pen.px(3), static_cast<float>(cell_h) / 2);
  pen.list->AddRect({x - half_w, y - half_h}, {x + half_w, y + half_h}, ink, 0, 0, thick);
}

MapResult HeatMapWidget::draw(const Pen& pen, const Box& box, TextureStore* textures, const MapAxes& axes,
                              const ColorScale& scale, const MapCursor& cursor) {
  MapResult result;
  if (box.empty() || matrix_.rows() == 0 || matrix_.cols() == 0) return result;
  const Layout layout = arrange(pen, box, axes);
  if (layout.plot.empty()) return result;
  keep_inside(axes);
  navigate(layout, axes, result);
  keep_inside(axes);
  result.plot = layout.plot, result.apart = layout.apart, result.window = window_;

  pen.list->PushClipRect(box.min(), box.max(), true);
  draw_image(pen, textures, main_image_, "/main", layout.plot, window_, scale);
  if (axes.last_column_apart) {
    const auto last = static_cast<double>(matrix_.cols() - 1);
    draw_image(pen, textures, apart_image_, "/apart", layout.apart, {last, last + 1, window_.y0, window_.y1}, scale);
    pen.outline(layout.apart, pen.theme->hairline);
  }
  draw_boundaries(pen, layout, axes);
  pen.outline(layout.plot, pen.theme->hairline);
  draw_axes(pen, layout, axes);
  draw_crosshair(pen, layout, axes, cursor.pinned_row, cursor.pinned_col, pen.theme->accent);
  const bool hovering = result.hovered || cursor.hover_row >= 0;
  const int64_t row = result.hovered ? result.row : cursor.hover_row,
                col = result.hovered ? result.col : cursor.hover_col;
  if (hovering) draw_crosshair(pen, layout, axes, row, col, Color{255, 255, 255});
  pen.list->PopClipRect();

  const bool inside = row >= 0 && row < matrix_.rows() && col >= 0 && col < matrix_.cols();
  if (!layout.bar.empty())
    draw_color_bar(pen, layout.bar, scale, axes.value_label,
                   inside ? matrix_.at(row, col) : std::numeric_limits<float>::quiet_NaN());
  return result;
}

float color_bar_width(const Pen& pen) { return std::round(pen.px(12 + 8) + pen.width("\xe2\x89\xa4 -0.00005")); }

void draw_color_bar(const Pen& pen, const Box& box, const ColorScale& scale, std::string_view title, float marked) {
  const float line = pen.line_height();
  Box bar{box.x0 + pen.px(6), box.y0 + line + pen.px(6), box.x0 + pen.px(18), box.y1};
  if (bar.height() < pen.px(24)) return;
  pen.text({box.x1 - pen.width(title) < box.x0 ? box.x1 - pen.width(title) : box.x0, box.y0 - line / 2},
           pen.theme->secondary, title);
  constexpr int steps = 96;
  for (int i = 0; i < steps; ++i) {
    const float top = bar.y1 - bar.height() * static_cast<float>(i + 1) / steps,
                bottom = bar.y1 - bar.height() * static_cast<float>(i) / steps;
    const ImU32 low = to_imgui(color_at(scale.map, static_cast<float>(i) / steps)),
                high = to_imgui(color_at(scale.map, static_cast<float>(i + 1) / steps));
    pen.list->AddRectFilledMultiColor({bar.x0, top}, {bar.x1, bottom}, high, high, low, low);
  }
  pen.outline(bar, pen.theme->hairline);
  for (const ScaleTick& tick : scale_ticks(scale, std::max(2, static_cast<int>(bar.height() / (2.4f * line))))) {
    const float y = bar.y1 - tick.position * bar.height();
    pen.hairline(bar.x1, y, bar.x1 + pen.px(3), y);
    pen.text({bar.x1 + pen.px(6), std::clamp(y - line / 2, bar.y0 - pen.px(2), bar.y1 - line + pen.px(2))},
             pen.theme->secondary, tick.label);
  }
  if (std::isnan(marked)) return;
  const float y = bar.y1 - scale.position(marked) * bar.height(), s = pen.px(4);
  pen.list->AddTriangleFilled({bar.x0 - s - 1, y - s}, {bar.x0 - s - 1, y + s}, {bar.x0 - 1, y},
                              to_imgui(pen.theme->text));
}

}  // namespace rat::views
