// THE list of layer stacks that were published or that serve as their baselines, in the order in which pickers show
// them. A preset's name stands for its layers wherever a layer pattern does: `model.layers=rat-swa*6`.
#pragma once

#include <span>
#include <string_view>

namespace rat {

struct LayerPreset {
  std::string_view name;
  std::string_view description;  // one line
  std::string_view pattern;      // one period of the stack
};

std::span<const LayerPreset> layer_presets();
const LayerPreset* find_layer_preset(std::string_view name);  // null: there is none

}  // namespace rat
