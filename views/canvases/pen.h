// Drawing helpers every canvas shares: boxes that are cut into rows and columns, text, hairlines, small controls.
// All lengths are ImGui units; Pen::px() turns logical pixels (4 px grid) into them.
#pragma once

#include <imgui.h>

#include <span>
#include <string>
#include <string_view>

#include "views/canvases/view.h"

namespace rat::views {

// A rectangle that is cut up from its edges. Cutting more than there is leaves an empty box, never a negative one.
struct Box {
  float x0 = 0, y0 = 0, x1 = 0, y1 = 0;

  float width() const { return x1 - x0; }
  float height() const { return y1 - y0; }
  bool empty() const { return !(width() >= 1.0f && height() >= 1.0f); }
  bool contains(ImVec2 p) const { return p.x >= x0 && p.x < x1 && p.y >= y0 && p.y < y1; }
  ImVec2 min() const { return {x0, y0}; }
  ImVec2 max() const { return {x1, y1}; }
  Box take_top(float h);
  Box take_bottom(float h);
  Box take_left(float w);
  Box take_right(float w);
  Box inset(float dx, float dy) const;
};

enum class Align { left, center, right };

struct Pen {
  ImDrawList* list;
  const Theme* theme;
  ImFont* font;
  ImFont* mono;
  ImFont* caps;
  float scale;

  static Pen of(const Frame& frame);
  float px(float logical) const { return logical * scale; }
  float line_height(const ImFont* face = nullptr) const { return (face ? face : font)->FontSize; }
  float width(std::string_view text, ImFont* face = nullptr) const;

  // `at` is the top left, top centre or top right corner of a line of the interface face, whose baseline every face
  // keeps.
  void text(ImVec2 at, Color color, std::string_view text, Align align = Align::left, ImFont* face = nullptr) const;
  // Cut at `max_width` with an ellipsis; returns the width drawn.
  float text_fitted(ImVec2 at, Color color, std::string_view text, float max_width, ImFont* face = nullptr) const;
  // Wrapped at spaces; returns the height. draw = false only measures.
  float text_wrapped(const Box& box, Color color, std::string_view text, Align align = Align::left,
                     bool draw = true) const;
  // Reads from bottom to top, centred on `at`.
  void text_upwards(ImVec2 at, Color color, std::string_view text) const;
  void heading(ImVec2 at, std::string_view text) const;  // small capitals
  void hairline(float x0, float y0, float x1, float y1) const;
  void fill(const Box& box, Color color, float alpha = 1, float rounding = 0) const;
  void outline(const Box& box, Color color, float alpha = 1, float rounding = 0) const;
};

ImU32 to_imgui(Color color, float alpha = 1);
Color mix(Color a, Color b, float t);
// Black or white, whichever reads better on `background`.
Color readable_on(Color background);

// A row of exclusive choices; returns the one chosen. `labels` may be narrower than the box: it takes what it needs.
int segmented(const Pen& pen, const char* id, ImVec2 at, std::span<const std::string_view> labels, int current,
              float height);
float segmented_width(const Pen& pen, std::span<const std::string_view> labels);
// A quiet toggle or push button; returns whether it was clicked.
bool small_button(const Pen& pen, const char* id, ImVec2 at, std::string_view label, bool on, float height,
                  bool enabled = true);
float small_button_width(const Pen& pen, std::string_view label);
// Fixed hint under the mouse, only where the item is hovered.
void hint(std::string_view text);

// Title and what to do next, centred.
void empty_state(const Pen& pen, const Box& box, std::string_view title, std::string_view next);
// A one-line note of a session (errors in the warning colour), cut from the top of `box`; nothing for empty text.
void message_line(const Pen& pen, Box& box, std::string_view text, bool is_error);

// The whole canvas window as a box, with the standard margin.
Box canvas_box(const Pen& pen);

}  // namespace rat::views
