// Range attention over tokens on tensor cores: what is seen by kernels/cuda/chunk_attention, from rows rounded to bf16.
#pragma once

#include "kernels/range_attention/range_attention.h"

namespace rat::kernels::gpu {

// Where RangeAttentionArgs::dtype is bf16: one segment of tokens, whole or a window, without an own key, in heads that
// tensor cores take. Everything else is attended to in f32.
bool is_token_attention(const RangeAttentionArgs& args);
Status token_attention(const RangeAttentionArgs& args);
Status token_attention_backward(const RangeAttentionBackwardArgs& args);

}  // namespace rat::kernels::gpu
