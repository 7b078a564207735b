// THE list of sequence mixers, in the order in which pickers show them.
#pragma once

#include <span>
#include <string_view>

#include "core/mixer.h"

namespace rat {

std::span<const MixerType> mixer_types();
// The mixer called `name`; otherwise an error that lists the known names and suggests the nearest.
Result<const MixerType*> find_mixer_type(std::string_view name);

}  // namespace rat
