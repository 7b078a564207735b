#include "experiments/data/mqar_source.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/io/sha256.h"
#include "experiments/data/random_stream.h"

namespace rat {
namespace {

// Names of the two kinds of random streams: a training and a validation sequence never share one.
constexpr uint64_t train_stream = 0x747261696e;       // "train"
constexpr uint64_t validation_stream = 0x76616c6964;  // "valid"

// `count` distinct numbers of 0 .. n-1 in random order (the first steps of a Fisher-Yates shuffle).
std::vector<int64_t> draw_distinct(RandomStream& random, int64_t n, int64_t count) {
  std::vector<int64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t i = 0; i < count; ++i)
    std::swap(all[i], all[i + static_cast<int64_t>(random.below(static_cast<uint64_t>(n - i)))]);
  all.resize(static_cast<std::size_t>(count));
  return all;
}

class MqarSource final : public DataSource {
 public:
  MqarSource(const DataConfig& data, int64_t vocab, int64_t seq_len, uint64_t seed)
      : pairs_(data.pairs), queries_(data.queries), vocab_(vocab), seq_len_(seq_len), seed_(seed) {}

  Result<TokenBatch> train_batch(int64_t step, int64_t batch) const override {
    RAT_CHECK(step >= 0 && batch >= 1, "steps count from 0 and a batch holds a sequence");
    TokenBatch result = empty_batch();
    for (int64_t row = 0; row < batch; ++row)
      append(result, RandomStream{train_stream, seed_, static_cast<uint64_t>(step), static_cast<uint64_t>(row)});
    return result;
  }

  Result<std::vector<TokenBatch>> validation(int64_t batch, int64_t max_tokens) const override {
    RAT_CHECK(batch >= 1, "a batch holds a sequence");
    const int64_t sequences = std::max<int64_t>(1, max_tokens / seq_len_);
    std::vector<TokenBatch> batches;
    for (int64_t row = 0; row < sequences; ++row) {
      if (row % batch == 0) batches.push_back(empty_batch());
      append(batches.back(), RandomStream{validation_stream, static_cast<uint64_t>(row)});
    }
    return batches;
  }

  Result<std::vector<int32_t>> probe_tokens(int64_t n) const override {
    TokenBatch first = empty_batch();
    append(first, RandomStream{validation_stream, 0});
    first.inputs.resize(static_cast<std::size_t>(std::clamp<int64_t>(n, 0, seq_len_)));
    return first.inputs;
  }

  std::string hash() const override {
    return sha256_hex(fmt::format("mqar 1: pairs {}, queries {}, vocab {}, seq_len {}, seed {}", pairs_, queries_,
                                  vocab_, seq_len_, seed_));
  }
  std::string description() const override {
    return fmt::format("mqar: {} pairs, {} queries in {} tokens, {} keys and {} values", pairs_, queries_, seq_len_,
                       keys(), values());
  }
  int64_t vocab() const override { return vocab_; }
  bool byte_tokens() const override { return false; }

 private:
  int64_t keys() const { return (vocab_ - 1) / 2; }
  int64_t values() const { return vocab_ - 1 - keys(); }
  TokenBatch empty_batch() const { return {.batch = 0, .tokens = seq_len_, .inputs = {}, .targets = {}}; }

  void append(TokenBatch& batch, RandomStream random) const {
    const std::size_t begin = batch.inputs.size();
    batch.inputs.resize(begin + static_cast<std::size_t>(seq_len_), 0);
    batch.targets.resize(begin + static_cast<std::size_t>(seq_len_), ignore_target);
    ++batch.batch;
    int32_t* inputs = batch.inputs.data() + begin;
    int32_t* targets = batch.targets.data() + begin;

    const std::vector<int64_t> chosen = draw_distinct(random, keys(), pairs_);
    for (int64_t i = 0; i < pairs_; ++i) {
      inputs[2 * i] = static_cast<int32_t>(1 + chosen[i]);
      inputs[2 * i + 1] =
          static_cast<int32_t>(1 + keys() + static_cast<int64_t>(random.below(static_cast<uint64_t>(values()))));
    }
    for (const int64_t place : draw_distinct(random, seq_len_ - 2 * pairs_, queries_)) {
      const int64_t asked = static_cast<int64_t>(random.below(static_cast<uint64_t>(pairs_)));
      inputs[2 * pairs_ + place] = inputs[2 * asked];
      targets[2 * pairs_ + place] = inputs[2 * asked + 1];
    }
  }

  int64_t pairs_, queries_, vocab_, seq_len_;
  uint64_t seed_;
};

}  // namespace

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

}  // namespace rat
