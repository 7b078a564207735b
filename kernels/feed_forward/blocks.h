// The inner kernels of the CPU's fused feed-forward, for a block of rows on the calling thread. CPU only.
//
// Every product of 32 x 32 hidden values is taken on while it lies in the first-level cache: GELU, its derivative and
// rounding to the next product's operand cost no pass over memory.
#pragma once

#include <cstdint>

#include "kernels/matmul/bf16_squares.h"

namespace rat::kernels::cpu {

// Weights as panels of 32 columns of op(W), each (k / 32) squares of pairs.
struct HiddenBlock {
  const float* normed;  // (rows, D)
  int64_t rows, D, F;
  uint16_t* before_gelu;  // squares of rows, (rows / 32, F / 32): kept for backward
};

struct ForwardBlock {
  HiddenBlock of;
  const uint16_t *fc1, *fc2;  // op(W) = W^T
  const float* x;             // (rows, D)
  float* y;                   // (rows, D), may be x
};

struct BackwardBlock {
  HiddenBlock of;
  const uint16_t *fc2, *fc1;  // op(W) = W
  const float* grad;          // (rows, D)
  float* grad_normed;         // (rows, D), written
  int64_t first_row;          // of the block
  RowSquares normed, grad_y;  // transposed: left operands of gradients of weights
  RowSquares hidden, grad_hidden;  // in pairs: right ones
};

struct FeedForwardKernels {
  void (*forward)(const ForwardBlock& block);
  void (*backward)(const BackwardBlock& block);
};

// Null where this CPU cannot.
const FeedForwardKernels* amx_feed_forward();
const FeedForwardKernels* avx512_bf16_feed_forward(Avx512Products how = avx512_products());

}  // namespace rat::kernels::cpu
