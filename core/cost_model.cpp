#include "core/cost_model.h"

#include <algorithm>

#include "core/mixer_list.h"
#include "core/weights.h"

namespace rat {

// A weight matrix costs two flops per element and token; backward costs twice forward. Activations kept per token: two
// copies of the residual stream, the projections, the mixer's own and the feed-forward's; one layer's worth of scratch.
CostEstimate estimate_cost(const ModelConfig& config, int64_t seq_len, int64_t batch) {
  CostEstimate cost;
  const auto D = config.d_model, hidden = config.ffn_mult * config.d_model;
  cost.parameters = weight_count(model_weights(config));
  double matrices = 0, mixing = 0, decode_mixing = 0;
  int64_t saved = 0, widest = hidden;
  for (const LayerConfig& layer : config.layers) {
    const auto type = find_mixer_type(layer.kind);
    if (!type) continue;  // not a valid configuration; validate() says so
    const int64_t width = (*type)->projected_width(config);
    const MixerCost mixer = (*type)->cost(config, layer, seq_len);
    matrices += static_cast<double>(width * D + D * D + 2 * hidden * D);
    mixing += mixer.flops_per_token;
    decode_mixing += mixer.decode_flops;
    cost.decode_cache_bytes += mixer.cache_bytes;
    saved += 2 * D + width + D + mixer.saved_floats_per_token + hidden;
    widest = std::max(widest, width);
  }
  matrices += static_cast<double>(config.vocab * D);
  cost.prefill_flops_per_token = 2 * matrices + mixing;
  cost.train_flops_per_token = 3 * cost.prefill_flops_per_token;
  cost.decode_flops_per_token = 2 * matrices + decode_mixing;
  const int64_t scratch = 4 * D + widest + hidden + 6 * D;
  cost.training_bytes = 16 * cost.parameters + 4 * batch * seq_len * (saved + scratch);
  return cost;
}

}  // namespace rat
