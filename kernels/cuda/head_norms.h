// Root-mean-square normalisation of heads, each with weights of its own, of one result or of the sum of two: between
// the attention of RAttention, or linear attention alone, and the output projection.
//
//   y = sum over parts of n(x) w,   n(x)[h] = x[h] r[h],   r[h] = 1 / sqrt(mean over the head of x^2 + eps)
//
// Source: Wang et al., RAttention, arXiv:2506.15545; eps 1e-8 as published. Shapes: x, y (N, D) without gaps; weights
// (D) float32. float32 arithmetic, rounded once. Refused before any launch: head sizes other than 64 and 128.
#pragma once

#include <cuda_bf16.h>

#include "kernels/cuda/shape.h"

namespace rat::kernels::cuda {

struct HeadNormsArgs {
  RatShape shape;                  // of attention over tokens
  const __nv_bfloat16* x[2] = {};  // the second null: one part
  const float* weight[2] = {};
  __nv_bfloat16* y = nullptr;
  float epsilon = 1e-8f;
};

// grad_x = r (w g - x r^2 mean(w g x));  grad_weight += sum over rows of g x r;  delta[b,h,t] = sum over the head of
// grad_x x, of the first part.
struct HeadNormsBackwardArgs {
  HeadNormsArgs forward;  // y is not used
  const __nv_bfloat16* grad_y = nullptr;
  __nv_bfloat16* grad_x[2] = {};
  float* grad_weight[2] = {};  // (D), added to
  float* delta = nullptr;      // (B*H, T), or null
  float* workspace = nullptr;  // head_norms_workspace floats
};

int64_t head_norms_workspace(const RatShape& shape);
Status head_norms(const HeadNormsArgs& args, cudaStream_t stream);
Status head_norms_backward(const HeadNormsBackwardArgs& args, cudaStream_t stream);

}  // namespace rat::kernels::cuda
