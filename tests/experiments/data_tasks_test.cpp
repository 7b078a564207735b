// needle, copy and induction: every answer stands in the sequence, nothing else is asked, what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "experiments/data/data_source.h"
#include "experiments/data/needle_source.h"

namespace rat {
namespace {

using ::testing::HasSubstr;

struct Case {
  DataConfig data;
  int64_t vocab, seq_len;
};

DataConfig data_of(const std::string& kind, int64_t pairs = 4, int64_t queries = 16, int64_t span = 0) {
  DataConfig data;
  data.kind = kind;
  data.pairs = pairs;
  data.queries = queries;
  data.span = span;
  return data;
}

ModelConfig with_vocab(int64_t vocab) {
  ModelConfig model;
  model.vocab = vocab;
  return model;
}

std::unique_ptr<DataSource> open(const Case& one, uint64_t seed = 1) {
  auto source = DataSource::open(one.data, with_vocab(one.vocab), one.seq_len, seed);
  EXPECT_TRUE(source) << (source ? "" : source.error().message);
  return source ? *std::move(source) : nullptr;
}

using Row = std::vector<int32_t>;
struct Sequence {
  Row inputs, targets;
};

std::vector<Sequence> rows_of(const TokenBatch& batch) {
  std::vector<Sequence> rows;
  for (int64_t row = 0; row < batch.batch; ++row) {
    const auto begin = row * batch.tokens, end = begin + batch.tokens;
    rows.push_back({{batch.inputs.begin() + begin, batch.inputs.begin() + end},
                    {batch.targets.begin() + begin, batch.targets.begin() + end}});
  }
  return rows;
}

// Training rows of a few steps and validation rows.
std::vector<Sequence> some_rows(const DataSource& source, int64_t seq_len) {
  std::vector<Sequence> rows;
  for (const int64_t step : {0, 1, 999})
    for (Sequence& row : rows_of(*source.train_batch(step, 5))) rows.push_back(std::move(row));
  const auto batches = source.validation(4, 9 * seq_len);
  EXPECT_TRUE(batches);
  for (const TokenBatch& batch : *batches)
    for (Sequence& row : rows_of(batch)) rows.push_back(std::move(row));
  EXPECT_EQ(rows.size(), 24u);
  return rows;
}

void expect_needle(const Sequence& row, const Case& one) {
  const int64_t keys = (one.vocab - 1) / 4, size = one.seq_len - one.data.queries;
  std::map<int32_t, int32_t> value_of;
  for (int64_t t = 0; t < size; ++t) {
    EXPECT_EQ(row.targets[t], ignore_target);
    if (row.inputs[t] > keys) continue;
    ASSERT_LT(t + 1, size) << "the pair ends before the queries";
    EXPECT_TRUE(row.inputs[t + 1] > keys && row.inputs[t + 1] <= 2 * keys) << "a value follows its key";
    EXPECT_TRUE(value_of.emplace(row.inputs[t], row.inputs[t + 1]).second) << "keys are distinct";
  }
  EXPECT_EQ(static_cast<int64_t>(value_of.size()), one.data.pairs);
  const auto values = std::count_if(row.inputs.begin(), row.inputs.end(),
                                    [&](int32_t token) { return token > keys && token <= 2 * keys; });
  EXPECT_EQ(values, one.data.pairs) << "noise is never a value";
  for (int64_t t = size; t < one.seq_len; ++t) {
    ASSERT_TRUE(value_of.contains(row.inputs[t]));
    EXPECT_EQ(row.targets[t], value_of.at(row.inputs[t]));
  }
}

TEST(NeedleData, EveryQueryIsAnsweredByItsPair) {
  for (const Case& one : {Case{data_of("needle", 1, 1), 9, 5}, Case{data_of("needle", 4, 8), 65, 64},
                          Case{data_of("needle", 7, 3), 29, 31}, Case{data_of("needle"), 256, 256}}) {
    SCOPED_TRACE(
        fmt::format("{} pairs, {} queries, V {}, T {}", one.data.pairs, one.data.queries, one.vocab, one.seq_len));
    const auto source = open(one);
    ASSERT_TRUE(source);
    for (const Sequence& row : some_rows(*source, one.seq_len)) expect_needle(row, one);
  }
}

TEST(NeedleData, TheNeedleLiesExactlyWhereItIsAskedFor) {
  const Case one{data_of("needle", 4, 3), 65, 48};
  EXPECT_EQ(needle_place(one.data, 48, 0), 0);
  EXPECT_EQ(needle_place(one.data, 48, 1), 43) << "key 43, value 44, queries from 45";
  EXPECT_EQ(needle_place(one.data, 48, 0.5), 22);
  for (const int64_t place : {0, 1, 22, 42, 43}) {
    const TokenBatch batch = needle_sequences(one.data, one.vocab, one.seq_len, place, 7, 6);
    for (const Sequence& row : rows_of(batch)) {
      EXPECT_EQ(row.inputs[47], row.inputs[place]);
      EXPECT_EQ(row.targets[47], row.inputs[place + 1]);
      EXPECT_EQ(std::count(row.inputs.begin(), row.inputs.begin() + 45, row.inputs[47]), 1);
      EXPECT_EQ(std::count(row.targets.begin(), row.targets.end(), ignore_target), 47) << "only the last is asked";
    }
    EXPECT_EQ(rows_of(needle_sequences(one.data, one.vocab, one.seq_len, place, 9, 1))[0].inputs,
              rows_of(batch)[2].inputs)
        << "a row is the same whatever is made with it";
  }
}

TEST(CopyData, TheStringComesTwice) {
  for (const Case& one : {Case{data_of("copy"), 4, 2}, Case{data_of("copy"), 34, 64}, Case{data_of("copy"), 34, 33},
                          Case{data_of("copy", 4, 16, 5), 12, 40}}) {
    SCOPED_TRACE(fmt::format("span {}, V {}, T {}", one.data.span, one.vocab, one.seq_len));
    const auto source = open(one);
    ASSERT_TRUE(source);
    const int64_t longest = one.data.span > 0 ? one.data.span : one.seq_len / 2;
    std::set<int64_t> lengths;
    for (const Sequence& row : some_rows(*source, one.seq_len)) {
      const int64_t n = std::find(row.inputs.begin(), row.inputs.end(), 1) - row.inputs.begin();
      ASSERT_LE(2 * n, one.seq_len);
      EXPECT_TRUE(n >= (longest + 1) / 2 && n <= longest) << n;
      lengths.insert(n);
      for (int64_t t = 0; t < one.seq_len; ++t) {
        const bool asked = t >= n && t < 2 * n;
        EXPECT_EQ(row.targets[t], asked ? row.inputs[t - n] : ignore_target) << t;
        if (t < n) {
          EXPECT_GE(row.inputs[t], 2);
        }
        if (t > n) {
          EXPECT_EQ(row.inputs[t], t < 2 * n ? row.inputs[t - n - 1] : 0) << t;
        }
      }
    }
    if (longest >= 16) {
      EXPECT_GT(lengths.size(), 5u) << "no fixed distance solves the task";
    }
  }
}

TEST(InductionData, TheAnswerIsWhatFollowedTheLastTime) {
  for (const Case& one :
       {Case{data_of("induction"), 3, 4}, Case{data_of("induction"), 65, 64}, Case{data_of("induction"), 500, 40}}) {
    SCOPED_TRACE(fmt::format("V {}, T {}", one.vocab, one.seq_len));
    const auto source = open(one);
    ASSERT_TRUE(source);
    std::set<int64_t> distances;
    for (const Sequence& row : some_rows(*source, one.seq_len)) {
      int64_t asked = 0;
      for (int64_t t = 0; t < one.seq_len; ++t) {
        EXPECT_TRUE(row.inputs[t] >= 1 && row.inputs[t] < one.vocab);
        if (row.targets[t] == ignore_target) continue;
        ++asked;
        int64_t last = t - 1;
        while (last >= 0 && row.inputs[last] != row.inputs[t]) --last;
        ASSERT_GE(last, 0) << "the symbol has been seen";
        EXPECT_EQ(row.targets[t], row.inputs[last + 1]);
        if (t + 1 < one.seq_len) {
          EXPECT_EQ(row.inputs[t + 1], row.targets[t]);
        }
        distances.insert(t - last);
      }
      EXPECT_GE(asked, 1);
    }
    if (one.seq_len == 64) {
      EXPECT_GE(*distances.rbegin(), 32) << "answers lie far back too";
    }
  }
}

// A model of random weights cannot know more than this: the answers are spread evenly over what they can be.
TEST(TaskData, AnswersAreUniform) {
  for (const Case& one : {Case{data_of("mqar", 4, 16), 33, 32}, Case{data_of("needle", 4, 8), 65, 64},
                          Case{data_of("copy"), 34, 64}, Case{data_of("induction"), 17, 64}}) {
    SCOPED_TRACE(one.data.kind);
    const auto source = open(one);
    ASSERT_TRUE(source);
    const TokenRange answers = source->answers();
    ASSERT_GT(answers.count, 1);
    std::map<int32_t, int64_t> count;
    int64_t total = 0;
    for (int64_t step = 0; step < 400; ++step) {
      const auto batch = source->train_batch(step, 32);
      for (const int32_t target : batch->targets) {
        if (target == ignore_target) continue;
        ASSERT_TRUE(target >= answers.first && target < answers.first + answers.count) << target;
        ++count[target];
        ++total;
      }
    }
    EXPECT_EQ(static_cast<int64_t>(count.size()), answers.count);
    // An answer is drawn once and asked for several times: one deviation is about 2 %.
    const double expected = static_cast<double>(total) / static_cast<double>(answers.count);
    for (const auto& [token, times] : count) EXPECT_NEAR(static_cast<double>(times) / expected, 1, 0.1) << token;
  }
}

TEST(TaskData, BatchesDependOnSeedAndStepAndNeverRepeatValidation) {
  for (const Case& one :
       {Case{data_of("needle", 4, 8), 65, 64}, Case{data_of("copy"), 34, 64}, Case{data_of("induction"), 65, 64}}) {
    SCOPED_TRACE(one.data.kind);
    const auto first = open(one, 1), same = open(one, 1), other = open(one, 2);
    ASSERT_TRUE(first && same && other);
    EXPECT_EQ(first->train_batch(7, 3)->inputs, same->train_batch(7, 3)->inputs);
    EXPECT_EQ(first->train_batch(7, 3)->targets, same->train_batch(7, 3)->targets);
    EXPECT_NE(first->train_batch(7, 3)->inputs, first->train_batch(8, 3)->inputs);
    EXPECT_NE(first->train_batch(7, 3)->inputs, other->train_batch(7, 3)->inputs);
    EXPECT_EQ(first->validation(8, 512)->front().inputs, other->validation(8, 512)->front().inputs);
    EXPECT_EQ(first->hash(), same->hash());
    EXPECT_NE(first->hash(), other->hash());
    EXPECT_FALSE(first->byte_tokens());
    EXPECT_EQ(first->validation_size(), 0);
    EXPECT_EQ(first->probe_tokens(1000)->size(), 64u);
    std::set<Row> validation;
    for (const TokenBatch& batch : *first->validation(16, 64 * 64))
      for (const Sequence& row : rows_of(batch)) validation.insert(row.inputs);
    EXPECT_EQ(validation.size(), 64u);
    for (int64_t step = 0; step < 50; ++step)
      for (const Sequence& row : rows_of(*first->train_batch(step, 8))) EXPECT_FALSE(validation.contains(row.inputs));
  }
}

std::string refusal(const Case& one) {
  const Status status = validate(one.data, with_vocab(one.vocab), one.seq_len);
  return status ? "" : status.error().message;
}

TEST(TaskData, ImpossibleTasksAreRefusedInOneSentence) {
  EXPECT_EQ(refusal({data_of("needle", 4, 8), 17, 24}), "");
  EXPECT_THAT(refusal({data_of("needle", 4, 8), 16, 24}), HasSubstr("set model.vocab to at least 17"));
  EXPECT_THAT(refusal({data_of("needle", 4, 9), 17, 24}), HasSubstr("needs 25 tokens"));
  EXPECT_THAT(refusal({data_of("needle", 0, 9), 17, 24}), HasSubstr("1 or more"));
  EXPECT_THAT(refusal({data_of("needle", int64_t{1} << 62, int64_t{1} << 62), 17, 24}), HasSubstr("impossible"));
  EXPECT_EQ(refusal({data_of("copy", 4, 16, 12), 4, 24}), "");
  EXPECT_THAT(refusal({data_of("copy", 4, 16, 13), 4, 24}), HasSubstr("13 symbols does not fit"));
  EXPECT_THAT(refusal({data_of("copy"), 4, 1}), HasSubstr("does not fit"));
  EXPECT_THAT(refusal({data_of("copy"), 3, 24}), HasSubstr("at least 4"));
  EXPECT_THAT(refusal({data_of("copy", 4, 16, -1), 4, 24}), HasSubstr("data.span is -1"));
  EXPECT_EQ(refusal({data_of("induction"), 3, 4}), "");
  EXPECT_THAT(refusal({data_of("induction"), 3, 3}), HasSubstr("4 tokens"));
  EXPECT_THAT(refusal({data_of("induction"), 2, 4}), HasSubstr("at least 3"));
}

}  // namespace
}  // namespace rat
