// The RAT layer between its projections in float64, written from the equations with plain loops; forward and backward.
#pragma once

#include "kernels/cuda/shape.h"
#include "tests/cuda/check.h"

namespace rat::cuda_test {

using kernels::cuda::RatShape;

// Attention alone: from rotated queries, chunk-end keys and values, own scores and own values.
struct AttentionReference {
  RatShape shape;
  Doubles q_rot, keys, values;  // (N, G*P); (B, H, K, P) with K = full_chunks
  Doubles own_score, own_v, z;  // (N, H), (N, D), (N, D)
  Doubles out, y, lse;          // (N, D), (N, D), (B*H, T)
  // backward
  Doubles grad_y, grad_out, delta, grad_z, grad_q_rot, grad_keys, grad_values, grad_own_score, grad_own_v;

  void forward();
  void backward();  // from grad_y
  int64_t key_rows() const { return shape.full_chunks() > 0 ? shape.full_chunks() : 1; }
  std::size_t key_at(int64_t b, int64_t h, int64_t j) const {
    return static_cast<std::size_t>(((b * shape.heads + h) * key_rows() + j) * shape.head_size);
  }
};

// The whole way from the projected tensor to y.
struct CoreReference {
  RatShape shape;
  bool positions = true;
  Doubles proj, gate_bias;  // (N, W), (D)
  Doubles gate, own_k, own_v;
  AttentionReference attention;
  Doubles grad_proj, grad_gate_bias;

  void forward();
  void backward(const Doubles& grad_y);

 private:
  double projected(int64_t row, int64_t column) const {
    return proj[static_cast<std::size_t>(row * shape.proj_width() + column)];
  }
};

}  // namespace rat::cuda_test
