// What a model is: sizes and the list of layers. Validated once, then const.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

// One block's sequence layer. Which fields matter depends on the kind: see MixerType in core/mixer.h.
struct LayerConfig {
  std::string kind = "rat";  // a name of core/mixer_list.h
  int64_t chunk = 16;        // L in tokens (rat); L >= T is one chunk
  int64_t window = 128;      // W in tokens (swa): token t attends to t-W .. t

  bool operator==(const LayerConfig&) const = default;
};

enum class Positions { rope, none };

struct ModelConfig {
  int64_t vocab = 256;    // V
  int64_t d_model = 256;  // D
  int64_t heads = 4;      // H; head size P = D / H must be even for RoPE
  int64_t groups = 2;     // G shared query/key groups of `rat`; head h uses group h % G
  int64_t ffn_mult = 4;
  Positions positions = Positions::rope;
  double rope_base = 10000.0;
  std::vector<LayerConfig> layers = std::vector<LayerConfig>(4);

  int64_t head_size() const { return d_model / heads; }
  bool operator==(const ModelConfig&) const = default;
};

// One sentence naming the first wrong value and the fix, or ok.
Status validate(const ModelConfig& config);

// "rat:16*4" is four layers; "rat:16,swa:128*2" is rat, swa, rat, swa: `*N` repeats everything since the
// previous `*N` (or the start); parentheses make the group explicit: "(rat:16,swa:128)*2,attention".
Result<std::vector<LayerConfig>> parse_layers(std::string_view pattern);
// The shortest pattern that parses back to the same layers.
std::string format_layers(const std::vector<LayerConfig>& layers);
// "rat:16", "attention", "swa:128", "rnn".
std::string format_layer(const LayerConfig& layer);

}  // namespace rat
