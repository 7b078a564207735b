// One function per mixer file, for core/mixer_list.cpp.
#pragma once

#include "core/mixer.h"
#include "core/mixers/key_cache.h"

namespace rat {

MixerType rat_mixer_type();
MixerType attention_mixer_type();
MixerType swa_mixer_type();
MixerType rnn_mixer_type();
MixerType ratplus_mixer_type();
MixerType rattention_mixer_type();
MixerType linear_mixer_type();

// Softmax attention over the keys of a window (or all), as attention, swa and rattention share it.
MixerCost token_attention_cost(const ModelConfig& config, const TokenWindow& window, int64_t tokens);
// The state of linear attention, as linear and rattention share it.
MixerCost linear_cost(const ModelConfig& config);

// The gate bias init of `rnn`, which has no chunk length: states last up to this many tokens. The published code uses
// its training length; a fixed number keeps the initial weights independent of the data.
inline constexpr int64_t rnn_gate_span = 256;

}  // namespace rat
