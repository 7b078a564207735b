// Row functions shared by the CPU attention kernels; vectorised in softmax_rows_cpu.cpp. Rows are `stride` apart.
#pragma once

#include <cstdint>

namespace rat::kernels::cpu {

// A tile of scores (rows, cols), dense; row r sees columns [begin[r], end[r]).
struct ScoreTile {
  float* scores;
  int64_t rows, cols;
  const int32_t *begin, *end;
};

// One step of a softmax over tiles: seen scores become exp(score - max), the others 0, with max[r] and sum[r] the
// running maximum and sum. Where the maximum grows, sum[r] and the row of `out` (rows, n) are scaled to it.
// sum[r] = 0: nothing was seen yet, and out is not read.
void softmax_tile(const ScoreTile& tile, float* max, float* sum, float* out, int64_t out_stride, int64_t n);
// out[r] /= sum[r]; lse[r] = max[r] + log(sum[r]).
void finish_softmax(int64_t rows, const float* max, const float* sum, float* out, int64_t out_stride, int64_t n,
                    float* lse);
// Seen scores become exp(score - lse[r]), the others 0.
void weights_from_lse(const ScoreTile& tile, const float* lse);
// grad = weights * (grad - mean_grad[r]) * scale where seen, else 0: the softmax's gradient. `tile` holds the weights.
void softmax_gradient(const ScoreTile& tile, float* grad, const float* mean_grad, float scale);

// out[r] = scale * a[r] . b[r]
void dot_rows(int64_t rows, int64_t n, float scale, const float* a, int64_t a_stride, const float* b, int64_t b_stride,
              float* out);
// y[r] = scale[r] * x[r], or y[r] += ...
void scale_rows(bool add, int64_t rows, int64_t n, const float* scale, const float* x, int64_t x_stride, float* y,
                int64_t y_stride);

// One query of n values against `keys` rows of k and v, and own_k and own_v unless null: out = softmax(...) v.
// `scores` has room for `keys` values.
struct OneQuery {
  int64_t n, keys;
  float scale;
  const float* q;
  const float *k, *v;
  int64_t k_stride, v_stride;
  const float *own_q, *own_k, *own_v;
  float *scores, *out;
};
void attend_one_head(const OneQuery& one);

}  // namespace rat::kernels::cpu
