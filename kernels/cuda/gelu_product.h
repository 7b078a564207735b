// The first product of the feed-forward half and the gradient that comes back through the second, each with GELU:
//
//   gelu_product:           activated = GELU(x W_1^T),  slope = GELU'(x W_1^T)
//   gelu_product_backward:  grad_hidden = (grad W_2) slope
//
// The slope is kept rather than the hidden values: they have what it takes in common, and backward has only to multiply.
//
// Shapes: x, grad (rows, channels), W_1 (width, channels), W_2 (channels, width), the others (rows, width); bf16 without
//         gaps, channels and width multiples of 8; sums in float32, GELU to 1.2e-5 (kernels/cuda/gelu.cuh).
// Paths:  fused takes GELU where the sums still lie in registers, on Hopper's tensor cores (TMA, wgmma), so that the
//         hidden values are never written; separate is a product of cuBLASLt and then GELU on rounded values, for every
//         other GPU.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

class Gemm;

enum class GeluPath { separate, fused };

struct GeluProductArgs {
  const __nv_bfloat16 *x = nullptr, *weight = nullptr;
  __nv_bfloat16 *slope = nullptr, *activated = nullptr;
  int64_t rows = 0, channels = 0, width = 0;
  bool keep_slope = true;  // false: no backward comes, and what `slope` holds afterwards is undefined
};

struct GeluProductBackwardArgs {
  const __nv_bfloat16 *grad = nullptr, *weight = nullptr, *slope = nullptr;
  __nv_bfloat16* grad_hidden = nullptr;
  int64_t rows = 0, channels = 0, width = 0;
};

// The fastest that this device and this build have.
GeluPath best_gelu_path();

Status gelu_product(const GeluProductArgs& args, GeluPath path, Gemm& gemm, cudaStream_t stream);
Status gelu_product_backward(const GeluProductBackwardArgs& args, GeluPath path, Gemm& gemm, cudaStream_t stream);

#if defined(RAT_CUDA_HOPPER)
namespace paths {  // only gelu_product.cpp calls them, after its checks
Status wgmma_gelu_product(const GeluProductArgs& args, cudaStream_t stream);
Status wgmma_gelu_product_backward(const GeluProductBackwardArgs& args, cudaStream_t stream);
}  // namespace paths
#endif

}  // namespace rat::kernels::cuda
