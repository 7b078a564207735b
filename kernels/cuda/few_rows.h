// Products of few rows with a weight, as a step of decoding has them: what they take is reading the weight.
//
//   out = x weight^T + residual,   with GELU:  out = GELU(x weight^T)
//   and with a norm in place of x:  x = rms_norm(norm.x), rounded before it is divided by the root of the mean square
//
// Shapes: x (rows, k) and weight (n, k) in bf16 without gaps, 16-byte aligned; norm.x (rows, k), norm.weight (k); out and
//         residual (rows, n). Sums in float32, in an order that depends on the sizes alone; GELU to 1.2e-5
//         (kernels/cuda/gelu.cuh). out may be residual.
// Needs:  Hopper (clusters of blocks, copies by the tensor memory accelerator).
// Trap:   weights are asked for before the kernel ahead in the stream has ended, so that one must not write them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

struct NormedRows {
  const float *x = nullptr, *weight = nullptr;
  float epsilon = 1e-6f;
};

// X: float or bf16.
template <class X>
struct FewRowsArgs {
  const __nv_bfloat16 *x = nullptr, *weight = nullptr;
  NormedRows norm{};            // in place of x where that is null
  const X* residual = nullptr;  // null: none
  bool gelu = false;
  X* out = nullptr;
  int64_t rows = 0, n = 0, k = 0;
  int32_t* counter = nullptr;  // one is added to it
};

inline constexpr int64_t kFewRows = 64, kFewNormedRows = 16, kMostNormed = 4096;

// Whether this device and this build have it: up to kFewRows rows, n and k multiples of 8; with a norm kFewNormedRows and k up
// to kMostNormed.
bool few_rows_takes(int64_t rows, int64_t n, int64_t k);
bool few_rows_takes_norm(int64_t rows, int64_t n, int64_t k);

template <class X>
Status few_rows_product(const FewRowsArgs<X>& args, cudaStream_t stream);

#if defined(RAT_CUDA_HOPPER)
namespace paths {  // only few_rows.cpp calls it, after its checks
template <class X>
Status hopper_few_rows(const FewRowsArgs<X>& args, cudaStream_t stream);
}  // namespace paths
#endif

}  // namespace rat::kernels::cuda
