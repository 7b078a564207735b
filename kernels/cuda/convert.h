// Element by element between float32 and bf16, and GELU on bf16 as the feed-forward half of a block has it.
//
//   to_bf16:       out = round(x)
//   gelu:          y = x Phi(x) within 1.2e-5 (kernels/cuda/gelu.cuh); x becomes the slope, Phi(x) + x phi(x)
//   gelu_backward: grad = grad slope, in place
//
// Shapes: `count` elements without gaps, a multiple of 8, 16-byte aligned.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

Status to_bf16(const float* x, __nv_bfloat16* out, int64_t count, cudaStream_t stream);
Status gelu(__nv_bfloat16* x, __nv_bfloat16* y, int64_t count, cudaStream_t stream);
Status gelu_backward(const __nv_bfloat16* slope, __nv_bfloat16* grad, int64_t count, cudaStream_t stream);

}  // namespace rat::kernels::cuda
