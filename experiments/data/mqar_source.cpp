// Multi-query associative recall (Arora et al., Zoology, arXiv:2312.04927): the sequence opens with `pairs` key-value
// pairs, then keys come back at random places, and only there the value has to be predicted.
//
//   inputs   k3 v9 k7 v2 k1 v5 | .  .  k7 .  .  k3 .
//   targets  .  .  .  .  .  .  | .  .  v2 .  .  v9 .      (. = filler in inputs, ignore_target in targets)
//
// Token ids: 0 filler; 1 .. K keys; K+1 .. V-1 values, K = (V-1)/2. Keys within a sequence are distinct; each query is
// a key drawn uniformly, so with more queries than pairs keys repeat. Recall accuracy is correct / targets.
#include <algorithm>

#include "experiments/data/data_kinds.h"
#include "experiments/data/generated_source.h"

namespace rat {
namespace {

class MqarSource final : public GeneratedSource {
 public:
  MqarSource(const DataConfig& data, int64_t vocab, int64_t seq_len, uint64_t seed)
      : GeneratedSource(vocab, seq_len, seed), pairs_(data.pairs), queries_(data.queries) {}

  std::string description() const override {
    return fmt::format("mqar: {} pairs, {} queries in {} tokens, {} keys and {} values", pairs_, queries_, seq_len(),
                       keys(), values());
  }
  TokenRange answers() const override { return {1 + keys(), values()}; }

 private:
  int64_t keys() const { return (vocab() - 1) / 2; }
  int64_t values() const { return vocab() - 1 - keys(); }
  std::string settings() const override { return fmt::format("mqar 1: pairs {}, queries {}", pairs_, queries_); }

  void make(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const override {
    const std::vector<int64_t> chosen = draw_distinct(random, keys(), pairs_);
    for (int64_t i = 0; i < pairs_; ++i) {
      inputs[2 * i] = static_cast<int32_t>(1 + chosen[i]);
      inputs[2 * i + 1] = static_cast<int32_t>(1 + keys() + draw_below(random, values()));
    }
    for (const int64_t place : draw_distinct(random, seq_len() - 2 * pairs_, queries_)) {
      const int64_t asked = draw_below(random, pairs_);
      inputs[2 * pairs_ + place] = inputs[2 * asked];
      targets[2 * pairs_ + place] = inputs[2 * asked + 1];
    }
  }

  int64_t pairs_, queries_;
};

Status validate_mqar(const DataConfig& data, const ModelConfig& model, int64_t seq_len) {
  if (data.pairs < 1 || data.queries < 1 || data.pairs > seq_len || data.queries > seq_len)
    return fail(ErrorCode::invalid_argument,
                "mqar with data.pairs {} and data.queries {} is impossible in seq_len {}; use 1 or more of "
                "each and at most 2 * pairs + queries = seq_len",
                data.pairs, data.queries, seq_len);
  if (2 * data.pairs + data.queries > seq_len)
    return fail(ErrorCode::invalid_argument,
                "mqar with {} pairs and {} queries needs {} tokens but seq_len is {}; raise train.seq_len or "
                "lower data.pairs",
                data.pairs, data.queries, 2 * data.pairs + data.queries, seq_len);
  const int64_t keys = (model.vocab - 1) / 2;
  if (keys < std::max<int64_t>(data.pairs, 2))
    return fail(ErrorCode::invalid_argument,
                "mqar with {} pairs needs {} distinct keys but model.vocab {} gives {}; set model.vocab to at "
                "least {}",
                data.pairs, std::max<int64_t>(data.pairs, 2), model.vocab, keys,
                2 * std::max<int64_t>(data.pairs, 2) + 1);
  return ok();
}

Result<std::unique_ptr<DataSource>> open_mqar(const DataConfig& data, const ModelConfig& model, int64_t seq_len,
                                              uint64_t seed, const StopFlag*) {
  std::unique_ptr<DataSource> source = std::make_unique<MqarSource>(data, model.vocab, seq_len, seed);
  return source;
}

}  // namespace

const DataKind& mqar_data() {
  static const DataKind kind{"mqar",
                             "Recall (mqar)",
                             "Key-value pairs open the sequence; where a key comes back, its value is asked for.",
                             DataFiles::none,
                             65,
                             {data_pairs, data_queries},
                             validate_mqar,
                             open_mqar};
  return kind;
}

}  // namespace rat
