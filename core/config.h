// What a model is: sizes and the list of layers. Validated once, then const.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

enum class Positions { rope, none };

// One block's sequence layer. Which fields matter depends on the kind: see MixerType in core/mixer.h.
struct LayerConfig {
  std::string kind = "rat";               // a name of core/mixer_list.h
  int64_t chunk = 16;                     // L in tokens (rat); L >= T is one chunk
  int64_t window = 128;                   // W in tokens (swa, rattention, ratplus): t-W .. t are always seen
  int64_t dilation = 1;                   // D (ratplus): before the window, only every D-th token; 1 is dense
  int64_t initial = 0;                    // S (ratplus): the first S tokens are always seen
  std::optional<Positions> pos = {};      // instead of the model's

  bool operator==(const LayerConfig&) const = default;
};

struct ModelConfig {
  int64_t vocab = 256;    // V
  int64_t d_model = 256;  // D
  int64_t heads = 4;      // H; head size P = D / H must be even for RoPE
  int64_t groups = 2;     // G shared query/key groups of `rat`; head h uses group h % G
  int64_t kv_heads = 0;   // key/value heads of attention, swa and rattention; head h uses h % kv_heads; 0: one per head
  int64_t ffn_mult = 4;
  Positions positions = Positions::rope;
  double rope_base = 10000.0;
  std::vector<LayerConfig> layers = std::vector<LayerConfig>(4);

  int64_t head_size() const { return d_model / heads; }
  int64_t kv_width() const { return (kv_heads > 0 ? kv_heads : heads) * head_size(); }
  Positions positions_of(const LayerConfig& layer) const { return layer.pos.value_or(positions); }
  bool operator==(const ModelConfig&) const = default;
};

// One sentence naming the first wrong value and the fix, or ok.
Status validate(const ModelConfig& config);

// "rat:16*4" is four layers; "rat:16,swa:128*2" is rat, swa, rat, swa: `*N` repeats everything since the
// previous `*N` (or the start); parentheses make the group explicit: "(rat:16,swa:128)*2,attention". The number after
// the colon is the kind's main one (chunk length, window or dilation); further settings follow a slash:
// "ratplus:8/w4/s2" has dilation 8, window 4 and 2 initial tokens; "/nope" and "/rope" override the model's positions.
// The name of a preset (core/presets.h) stands for its layers.
Result<std::vector<LayerConfig>> parse_layers(std::string_view pattern);
// A layer of this kind as its bare name in a pattern gives it; an unknown kind is an error that suggests the nearest.
Result<LayerConfig> default_layer(std::string_view kind);
// The shortest pattern that parses back to the same layers.
std::string format_layers(const std::vector<LayerConfig>& layers);
// "rat:16", "attention/nope", "swa:128", "ratplus:8/w4", "rnn".
std::string format_layer(const LayerConfig& layer);

}  // namespace rat
