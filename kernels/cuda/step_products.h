// The first and the last product of a layer in a step of decoding:
//
//   begin:  proj = rms_norm(x) W_in^T        end:  out = y W_out^T + residual
//
// Few rows are normed within the product (few_rows.h). The step counts its token in the first kernel, or, where that would be
// just ahead of the kernel that reads the counter early (early_launch.cuh), in the last one.
//
// Shapes: x, residual and out (rows, channels), proj (rows, width), y (rows, channels); X: type of the residual stream.
#pragma once

#include <type_traits>

#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {

template <class T, class X>
struct StepProducts {
  int64_t rows = 0, channels = 0, width = 0;
  const X* x = nullptr;
  const float* norm = nullptr;
  const T *in_proj = nullptr, *out_proj = nullptr, *y = nullptr;
  T *normed = nullptr, *proj = nullptr;  // normed: (rows, channels), for what lies between
  const X* residual = nullptr;           // null: none
  X* out = nullptr;                      // may be x and residual
  float epsilon = 1e-6f;
  int32_t* counter = nullptr;

  static constexpr bool kHalf = std::is_same_v<T, __nv_bfloat16> && std::is_same_v<X, float>;
  bool norms_within() const {
    return kHalf && few_rows_takes_norm(rows, width, channels) && few_rows_takes(rows, channels, channels);
  }
  // How far the counter is ahead of the token's position between begin and end.
  int ahead() const { return counter != nullptr && !norms_within() ? 1 : 0; }

  Status begin(Gemm& gemm, cudaStream_t stream) const {
    if constexpr (kHalf) {
      if (norms_within())
        return few_rows_product<T>(
            {.weight = in_proj, .norm = {x, norm, epsilon}, .out = proj, .rows = rows, .n = width, .k = channels},
            stream);
    }
    RAT_CUDA_TRY(rms_norm<T, X>({x, norm, normed, nullptr, rows, channels, epsilon, true, counter}, stream));
    return multiply<T>(gemm, normed, in_proj, nullptr, proj, width, nullptr, stream);
  }
  Status end(Gemm& gemm, cudaStream_t stream) const {
    return multiply<X>(gemm, y, out_proj, residual, out, channels, norms_within() ? counter : nullptr, stream);
  }

 private:
  template <class Out>
  Status multiply(Gemm& gemm, const T* from, const T* weight, const Out* add, Out* to, int64_t n, int32_t* count,
                  cudaStream_t stream) const {
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
      if (few_rows_takes(rows, n, channels))
        return few_rows_product<Out>({.x = from,
                                      .weight = weight,
                                      .residual = add,
                                      .out = to,
                                      .rows = rows,
                                      .n = n,
                                      .k = channels,
                                      .counter = count},
                                     stream);
    }
    return project<T, Out>(gemm, from, weight, add, to, rows, n, channels, stream);
  }
};

}  // namespace rat::kernels::cuda
