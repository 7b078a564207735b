// Prompt and generated text in mono, wrapped at the canvas width, the generated part distinct.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "views/canvases/pen.h"

namespace rat::views {

class GenerationText {
 public:
  // Draws into `box` with its own scroll bar; follows the end while `running`.
  void draw(const Pen& pen, const Box& box, const GenerationStatus& generation, bool byte_tokens);
  // Plain text of the last draw, for the clipboard.
  const std::string& text() const { return text_; }

 private:
  struct Line {
    std::string text;
    std::size_t generated_from;  // byte offset in `text`; text.size(): none
  };
  void wrap(const GenerationStatus& generation, bool byte_tokens, int columns);

  std::string made_of_, text_;
  std::vector<Line> lines_;
  std::size_t shown_tokens_ = 0;
  int follow_frames_ = 0;
};

}  // namespace rat::views
