// Cross-entropy in two parts, so that the device goes on while its sums come to the host.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cross_entropy/cross_entropy.h"

namespace rat::kernels::gpu {

inline constexpr int entropy_slots = 2;  // of scratch memory, from 0

// `rounded`: where the gradient goes instead of into the logits, in bf16 without gaps between rows; null: not so.
[[nodiscard]] Status start_entropy(const CrossEntropyArgs& args, __nv_bfloat16* rounded);
// Waits for what the last start_entropy of this thread summed, and for nothing after it.
[[nodiscard]] Status finish_entropy(std::span<const int32_t> targets, CrossEntropySums& sums);

}  // namespace rat::kernels::gpu
