// Prompt and generated text in mono, wrapped at the canvas width, the generated part distinct.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "views/canvases/token_text.h"
#include "views/canvases/pen.h"

namespace rat::views {

class GenerationText {
 public:
  // Draws into `box` with its own scroll bar; follows the end while `running`.
  void draw(const Pen& pen, const Box& box, const GenerationStatus& generation, const TokenStyle& style);
  // Plain text of the last draw, for the clipboard.
  const std::string& text() const { return text_; }
  // What the mouse has marked: drag, double click for a word. Kept while the text only grows.
  std::string selected() const;
  void select_all() { from_ = 0, to_ = text_.size(); }

 private:
  struct Line {
    std::string text;
    std::size_t generated_from;  // byte offset in `text`; text.size(): none
    std::size_t start;           // byte offset in text_
  };
  std::size_t offset_at(const Pen& pen, ImVec2 origin, float step) const;  // of the character under the mouse
  void select_with_mouse(const Pen& pen, ImVec2 origin, float step);
  void draw_selection(const Pen& pen, const Line& line, ImVec2 at) const;
  void wrap(const GenerationStatus& generation, const TokenStyle& style, int columns);

  std::string made_of_, text_;
  std::vector<Line> lines_;
  std::size_t shown_tokens_ = 0;
  std::size_t from_ = 0, to_ = 0;  // marked, bytes of text_, in either order
  bool marking_ = false;
  int follow_frames_ = 0;
};

}  // namespace rat::views
