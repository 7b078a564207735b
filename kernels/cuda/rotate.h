// Rotary positions of heads where they lie in wider rows, in place or from there: queries and keys in the projected rows.
//
//   (x[i], x[i + P/2]) = R(t) (x[i], x[i + P/2])  for every head of token t;  R(t) from rope_table
//
// Source: Su et al. 2021. Shapes: x points at the first of `heads` neighbouring heads of token 0 of sequence 0; rows, of
// which there are batch * tokens, are `stride` elements apart. float32 arithmetic, rounded once.
// Refused before any launch: head sizes that are not a multiple of 16; rows that are not 16-byte aligned.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

struct RotateArgs {
  __nv_bfloat16* x = nullptr;
  int64_t stride = 0;
  int64_t batch = 0, tokens = 0, heads = 0, head_size = 0;
  const float2* rope = nullptr;  // (T, P/2)
  __nv_bfloat16* to = nullptr;   // null: in place
  int64_t to_stride = 0;
};

Status rotate(const RotateArgs& args, cudaStream_t stream);

// Gradients on their way back: to[t] = R(t)^-1 x[t], rounded; or, `add`, to[t] + R(t)^-1 x[t].
struct RotateBackArgs {
  RatShape shape;             // of attention over tokens, or of what is before a window
  const float* x = nullptr;   // (N, D), a row for each token t; with `of_keys` (B, K, D), a row for each key
  KeyRows<__nv_bfloat16> to;
  const float2* rope = nullptr;  // null: no positions
  bool add = false, of_keys = false;
};

Status rotate_back(const RotateBackArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
