#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/base/status.h"

namespace rat {

// Greedy takes the first of the largest. NaN logits are never picked; if all are NaN, token 0 is.
int32_t Sampler::sample(std::span<const float> logits) {
  RAT_CHECK(!logits.empty(), "sampling needs logits");
  std::vector<int32_t> order;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (!std::isnan(logits[i])) order.push_back(static_cast<int32_t>(i));
  if (order.empty()) return 0;
  const auto logit = [&](int32_t token) { return static_cast<double>(logits[static_cast<std::size_t>(token)]); };
  const auto larger = [&](int32_t a, int32_t b) { return logit(a) > logit(b) || (logit(a) == logit(b) && a < b); };
  const int32_t best = *std::min_element(order.begin(), order.end(), larger);
  if (!(config_.temperature > 0.0) || std::isinf(logit(best))) return best;
  if (config_.top_k > 0 && config_.top_k < static_cast<int64_t>(order.size())) {
    std::nth_element(order.begin(), order.begin() + config_.top_k, order.end(), larger);
    order.resize(static_cast<std::size_t>(config_.top_k));
    std::sort(order.begin(), order.end());
  }
  std::vector<double> cumulative;
  double sum = 0;
  for (const int32_t token : order)
    cumulative.push_back(sum += std::exp((logit(token) - logit(best)) / config_.temperature));
  const double pick = static_cast<double>(rng_() >> 11) * 0x1p-53 * sum;
  const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), pick);
  return order[std::min(static_cast<std::size_t>(at - cumulative.begin()), order.size() - 1)];
}

}  // namespace rat
