#include "experiments/data/generated_source.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/io/sha256.h"

namespace rat {
namespace {

constexpr uint64_t training_name = 0x747261696e;    // "train"
constexpr uint64_t validation_name = 0x76616c6964;  // "valid"

}  // namespace

Result<TokenBatch> GeneratedSource::train_batch(int64_t step, int64_t batch) const {
  RAT_CHECK(step >= 0 && batch >= 1, "steps count from 0 and a batch holds a sequence");
  TokenBatch result = empty_batch();
  for (int64_t row = 0; row < batch; ++row)
    append(result, RandomStream{training_name, seed_, static_cast<uint64_t>(step), static_cast<uint64_t>(row)});
  return result;
}

Result<std::vector<TokenBatch>> GeneratedSource::validation(int64_t batch, int64_t max_tokens) const {
  RAT_CHECK(batch >= 1, "a batch holds a sequence");
  const int64_t sequences = std::max<int64_t>(1, max_tokens / seq_len_);
  std::vector<TokenBatch> batches;
  for (int64_t row = 0; row < sequences; ++row) {
    if (row % batch == 0) batches.push_back(empty_batch());
    append(batches.back(), validation_stream(row));
  }
  return batches;
}

Result<std::vector<int32_t>> GeneratedSource::probe_tokens(int64_t n) const {
  TokenBatch first = empty_batch();
  append(first, validation_stream(0));
  first.inputs.resize(static_cast<std::size_t>(std::clamp<int64_t>(n, 0, seq_len_)));
  return first.inputs;
}

std::string GeneratedSource::hash() const {
  return sha256_hex(fmt::format("{}, vocab {}, seq_len {}, seed {}", settings(), vocab_, seq_len_, seed_));
}

void GeneratedSource::append(TokenBatch& batch, RandomStream random) const {
  const auto begin = batch.inputs.size(), T = static_cast<std::size_t>(seq_len_);
  batch.inputs.resize(begin + T, 0);
  batch.targets.resize(begin + T, ignore_target);
  ++batch.batch;
  make(random, std::span(batch.inputs).subspan(begin), std::span(batch.targets).subspan(begin));
}

RandomStream validation_stream(int64_t row) { return RandomStream{validation_name, static_cast<uint64_t>(row)}; }

// The first steps of a Fisher-Yates shuffle.
std::vector<int64_t> draw_distinct(RandomStream& random, int64_t n, int64_t count) {
  std::vector<int64_t> all(static_cast<std::size_t>(n));
  std::iota(all.begin(), all.end(), 0);
  for (int64_t i = 0; i < count; ++i) std::swap(all[i], all[i + draw_below(random, n - i)]);
  all.resize(static_cast<std::size_t>(count));
  return all;
}

int64_t draw_below(RandomStream& random, int64_t bound) {
  return static_cast<int64_t>(random.below(static_cast<uint64_t>(bound)));
}

}  // namespace rat
