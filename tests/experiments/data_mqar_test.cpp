// The recall task: its layout, that it can be answered from the sequence alone, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "experiments/data/data_source.h"

namespace rat {
namespace {

DataConfig recall(int64_t pairs, int64_t queries) {
  DataConfig config;
  config.kind = "mqar";
  config.pairs = pairs;
  config.queries = queries;
  return config;
}

ModelConfig with_vocab(int64_t vocab) {
  ModelConfig model;
  model.vocab = vocab;
  return model;
}

std::unique_ptr<DataSource> open_recall(int64_t pairs, int64_t queries, int64_t vocab, int64_t seq_len,
                                        uint64_t seed = 1) {
  auto source = DataSource::open(recall(pairs, queries), with_vocab(vocab), seq_len, seed);
  EXPECT_TRUE(source) << (source ? "" : source.error().message);
  return source ? *std::move(source) : nullptr;
}

// Reads the pairs back and answers every query from them.
void expect_answerable(const TokenBatch& batch, int64_t pairs, int64_t queries, int64_t vocab) {
  const int64_t keys = (vocab - 1) / 2;
  for (int64_t row = 0; row < batch.batch; ++row) {
    const int32_t* inputs = batch.inputs.data() + row * batch.tokens;
    const int32_t* targets = batch.targets.data() + row * batch.tokens;
    std::map<int32_t, int32_t> value_of;
    for (int64_t i = 0; i < pairs; ++i) {
      EXPECT_TRUE(inputs[2 * i] >= 1 && inputs[2 * i] <= keys);
      EXPECT_TRUE(inputs[2 * i + 1] > keys && inputs[2 * i + 1] < vocab);
      EXPECT_TRUE(value_of.emplace(inputs[2 * i], inputs[2 * i + 1]).second) << "keys are distinct";
    }
    int64_t asked = 0;
    for (int64_t t = 0; t < batch.tokens; ++t) {
      if (t < 2 * pairs || inputs[t] == 0) {
        EXPECT_EQ(targets[t], ignore_target);
      } else {
        ASSERT_TRUE(value_of.contains(inputs[t]));
        EXPECT_EQ(targets[t], value_of.at(inputs[t]));
        ++asked;
      }
    }
    EXPECT_EQ(asked, queries);
  }
}

TEST(Mqar, EveryQueryIsAnsweredByItsPair) {
  for (const auto& [pairs, queries, vocab, seq_len] :
       {std::array<int64_t, 4>{1, 1, 5, 3}, {8, 16, 64, 64}, {7, 3, 15, 41}, {4, 56, 256, 64}}) {
    SCOPED_TRACE(fmt::format("{} pairs, {} queries, vocab {}, T {}", pairs, queries, vocab, seq_len));
    const auto source = open_recall(pairs, queries, vocab, seq_len);
    ASSERT_TRUE(source);
    const auto batch = source->train_batch(5, 9);
    ASSERT_TRUE(batch);
    EXPECT_EQ(batch->batch, 9);
    EXPECT_EQ(batch->inputs.size(), static_cast<std::size_t>(9 * seq_len));
    expect_answerable(*batch, pairs, queries, vocab);
    const auto validation = source->validation(4, 10 * seq_len);
    ASSERT_TRUE(validation);
    ASSERT_EQ(validation->size(), 3u);
    EXPECT_EQ(validation->back().batch, 2);
    for (const TokenBatch& one : *validation) expect_answerable(one, pairs, queries, vocab);
  }
}

TEST(Mqar, BatchesDependOnSeedAndStepValidationOnNeither) {
  const auto one = open_recall(8, 16, 64, 64, 1), same = open_recall(8, 16, 64, 64, 1),
             other = open_recall(8, 16, 64, 64, 2);
  EXPECT_EQ(one->train_batch(7, 3)->inputs, same->train_batch(7, 3)->inputs);
  EXPECT_NE(one->train_batch(7, 3)->inputs, one->train_batch(8, 3)->inputs);
  EXPECT_NE(one->train_batch(7, 3)->inputs, other->train_batch(7, 3)->inputs);
  EXPECT_EQ(one->validation(8, 512)->front().inputs, other->validation(8, 512)->front().inputs);
  EXPECT_EQ(one->hash(), same->hash());
  EXPECT_NE(one->hash(), other->hash());
  EXPECT_EQ(one->vocab(), 64);
  EXPECT_FALSE(one->byte_tokens());
  EXPECT_EQ(one->probe_tokens(1000)->size(), 64u);
}

// Values are drawn anew for every sequence, so nothing can be learned but recall: over many sequences one key meets
// nearly every value, and no training sequence equals a validation sequence.
TEST(Mqar, KeysSayNothingAboutValuesAndTrainingNeverRepeatsValidation) {
  const auto source = open_recall(4, 4, 21, 16);
  std::map<int32_t, std::set<int32_t>> values_of;
  std::set<std::vector<int32_t>> validation;
  const auto batches = source->validation(64, 64 * 16);
  for (int64_t row = 0; row < 64; ++row)
    validation.emplace(batches->front().inputs.begin() + row * 16, batches->front().inputs.begin() + (row + 1) * 16);
  EXPECT_EQ(validation.size(), 64u);
  for (int64_t step = 0; step < 100; ++step) {
    const auto batch = source->train_batch(step, 8);
    for (int64_t row = 0; row < 8; ++row) {
      const std::vector<int32_t> sequence(batch->inputs.begin() + row * 16, batch->inputs.begin() + (row + 1) * 16);
      EXPECT_FALSE(validation.contains(sequence));
      for (int i = 0; i < 4; ++i) values_of[sequence[2 * i]].insert(sequence[2 * i + 1]);
    }
  }
  ASSERT_EQ(values_of.size(), 10u);
  for (const auto& [key, values] : values_of) EXPECT_EQ(values.size(), 10u) << key;
}

TEST(Mqar, ImpossibleTasksAreRefused) {
  EXPECT_TRUE(validate(recall(8, 16), with_vocab(17), 32));
  EXPECT_FALSE(validate(recall(8, 16), with_vocab(16), 32));  // 7 keys
  EXPECT_FALSE(validate(recall(8, 17), with_vocab(64), 32));  // one token too many
  EXPECT_FALSE(validate(recall(0, 16), with_vocab(64), 64));
  EXPECT_FALSE(validate(recall(8, 0), with_vocab(64), 64));
  EXPECT_FALSE(validate(recall(8, -1), with_vocab(64), 64));
  EXPECT_FALSE(validate(recall(int64_t{1} << 62, int64_t{1} << 62), with_vocab(64), 64));
  EXPECT_FALSE(validate(recall(8, 16), with_vocab(64), 0));
}

}  // namespace
}  // namespace rat
