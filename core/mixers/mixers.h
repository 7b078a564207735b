// One function per mixer file, for core/mixer_list.cpp.
#pragma once

#include "core/mixer.h"

namespace rat {

MixerType rat_mixer_type();
MixerType attention_mixer_type();
MixerType swa_mixer_type();
MixerType rnn_mixer_type();

// The gate bias init of `rnn`, which has no chunk length: states last up to this many tokens. The published code uses
// its training length; a fixed number keeps the initial weights independent of the data.
inline constexpr int64_t rnn_gate_span = 256;

}  // namespace rat
