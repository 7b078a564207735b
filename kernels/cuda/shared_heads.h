// Keys and values that several heads share (kv_heads below heads): head h reads head h % kv_heads, so column c of D
// reads column c % KV, and its gradient is the sum over the heads that read it. Attention itself runs on rows of D
// columns.
//
// Shapes: shared: KV columns of rows `stride` elements apart; each: (N, D). KV and D multiples of 8, rows 16-byte
// aligned. Sums are float32, in the order of the heads.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

struct SharedHeads {
  int64_t rows = 0, channels = 0, shared_channels = 0, stride = 0;
  __nv_bfloat16* shared[2] = {};  // keys, values
  __nv_bfloat16* each[2] = {};
  int count = 2;
};

Status repeat_heads(const SharedHeads& args, cudaStream_t stream);  // each from shared
Status sum_heads(const SharedHeads& args, cudaStream_t stream);     // shared from each

}  // namespace rat::kernels::cuda
