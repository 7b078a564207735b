// Which token of a chunk a chunk-end state consists of: the gates say how much of each token's value survives.
#pragma once

#include <cstdint>
#include <vector>

#include "core/trace/snapshot.h"

namespace rat::views {

// Share of each token [begin, end) in the gated value at token end-1, mean over the channels of `head`:
// (1 - g_j) * product of g_i for j < i < end. Exact for the value path; keys pass through the softmax and do not
// unfold. `begin` must be the chunk's first token. Empty when the gates were not recorded or the range is not inside
// the trace.
std::vector<float> retention(const TraceSnapshot& trace, int layer, int head, int64_t begin, int64_t end);

}  // namespace rat::views
