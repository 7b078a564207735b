#include "core/presets.h"

#include <array>

namespace rat {

// Sources: RAT, arXiv:2507.04416 (chunks of 16; interleaved one to one with windows of 1024, RAT first); RAT+,
// arXiv:2602.18196 (dense training, dilations up to 64 at inference); RAttention, arXiv:2506.15545 (window 512 beside
// global attention; here one global layer in four).
std::span<const LayerPreset> layer_presets() {
  static constexpr std::array<LayerPreset, 10> list{{
      {"rat-swa", "RAT interleaved with sliding windows, the published hybrid", "rat:16,swa:1024"},
      {"attention-swa", "full attention interleaved with sliding windows", "attention,swa:1024"},
      {"rattention-attention", "three RAttention layers, then a global one", "rattention:512*3,attention"},
      {"rattention-attention-nope", "the same, the global layer without positions", "rattention:512*3,attention/nope"},
      {"swa-attention", "three sliding windows, then a global layer: the same stack without linear attention",
       "swa:512*3,attention"},
      {"rat-attention", "three RAT layers, then a global one", "rat:16*3,attention"},
      {"ratplus-dense", "RAT+ as it is trained: dense, any dilation at inference", "ratplus"},
      {"ratplus-16", "RAT+ with every 16th token and the last 16", "ratplus:16/w16"},
      {"ratplus-64", "RAT+ with every 64th token and the last 64", "ratplus:64/w64"},
      {"linear-swa", "linear attention interleaved with sliding windows", "linear,swa:1024"},
  }};
  return list;
}

const LayerPreset* find_layer_preset(std::string_view name) {
  for (const LayerPreset& preset : layer_presets())
    if (preset.name == name) return &preset;
  return nullptr;
}

}  // namespace rat
