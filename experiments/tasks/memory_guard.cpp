#include "experiments/tasks/memory_guard.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "core/cost_model.h"

namespace rat {
namespace {

constexpr int64_t small_pass_tokens = 8192;  // more at a time is not faster
constexpr int64_t small_pass_bytes = int64_t{256} << 20;
constexpr int64_t most_decoded = 512;
constexpr int64_t small_caches_bytes = int64_t{1} << 30;
constexpr double gib = 1 << 30;

}  // namespace

// The cost model counts what training keeps of every layer; a forward pass holds one layer at a time.
int64_t forward_bytes(const ModelConfig& model, int64_t seq_len, int64_t batch) {
  int64_t widest = 0;
  for (const LayerConfig& layer : model.layers) {
    ModelConfig one = model;
    one.layers = {layer};
    const CostEstimate cost = estimate_cost(one, seq_len, batch);
    widest = std::max(widest, cost.training_bytes - 16 * cost.parameters);
  }
  return widest + 4 * batch * seq_len * model.vocab;
}

int64_t available_memory_bytes() {
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) return std::stoll(line.substr(13)) * 1024;
  return 0;
}

Status check_memory(const ModelConfig& model, int64_t seq_len, int64_t limit) {
  const int64_t needed = forward_bytes(model, seq_len, 1);
  if (needed <= limit) return ok();
  return fail(ErrorCode::invalid_argument,
              "a sequence of {} tokens needs about {:.2f} GiB and {:.2f} GiB may be used; measure shorter ones with "
              "--lengths or raise --memory",
              seq_len, static_cast<double>(needed) / gib, static_cast<double>(limit) / gib);
}

int64_t score_batch(const ModelConfig& model, int64_t seq_len, int64_t limit) {
  const int64_t bytes = std::max<int64_t>(1, forward_bytes(model, seq_len, 1));
  return std::max<int64_t>(1, std::min(small_pass_tokens / seq_len, std::min(small_pass_bytes, limit) / bytes));
}

// A cache that grows holds up to twice its contents, and for a moment what it grows from.
int64_t decode_batch(const ModelConfig& model, int64_t seq_len, int64_t limit) {
  const int64_t bytes = 4 * estimate_cost(model, seq_len, 1).decode_cache_bytes + 8 * model.vocab;
  return std::clamp<int64_t>(std::min(small_caches_bytes, limit) / std::max<int64_t>(1, bytes), 1, most_decoded);
}

}  // namespace rat
