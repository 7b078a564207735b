// The strip under a canvas: what is under the mouse (or pinned), in fields of fixed width, so that nothing jumps.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "views/canvases/token_text.h"
#include "views/canvases/pen.h"

namespace rat::views {

struct Field {
  std::string label;
  std::string value;    // empty: "-"
  std::string reserve;  // the widest value expected: its width is kept free
  bool mono = false;
};

struct Readout {
  std::vector<Field> fields;
  std::string badge;    // truth badge: kernel path, dtype, device
  bool pinned = false;  // says whether the numbers follow the mouse or a pin
};

// Lays out by the reserved widths, in as many lines as they need.
float readout_height(const Pen& pen, float width, const Readout& readout);
void draw_readout(const Pen& pen, const Box& box, const Readout& readout);

// "probe pass, f32 CPU kernels" and the like, from a snapshot.
std::string truth_badge(const TraceSnapshot& trace);

// A run of tokens in mono, each on a background of `shade` (0 .. 1 in the scale's map; negative: none). Long stretches
// wrap; what does not fit is said ("+ 120 more"). Returns the index of the hovered token or -1.
struct TokenStrip {
  std::string label;
  std::span<const int32_t> tokens;
  std::span<const float> shade;
  TokenStyle style = true;
  int64_t first_index = 0;
  int64_t marked = -1;  // absolute index with an accent frame
  ColorMap map = ColorMap::viridis;
};
int64_t draw_token_strip(const Pen& pen, const Box& box, const TokenStrip& strip);
float token_strip_height(const Pen& pen, int lines);

}  // namespace rat::views
