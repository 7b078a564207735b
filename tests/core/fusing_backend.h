// The CPU's backend with whole layers written out in plain loops, as a GPU fuses them: what core does around fused
// layers runs on it without a GPU.
#pragma once

#include <cstdint>

#include "kernels/backend.h"

namespace rat::test {

// A bf16 value, and to the nearest one.
float widen(uint16_t half);
uint16_t narrow(float value);

// Generation of every mixer: prefill is the steps of its tokens. Its steps check that the cache has room, and not more.
const kernels::Backend& fusing_backend();

}  // namespace rat::test
