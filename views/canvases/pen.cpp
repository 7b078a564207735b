#include "views/canvases/pen.h"

#include <imgui_internal.h>

#include <algorithm>
#include <cmath>

namespace rat::views {

Box Box::take_top(float h) {
  h = std::clamp(h, 0.0f, std::max(height(), 0.0f));
  const Box cut{x0, y0, x1, y0 + h};
  y0 += h;
  return cut;
}

Box Box::take_bottom(float h) {
  h = std::clamp(h, 0.0f, std::max(height(), 0.0f));
  const Box cut{x0, y1 - h, x1, y1};
  y1 -= h;
  return cut;
}

Box Box::take_left(float w) {
  w = std::clamp(w, 0.0f, std::max(width(), 0.0f));
  const Box cut{x0, y0, x0 + w, y1};
  x0 += w;
  return cut;
}

Box Box::take_right(float w) {
  w = std::clamp(w, 0.0f, std::max(width(), 0.0f));
  const Box cut{x1 - w, y0, x1, y1};
  x1 -= w;
  return cut;
}

Box Box::inset(float dx, float dy) const {
  dx = std::min(dx, width() / 2), dy = std::min(dy, height() / 2);
  return {x0 + dx, y0 + dy, x1 - dx, y1 - dy};
}

ImU32 to_imgui(Color color, float alpha) {
  return IM_COL32(color.r, color.g, color.b, static_cast<int>(std::lround(255 * std::clamp(alpha, 0.0f, 1.0f))));
}

Color mix(Color a, Color b, float t) {
  const auto one = [t](uint8_t from, uint8_t to) {
    return static_cast<uint8_t>(
        std::lround(static_cast<float>(from) + (static_cast<float>(to) - static_cast<float>(from)) * t));
  };
  return {one(a.r, b.r), one(a.g, b.g), one(a.b, b.b)};
}

Color readable_on(Color background) {
  const double luma = 0.299 * background.r + 0.587 * background.g + 0.114 * background.b;
  return luma > 140 ? Color{0x10, 0x13, 0x18} : Color{0xff, 0xff, 0xff};
}

Pen Pen::of(const Frame& frame) {
  ImFont* font = ImGui::GetFont();
  return Pen{ImGui::GetWindowDrawList(),
             frame.theme ? frame.theme : &rat::theme(ThemeKind::dark),
             font,
             frame.mono ? frame.mono : font,
             frame.small_caps ? frame.small_caps : font,
             std::max(frame.scale, 0.25f)};
}

float Pen::width(std::string_view text, ImFont* face) const {
  ImFont* used = face ? face : font;
  return used->CalcTextSizeA(used->FontSize, FLT_MAX, 0, text.data(), text.data() + text.size()).x;
}

void Pen::text(ImVec2 at, Color color, std::string_view text, Align align, ImFont* face) const {
  if (text.empty()) return;
  ImFont* used = face ? face : font;
  if (align != Align::left) at.x -= width(text, used) * (align == Align::center ? 0.5f : 1.0f);
  at.y += font->Ascent - used->Ascent;  // faces of one line share the baseline of the interface face
  list->AddText(used, used->FontSize, {std::round(at.x), std::round(at.y)}, to_imgui(color), text.data(),
                text.data() + text.size());
}

float Pen::text_fitted(ImVec2 at, Color color, std::string_view text, float max_width, ImFont* face) const {
  const float full = width(text, face);
  if (full <= max_width) {
    this->text(at, color, text, Align::left, face);
    return full;
  }
  const float dots = width("...", face);
  if (dots > max_width) return 0;
  std::size_t keep = text.size();
  while (keep > 0) {
    do --keep;
    while (keep > 0 && (static_cast<unsigned char>(text[keep]) & 0xc0) == 0x80);  // whole UTF-8 characters
    if (width(text.substr(0, keep), face) + dots <= max_width) break;
  }
  const std::string cut = std::string(text.substr(0, keep)) + "...";
  this->text(at, color, cut, Align::left, face);
  return width(cut, face);
}

float Pen::text_wrapped(const Box& box, Color color, std::string_view text, Align align, bool draw) const {
  const char* at = text.data();
  const char* const end = at + text.size();
  float y = box.y0;
  const float wrap = std::max(box.width(), px(8));
  while (at < end) {
    const char* line_end = font->CalcWordWrapPositionA(1.0f, at, end, wrap);
    if (line_end == at) ++line_end;
    const char* newline = std::find(at, line_end, '\n');
    if (draw) {
      const float x = align == Align::left ? box.x0 : align == Align::center ? (box.x0 + box.x1) / 2 : box.x1;
      this->text({x, y}, color, {at, static_cast<std::size_t>(newline - at)}, align);
    }
    y += line_height() + px(2);
    at = newline < line_end ? newline + 1 : line_end;
    while (at < end && *at == ' ') ++at;
  }
  return y - box.y0;
}

void Pen::text_upwards(ImVec2 at, Color color, std::string_view text) const {
  const float w = width(text), h = line_height();
  const int first = list->VtxBuffer.Size;
  // The clip test happens on unrotated glyphs: draw without clipping, then turn a quarter to the left about `at`.
  const ImVec2 start{std::round(at.x - w / 2), std::round(at.y - h / 2)};
  list->PushClipRectFullScreen();
  const ImVec2 pivot{std::round(at.x), std::round(at.y)};
  const ImVec4 everywhere(-1e6f, -1e6f, 1e6f, 1e6f);
  list->_CmdHeader.ClipRect = everywhere;
  list->AddText(font, font->FontSize, start, to_imgui(color), text.data(), text.data() + text.size(), 0, &everywhere);
  for (int i = first; i < list->VtxBuffer.Size; ++i) {
    ImVec2& p = list->VtxBuffer[i].pos;
    p = {pivot.x + (p.y - pivot.y), pivot.y - (p.x - pivot.x)};
  }
  list->PopClipRect();
}

void Pen::heading(ImVec2 at, std::string_view text) const {
  std::string capitals(text);
  for (char& c : capitals)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  at.y += caps->Ascent - font->Ascent;  // a heading stands alone: `at` is its own top
  this->text(at, theme->secondary, capitals, Align::left, caps);
}

void Pen::hairline(float x0, float y0, float x1, float y1) const {
  const float w = std::max(1.0f, std::round(scale));
  x0 = std::round(x0), y0 = std::round(y0), x1 = std::round(x1), y1 = std::round(y1);
  list->AddRectFilled({x0, y0}, {x0 == x1 ? x0 + w : x1, y0 == y1 ? y0 + w : y1}, to_imgui(theme->hairline));
}

void Pen::fill(const Box& box, Color color, float alpha, float rounding) const {
  if (box.width() > 0 && box.height() > 0) list->AddRectFilled(box.min(), box.max(), to_imgui(color, alpha), rounding);
}

void Pen::outline(const Box& box, Color color, float alpha, float rounding) const {
  if (box.width() > 0 && box.height() > 0)
    list->AddRect(box.min(), box.max(), to_imgui(color, alpha), rounding, 0, std::max(1.0f, std::round(scale)));
}

float small_button_width(const Pen& pen, std::string_view label) { return std::round(pen.width(label) + pen.px(16)); }

float segmented_width(const Pen& pen, std::span<const std::string_view> labels) {
  float total = 0;
  for (const std::string_view label : labels) total += small_button_width(pen, label);
  return total;
}

namespace {

// Hit area; false when there is no room for one. An item always has a positive size, as ImGui demands.
bool hit(const char* id, const Box& box, bool& hovered) {
  ImGui::SetCursorScreenPos(box.min());
  const bool clicked = ImGui::InvisibleButton(id, {std::max(box.width(), 1.0f), std::max(box.height(), 1.0f)});
  hovered = ImGui::IsItemHovered();
  return clicked;
}

}  // namespace

int segmented(const Pen& pen, const char* id, ImVec2 at, std::span<const std::string_view> labels, int current,
              float height) {
  const Box all{at.x, at.y, at.x + segmented_width(pen, labels), at.y + height};
  const float round = pen.px(4);
  pen.fill(all, pen.theme->raised, 1, round);
  ImGui::PushID(id);
  int chosen = current;
  Box rest = all;
  for (int i = 0; i < static_cast<int>(labels.size()); ++i) {
    const std::string_view label = labels[static_cast<std::size_t>(i)];
    const Box one = rest.take_left(small_button_width(pen, label));
    ImGui::PushID(i);
    bool hovered = false;
    if (hit("segment", one, hovered)) chosen = i;
    ImGui::PopID();
    if (i == current) {
      pen.fill(one, pen.theme->accent, 0.22f, round);
      pen.outline(one, pen.theme->accent, 1, round);
    } else if (hovered) {
      pen.fill(one, pen.theme->hairline, 1, round);
    }
    pen.text({(one.x0 + one.x1) / 2, one.y0 + (height - pen.line_height()) / 2},
             i == current || hovered ? pen.theme->text : pen.theme->secondary, label, Align::center);
  }
  ImGui::PopID();
  pen.outline(all, pen.theme->hairline, 1, round);
  if (current >= 0 && current < static_cast<int>(labels.size())) {  // the accent border stays on top of the hairline
    float x = all.x0;
    for (int i = 0; i < current; ++i) x += small_button_width(pen, labels[static_cast<std::size_t>(i)]);
    pen.outline({x, all.y0, x + small_button_width(pen, labels[static_cast<std::size_t>(current)]), all.y1},
                pen.theme->accent, 1, round);
  }
  return chosen;
}

bool small_button(const Pen& pen, const char* id, ImVec2 at, std::string_view label, bool on, float height,
                  bool enabled) {
  const Box box{at.x, at.y, at.x + small_button_width(pen, label), at.y + height};
  bool hovered = false;
  const bool clicked = hit(id, box, hovered) && enabled;
  const float round = pen.px(4);
  pen.fill(box,
           on                   ? mix(pen.theme->pane, pen.theme->accent, 0.22f)
           : hovered && enabled ? pen.theme->hairline
                                : pen.theme->raised,
           1, round);
  pen.outline(box, on ? pen.theme->accent : pen.theme->hairline, 1, round);
  pen.text({(box.x0 + box.x1) / 2, box.y0 + (height - pen.line_height()) / 2},
           !enabled        ? mix(pen.theme->pane, pen.theme->secondary, 0.6f)
           : on || hovered ? pen.theme->text
                           : pen.theme->secondary,
           label, Align::center);
  return clicked;
}

void hint(std::string_view text) {
  if (!ImGui::IsItemHovered()) return;
  ImGui::BeginTooltip();
  ImGui::TextUnformatted(text.data(), text.data() + text.size());
  ImGui::EndTooltip();
}

void empty_state(const Pen& pen, const Box& box, std::string_view title, std::string_view next) {
  if (box.empty()) return;
  Box column = box;
  const float wide = std::min(box.width(), pen.px(420));
  column.x0 = (box.x0 + box.x1 - wide) / 2, column.x1 = column.x0 + wide;
  const float title_height = pen.text_wrapped(column, pen.theme->text, title, Align::center, false);
  const float next_height = pen.text_wrapped(column, pen.theme->secondary, next, Align::center, false);
  pen.list->PushClipRect(box.min(), box.max(), true);
  column.y0 = std::max(box.y0, (box.y0 + box.y1 - title_height - next_height) / 2);
  pen.text_wrapped(column, pen.theme->text, title, Align::center);
  column.y0 += title_height + pen.px(4);
  pen.text_wrapped(column, pen.theme->secondary, next, Align::center);
  pen.list->PopClipRect();
}

void message_line(const Pen& pen, Box& box, std::string_view text, bool is_error) {
  if (text.empty()) return;
  const float height = pen.text_wrapped(box, pen.theme->text, text, Align::left, false) + pen.px(6);
  Box line = box.take_top(height);
  if (is_error) {
    const Box mark = line.take_left(pen.px(3));
    pen.fill({mark.x0, mark.y0, mark.x1, mark.y1 - pen.px(6)}, pen.theme->warning);
    line.take_left(pen.px(6));
  }
  pen.text_wrapped(line, is_error ? pen.theme->warning : pen.theme->secondary, text);
}

Box canvas_box(const Pen& pen) {
  const ImVec2 at = ImGui::GetWindowPos(), size = ImGui::GetWindowSize();
  return Box{at.x, at.y, at.x + size.x, at.y + size.y}.inset(pen.px(12), pen.px(8));
}

}  // namespace rat::views
