// The values of one forward pass that someone asked for: immutable once published, readable from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/tokenizer.h"

namespace rat {

// Named internal values. Axes:
//   gate, out_gate, state_v   (T, D)        gate in [0, 1]: 1 keeps the whole old state
//   state_k                   (T, D)        the running gated key, before RoPE (rat)
//   attention                 (H, T, K)     softmax weights. rat: K = C + 1, column c < C is the end state of chunk c,
//                                           column C the query's own running state. attention, swa: K = T.
//                                           Cells no query may see are NaN, so a mask is never mistaken for a zero.
//   attention_overview        (H, R, S)     `attention` max-pooled to at most 48 x 48, for thumbnails (NaN = masked)
//   attention_entropy         (H)           mean over queries of the entropy of the weights, nats
//   residual                  (T, D)        the residual stream after the block
//   logits                    (T, V)        layer -1
enum class Probe : uint8_t {
  gate, out_gate, state_k, state_v, attention, attention_overview, attention_entropy, residual, logits, count
};

std::string_view probe_name(Probe probe);                  // "gate", "state_k", ...
Result<Probe> parse_probe(std::string_view name);          // lists the known names on a typo
std::vector<Probe> probes_of(const LayerConfig& layer);    // what this kind of layer can show

struct ProbeTensor {
  Probe probe = Probe::gate;
  int layer = 0;                // -1 for the whole model
  std::vector<int64_t> shape;
  std::vector<float> values;    // row-major

  // Row (i) of a (T, D) tensor, row (i, j) of an (H, T, K) tensor.
  std::span<const float> row(int64_t i) const {
    const int64_t n = shape.back();
    return {values.data() + i * n, static_cast<std::size_t>(n)};
  }
  std::span<const float> row(int64_t i, int64_t j) const { return row(i * shape[shape.size() - 2] + j); }
};

// Which values to record. An empty request records nothing and costs nothing.
struct ProbeRequest {
  struct Item {
    Probe probe;
    int layer;  // -1: every layer that has it
    bool operator==(const Item&) const = default;
  };
  std::vector<Item> items;

  bool wants(Probe probe, int layer) const {
    for (const Item& item : items)
      if (item.probe == probe && (item.layer == layer || item.layer == -1)) return true;
    return false;
  }
  bool operator==(const ProbeRequest&) const = default;
};

struct TraceSnapshot {
  uint64_t serial = 0;            // grows with every published snapshot; views use it to notice news
  std::string run_id;             // empty: not a stored run
  int64_t step = 0;               // optimizer steps the weights have seen
  std::string source;             // "validation text", "prompt", "generation": what the tokens are
  ModelConfig model;
  std::vector<int32_t> tokens;    // (T) input ids
  bool byte_tokens = true;        // ids are bytes of text; false: show the pieces of `tokenizer`, or the numbers
  std::shared_ptr<const Tokenizer> tokenizer;  // text of the ids; null: bytes or numbers, as byte_tokens says
  std::string device = "cpu";
  std::string dtype = "f32";
  std::string kernel_path;        // what computed it, e.g. "probe pass, f32 CPU kernels"
  double cost_ms = 0;             // what recording cost
  std::vector<ProbeTensor> tensors;

  int64_t token_count() const { return static_cast<int64_t>(tokens.size()); }
  const ProbeTensor* find(Probe probe, int layer) const {
    for (const ProbeTensor& tensor : tensors)
      if (tensor.probe == probe && tensor.layer == layer) return &tensor;
    return nullptr;
  }
};

// One writer, any number of readers. The lock guards a pointer, never the data behind it.
template <class T>
class Slot {
 public:
  void publish(std::shared_ptr<const T> next) {
    const std::lock_guard lock(mutex_);
    latest_.swap(next);
  }
  std::shared_ptr<const T> latest() const {
    const std::lock_guard lock(mutex_);
    return latest_;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> latest_ = std::make_shared<const T>();
};

// Tokens until a state written now has halved: ln(1/2) / ln(gate). +inf for gate 1, 0 for gate 0.
double half_life_tokens(double gate);
// Per channel half-life of the geometric-mean gate over the trace: (D). `gate` is (T, D).
std::vector<double> channel_half_lives(const ProbeTensor& gate);

}  // namespace rat
