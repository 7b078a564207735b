// Small summaries of one head's attention weights (T, K), in which unseen cells are NaN.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace rat {

inline constexpr int64_t overview_size = 48;  // most rows and columns of a thumbnail

// Max-pooled to (min(T, 48), min(K, 48)); a cell in which nothing is seen is NaN.
std::vector<float> attention_overview(std::span<const float> weights, int64_t rows, int64_t cols);
// Mean over rows of -sum p ln p, in nats; 0 ln 0 is 0.
float mean_entropy(std::span<const float> weights, int64_t rows, int64_t cols);

}  // namespace rat
