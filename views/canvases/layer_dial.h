// The dial that turns a stored model's dilation D (ratplus) or chunk length L (rat) on the same weights.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "views/canvases/pen.h"

namespace rat::views {

struct LayerDial {
  std::string name;  // "D", "L"
  std::string what;  // "dilation", "chunk length"
  int64_t value = 1, trained = 1, most = 1;
};

// What there is to turn: the dilation where there are ratplus layers, else the chunk length of rat layers; none for
// other models. `tokens` bounds it.
std::optional<LayerDial> layer_dial(const InspectStatus& status, int64_t tokens);
// Every layer that the dial turns with `value`, the others as trained.
std::vector<LayerConfig> turned_layers(const InspectStatus& status, int64_t value);
// The next power of two above (steps > 0) or below, within the dial.
int64_t turned_by(const LayerDial& dial, int steps);

// One row: slider over powers of two, "as trained", and what the numbers then mean; cut from the top of `box`. Nothing
// for models without such layers.
void draw_layer_dial(const Pen& pen, Box& box, const Frame& frame);

}  // namespace rat::views
