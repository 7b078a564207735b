// The gradient that comes back through the output projection, and the output gate's on it:
//
//   grad_y = grad W_out;  grad_out = grad_y sigmoid(z);  grad_z = grad_y y (1 - sigmoid(z));
//   delta[t,h] = sum over the head of grad_y y
//
// Shapes: grad, y, grad_out (rows, D); W_out (D, D); z, grad_z (rows, D) with a row stride, may be the same; delta (B*H, T).
// Paths:  fused takes the gate where the sums of the product still lie in registers, on Hopper's tensor cores, for heads of
//         64 and 128 in bf16; separate is a product of cuBLASLt and then the gate on rounded values, for everything else.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/chunk_attention.h"

namespace rat::kernels::cuda {

class Gemm;

enum class GatePath { separate, fused };

template <class T>
struct GateProductBackwardArgs {
  RatShape shape;
  const T *grad = nullptr, *weight = nullptr, *y = nullptr, *z = nullptr;
  int64_t z_stride = 0;
  T *grad_out = nullptr, *grad_z = nullptr;
  int64_t grad_z_stride = 0;
  float* delta = nullptr;
};

// The fastest that this device, this build and these sizes have.
template <class T>
GatePath best_gate_path(const RatShape& shape);

template <class T>
Status gate_product_backward(const GateProductBackwardArgs<T>& args, GatePath path, Gemm& gemm, cudaStream_t stream);

#if defined(RAT_CUDA_HOPPER)
namespace paths {  // only gate_product.cpp calls it, after its checks
Status wgmma_gate_product_backward(const GateProductBackwardArgs<__nv_bfloat16>& args, cudaStream_t stream);
}  // namespace paths
#endif

}  // namespace rat::kernels::cuda
