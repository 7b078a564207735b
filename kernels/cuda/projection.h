// The products of a linear layer without bias, weight (n, k) row-major: forward, and the gradients of its input and weight.
#pragma once

#include <cuda_bf16.h>

#include <type_traits>

#include "kernels/cuda/gemm.h"

namespace rat::kernels::cuda {

template <class T>
inline constexpr cudaDataType_t gemm_type = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;

// out (rows, n) = x (rows, k) weight (n, k)^T + residual
template <class T, class X>
Status project(Gemm& gemm, const T* x, const T* weight, const X* residual, X* out, int64_t rows, int64_t n, int64_t k,
               cudaStream_t stream) {
  GemmArgs a;
  a.transpose_b = true;
  a.m = rows, a.n = n, a.k = k;
  a.a = x, a.b = weight, a.c = residual, a.d = out;
  a.lda = k, a.ldb = k, a.ldd = n;
  a.type = gemm_type<T>;
  a.out_type = gemm_type<X>;
  return gemm.run(a, stream);
}

// grad_x (rows, k) = grad_out (rows, n) weight (n, k)
template <class T>
Status project_input_gradient(Gemm& gemm, const T* grad_out, const T* weight, T* grad_x, int64_t rows, int64_t n, int64_t k,
                              cudaStream_t stream) {
  GemmArgs a;
  a.m = rows, a.n = k, a.k = n;
  a.a = grad_out, a.b = weight, a.d = grad_x;
  a.lda = n, a.ldb = k, a.ldd = k;
  a.type = a.out_type = gemm_type<T>;
  return gemm.run(a, stream);
}

// grad_weight (n, k) (+)= grad_out (rows, n)^T x (rows, k)
template <class T>
Status project_weight_gradient(Gemm& gemm, const T* grad_out, const T* x, float* grad_weight, bool add, int64_t rows,
                               int64_t n, int64_t k, cudaStream_t stream) {
  GemmArgs a;
  a.transpose_a = true;
  a.m = n, a.n = k, a.k = rows;
  a.a = grad_out, a.b = x, a.c = add ? grad_weight : nullptr, a.d = grad_weight;
  a.lda = n, a.ldb = k, a.ldd = k;
  a.type = gemm_type<T>;
  a.out_type = CUDA_R_32F;
  return gemm.run(a, stream);
}

}  // namespace rat::kernels::cuda
