// What dilated attention (RAT+) sees before a window of W tokens, without gaps: the first S tokens of a sequence, then
// every D-th from there on, tokens D-1, 2D-1, .. Token t sees those before t - W, which are the first of them, as a
// token of RAT sees the ends of earlier chunks; so the same kernels attend to them (keys_seen.cuh, BeforeWindow).
//
// Source: Wei and Gulcehre, RAT+, arXiv:2602.18196.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

// Of a shape of attention over tokens with a window.
RatShape before_window(const RatShape& tokens, int64_t dilation, int64_t initial);

// keys, values: D columns of all tokens; to_keys, to_values: (B, K, D), K = shape.keys(), which may be none.
struct DilatedKeysArgs {
  RatShape shape;  // of before_window
  KeyRows<const __nv_bfloat16> keys{}, values{};
  __nv_bfloat16 *to_keys = nullptr, *to_values = nullptr;
};

// Refused before any launch: heads that are not a multiple of 8, rows that are not 16-byte aligned.
Status gather_dilated_keys(const DilatedKeysArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
