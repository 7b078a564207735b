#include "views/canvases/readout.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "views/canvases/format.h"
#include "views/canvases/token_text.h"

namespace rat::views {
namespace {

constexpr float field_gap = 20, label_gap = 6, line_gap = 6;

struct Placed {
  float x, width;
  int line;
};

float field_width(const Pen& pen, const Field& field) {
  return pen.width(field.label) + pen.px(label_gap) + pen.width(field.reserve, field.mono ? pen.mono : nullptr);
}

float badge_width(const Pen& pen, const Readout& readout) {
  return readout.badge.empty() ? 0 : pen.width(readout.badge) + pen.px(16);
}

// The badge sits at the right end of the first line; when that leaves less than half for the fields, it has the last
// line.
bool badge_has_own_line(const Pen& pen, float width, const Readout& readout) {
  return badge_width(pen, readout) > width * 0.45f;
}

std::vector<Placed> place(const Pen& pen, float width, const Readout& readout) {
  std::vector<Placed> placed;
  const float first_width =
      badge_has_own_line(pen, width, readout) ? width : width - badge_width(pen, readout) - pen.px(field_gap);
  float x = 0;
  int line = 0;
  for (const Field& field : readout.fields) {
    const float all = line == 0 ? first_width : width;
    const float wanted = field_width(pen, field);
    if (x > 0 && x + wanted > all) x = 0, ++line;
    const float room = line == 0 ? first_width : width;
    placed.push_back({x, std::min(wanted, room), line});
    x += wanted + pen.px(field_gap);
  }
  return placed;
}

}  // namespace

float readout_height(const Pen& pen, float width, const Readout& readout) {
  const auto placed = place(pen, width, readout);
  int lines = placed.empty() ? 1 : placed.back().line + 1;
  if (!readout.badge.empty() && badge_has_own_line(pen, width, readout)) ++lines;
  return static_cast<float>(lines) * (pen.line_height() + pen.px(line_gap)) + pen.px(8);
}

void draw_readout(const Pen& pen, const Box& box, const Readout& readout) {
  if (box.empty()) return;
  pen.hairline(box.x0, box.y0, box.x1, box.y0);
  pen.list->PushClipRect(box.min(), box.max(), true);
  const float step = pen.line_height() + pen.px(line_gap), top = box.y0 + pen.px(8);
  const auto placed = place(pen, box.width(), readout);
  for (std::size_t i = 0; i < readout.fields.size(); ++i) {
    const Field& field = readout.fields[i];
    const float x = box.x0 + placed[i].x, y = top + static_cast<float>(placed[i].line) * step;
    pen.text({x, y}, pen.theme->secondary, field.label);
    const float used = pen.width(field.label) + pen.px(label_gap);
    if (field.value.empty())
      pen.text({x + used, y}, pen.theme->secondary, "\xe2\x80\x93");
    else
      pen.text_fitted({x + used, y}, readout.pinned ? pen.theme->accent : pen.theme->text, field.value,
                      placed[i].width - used, field.mono ? pen.mono : nullptr);
  }
  if (!readout.badge.empty()) {
    const bool own = badge_has_own_line(pen, box.width(), readout);
    const float y = own ? top + static_cast<float>(placed.empty() ? 0 : placed.back().line + 1) * step : top;
    const float wide = std::min(badge_width(pen, readout), box.width());
    const Box badge{own ? box.x0 : box.x1 - wide, y - pen.px(2), own ? box.x0 + wide : box.x1,
                    y + pen.line_height() + pen.px(2)};
    pen.outline(badge, pen.theme->ok, 0.7f, pen.px(4));
    pen.text_fitted({badge.x0 + pen.px(8), y}, pen.theme->ok, readout.badge, wide - pen.px(12));
  }
  pen.list->PopClipRect();
}

std::string truth_badge(const TraceSnapshot& trace) {
  std::string out = trace.kernel_path.empty() ? "probe" : trace.kernel_path;
  const auto lower = [](std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
  };
  for (const std::string& part : {trace.dtype, trace.device})
    if (!part.empty() && lower(out).find(lower(part)) == std::string::npos) out += " \xc2\xb7 " + part;
  return out;
}

float token_strip_height(const Pen& pen, int lines) {
  return static_cast<float>(lines) * (pen.mono->FontSize + pen.px(6));
}

int64_t draw_token_strip(const Pen& pen, const Box& box, const TokenStrip& strip) {
  if (box.empty()) return -1;
  pen.list->PushClipRect(box.min(), box.max(), true);
  const float step = pen.mono->FontSize + pen.px(6), height = pen.mono->FontSize + pen.px(4);
  pen.text({box.x0, box.y0 + pen.px(2)}, pen.theme->secondary, strip.label);
  const float start = std::min(box.x0 + pen.width(strip.label) + pen.px(8), box.x1);
  const int lines = std::max(1, static_cast<int>(box.height() / step + 0.01f));
  const float more_width = pen.width("+ 88,888 more") + pen.px(8);
  float x = start;
  int line = 0;
  int64_t hovered = -1;
  const ImVec2 mouse = ImGui::GetIO().MousePos;
  for (std::size_t i = 0; i < strip.tokens.size(); ++i) {
    const std::string text = token_text(strip.tokens[i], strip.style);
    const float wide = std::max(pen.width(text, pen.mono) + pen.px(strip.style.bytes() ? 2 : 8), pen.px(8));
    const bool last_line = line + 1 >= lines;
    const bool last_token = i + 1 == strip.tokens.size();
    const float edge = box.x1 - (last_line && !last_token ? more_width : 0);
    if (x + wide > edge) {
      if (last_line) {
        pen.text({x + pen.px(6), box.y0 + static_cast<float>(line) * step + pen.px(2)}, pen.theme->secondary,
                 fmt::format("+ {} more", grouped(static_cast<int64_t>(strip.tokens.size() - i))));
        break;
      }
      x = start, ++line;
    }
    const Box cell{x, box.y0 + static_cast<float>(line) * step, x + wide,
                   box.y0 + static_cast<float>(line) * step + height};
    const float shade = i < strip.shade.size() ? strip.shade[i] : -1;
    const bool shaded = shade >= 0;
    const Color back = shaded ? color_at(strip.map, shade) : pen.theme->raised;
    pen.fill({cell.x0, cell.y0, cell.x1 - (strip.style.bytes() ? 0 : pen.px(2)), cell.y1}, back);
    const int64_t index = strip.first_index + static_cast<int64_t>(i);
    if (index == strip.marked) pen.outline(cell, pen.theme->accent, 1, 0);
    pen.text({cell.x0 + pen.px(strip.style.bytes() ? 1 : 3), cell.y0 + pen.px(2)},
             shaded ? readable_on(back) : pen.theme->text, text, Align::left, pen.mono);
    if (cell.contains(mouse) && ImGui::IsWindowHovered()) hovered = index;
    x += wide;
  }
  pen.list->PopClipRect();
  return hovered;
}

}  // namespace rat::views
