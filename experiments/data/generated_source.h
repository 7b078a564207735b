// Tasks whose sequences are made, not read. A sequence is drawn from a stream of random numbers that is named by its
// place: (training, seed, step, row) or (validation, row). No two sequences share a stream, so training and validation
// never do, and any of them can be made without those before it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "experiments/data/data_source.h"
#include "experiments/data/random_stream.h"

namespace rat {

class GeneratedSource : public DataSource {
 public:
  Result<TokenBatch> train_batch(int64_t step, int64_t batch) const final;
  Result<std::vector<TokenBatch>> validation(int64_t batch, int64_t max_tokens) const final;
  Result<std::vector<int32_t>> probe_tokens(int64_t n) const final;
  std::string hash() const final;
  int64_t vocab() const final { return vocab_; }
  bool byte_tokens() const final { return false; }
  int64_t validation_size() const final { return 0; }

 protected:
  GeneratedSource(int64_t vocab, int64_t seq_len, uint64_t seed) : vocab_(vocab), seq_len_(seq_len), seed_(seed) {}
  int64_t seq_len() const { return seq_len_; }

  // Writes one sequence of T tokens: `inputs` come as 0, `targets` as ignore_target.
  virtual void make(RandomStream& random, std::span<int32_t> inputs, std::span<int32_t> targets) const = 0;
  virtual std::string settings() const = 0;  // "mqar 1: pairs 4, queries 16": enters the hash

 private:
  TokenBatch empty_batch() const { return {.batch = 0, .tokens = seq_len_, .inputs = {}, .targets = {}}; }
  void append(TokenBatch& batch, RandomStream random) const;

  int64_t vocab_, seq_len_;
  uint64_t seed_;
};

// The stream of validation sequence `row`, whatever the seed of the run.
RandomStream validation_stream(int64_t row);
// `count` distinct numbers of 0 .. n-1 in random order.
std::vector<int64_t> draw_distinct(RandomStream& random, int64_t n, int64_t count);
// Uniform in [0, bound).
int64_t draw_below(RandomStream& random, int64_t bound);

}  // namespace rat
