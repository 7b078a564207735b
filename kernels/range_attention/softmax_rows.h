// Row functions shared by the CPU attention kernels; vectorised in softmax_rows_cpu.cpp.
#pragma once

#include <cstdint>

namespace rat::kernels::cpu {

float dot(const float* a, const float* b, int64_t n);
void axpy(float scale, const float* x, float* y, int64_t n);  // y += scale * x

// Softmax over scores[begin, end) joined with *own (null: none), in place; the other cells of [0, n) become 0.
// Returns the log-sum-exp.
float softmax_row(float* scores, int64_t n, int64_t begin, int64_t end, float* own);
// scores[begin, end) become exp(score - lse); the other cells of [0, n) become 0.
void weights_from_lse(float* scores, int64_t n, int64_t begin, int64_t end, float lse);
// grad[i] = weights[i] * (grad[i] - mean_grad) * scale over [0, n): the softmax's gradient.
void softmax_gradient(const float* weights, float* grad, int64_t n, float mean_grad, float scale);

}  // namespace rat::kernels::cpu
