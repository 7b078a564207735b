#include "core/trace/attention_summary.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace rat {

std::vector<float> attention_overview(std::span<const float> weights, int64_t rows, int64_t cols) {
  const int64_t R = std::min(rows, overview_size), S = std::min(cols, overview_size);
  std::vector<float> pooled(static_cast<std::size_t>(R * S), std::numeric_limits<float>::quiet_NaN());
  for (int64_t r = 0; r < R; ++r) {
    for (int64_t s = 0; s < S; ++s) {
      float& cell = pooled[static_cast<std::size_t>(r * S + s)];
      for (int64_t t = r * rows / R; t < (r + 1) * rows / R; ++t)
        for (int64_t j = s * cols / S; j < (s + 1) * cols / S; ++j) {
          const float weight = weights[static_cast<std::size_t>(t * cols + j)];
          if (weight > cell || std::isnan(cell)) cell = weight;  // false for an unseen weight over a seen cell
        }
    }
  }
  return pooled;
}

float mean_entropy(std::span<const float> weights, int64_t rows, int64_t cols) {
  double sum = 0;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const auto p = static_cast<double>(weights[static_cast<std::size_t>(i)]);
    if (p > 0) sum -= p * std::log(p);
  }
  return static_cast<float>(sum / static_cast<double>(std::max<int64_t>(1, rows)));
}

}  // namespace rat
