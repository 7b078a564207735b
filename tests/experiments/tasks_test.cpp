// Evaluation tasks against sums done by hand and by brute force; what they refuse.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/data/needle_source.h"
#include "experiments/tasks/memory_guard.h"
#include "experiments/tasks/scores.h"
#include "experiments/tasks/task.h"
#include "tests/experiments/task_fixture.h"

namespace rat {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST(Estimates, RatioOfMeansByHand) {
  const Estimate one = ratio_of_means(std::vector<double>{1, 2, 6, 0}, std::vector<int64_t>{1, 1, 2, 0});
  EXPECT_DOUBLE_EQ(one.value, 2.25);
  EXPECT_NEAR(one.standard_error, std::sqrt((1.25 * 1.25 + 0.25 * 0.25 + 1.5 * 1.5) * 3 / 2) / 4, 1e-15);
  EXPECT_EQ(one.sequences, 3) << "a sequence that asks nothing does not count";
  EXPECT_EQ(one.targets, 4);
  // Equal counts: deviation / sqrt(n) of the means 1, 2, 6.
  const Estimate equal = ratio_of_means(std::vector<double>{5, 10, 30}, std::vector<int64_t>{5, 5, 5});
  EXPECT_DOUBLE_EQ(equal.value, 3);
  EXPECT_NEAR(equal.standard_error, std::sqrt((4.0 + 1.0 + 9.0) / 2 / 3), 1e-15);
  EXPECT_TRUE(std::isnan(ratio_of_means(std::vector<double>{5}, std::vector<int64_t>{5}).standard_error));
  EXPECT_TRUE(std::isnan(ratio_of_means(std::vector<double>{0}, std::vector<int64_t>{0}).value));
}

TEST(Estimates, ContextChanceByHand) {
  // Answers are 5 .. 7. Seen at the first question: 5, 7, 7; at the second: 5, 7, 7, 6.
  const TokenBatch batch{1, 7, {5, 1, 7, 7, 2, 6, 3}, {-1, -1, -1, -1, 7, -1, 6}};
  const Estimate chance = context_chance(std::vector{batch}, {5, 3});
  EXPECT_DOUBLE_EQ(chance.value, (2.0 / 3 + 1.0 / 4) / 2);
  EXPECT_EQ(chance.targets, 2);
}

TEST(Scores, AgreeWithASoftmaxInLongDoubleAndWithTraining) {
  const RunSpec spec = task_spec("mqar");
  const auto model = model_of(spec);
  const auto source = DataSource::open(spec.data, spec.model, 32, 1);
  ASSERT_TRUE(source);
  const auto batches = (*source)->validation(3, 7 * 32);
  ASSERT_TRUE(batches);
  int64_t advanced = 0;
  const auto scores = score(*model, *batches, {nullptr, [&](int64_t tokens) { advanced += tokens; }});
  ASSERT_TRUE(scores);
  EXPECT_EQ(scores->sequences, 7);
  EXPECT_EQ(advanced, 7 * 32);
  std::size_t at = 0;
  double loss_sum = 0;
  int64_t correct = 0;
  for (const TokenBatch& batch : *batches) {
    const auto logits = model->logits(batch.inputs, batch.batch);
    ASSERT_TRUE(logits);
    for (std::size_t i = 0; i < batch.targets.size(); ++i, ++at) {
      const int32_t target = batch.targets[i];
      if (target == ignore_target) {
        EXPECT_EQ(scores->correct[at], TokenScores::no_target);
        continue;
      }
      const float* row = logits->data() + i * 33;
      long double sum = 0;
      for (int v = 0; v < 33; ++v) sum += std::exp(static_cast<long double>(row[v]));
      const auto expected = static_cast<double>(std::log(sum) - row[target]);
      EXPECT_NEAR(scores->loss[at], expected, 1e-6);
      EXPECT_EQ(scores->correct[at], std::max_element(row, row + 33) - row == target ? 1 : 0);
      loss_sum += expected;
      correct += scores->correct[at];
    }
    const auto trained = model->evaluate(batch);
    ASSERT_TRUE(trained);
    loss_sum -= trained->loss_sum;
    correct -= trained->correct;
  }
  EXPECT_NEAR(loss_sum, 0, 1e-4) << "what training calls the loss";
  EXPECT_EQ(correct, 0);
}

TEST(Tasks, AUniformModelGivesLogVAndChance) {
  for (const Task& task : tasks()) {
    SCOPED_TRACE(task.name);
    const RunSpec spec = task_spec(task.data_kind.empty() ? "copy" : std::string(task.data_kind));
    const auto model = uniform_model(spec);
    const auto result = measure(spec, std::string(task.name), *model);
    ASSERT_TRUE(result) << result.error().message;
    const EvaluationPoint& loss = point(*result, "loss", 32);
    EXPECT_NEAR(loss.value, std::log(33.0), 1e-6);
    EXPECT_NEAR(loss.standard_error, 0, 1e-6);
    EXPECT_EQ(point(*result, "accuracy", 32).value, 0) << "token 0 is never an answer";
    EXPECT_GE(loss.sequences, 32);
    EXPECT_GT(point(*result, "context_chance", 32).value, point(*result, "chance", 32).value);
    EXPECT_FALSE(nlohmann::json::parse(result->settings)["lengths"].empty());
    EXPECT_FALSE(result->data_hash.empty());
  }
}

// Untrained weights know nothing: no better than the stated chance within five standard errors.
TEST(Tasks, ARandomModelIsNotAboveChance) {
  for (const std::string kind : {"mqar", "needle", "copy", "induction"}) {
    SCOPED_TRACE(kind);
    const RunSpec spec = task_spec(kind);
    const auto model = model_of(spec);
    TaskOptions options;
    options.sequences = 128;
    options.lengths = {32};
    const auto result = measure(spec, kind, *model, options);
    ASSERT_TRUE(result) << result.error().message;
    const EvaluationPoint& accuracy = point(*result, "accuracy", 32);
    EXPECT_LE(accuracy.value, point(*result, "chance", 32).value + 5 * std::max(accuracy.standard_error, 0.002));
    EXPECT_NEAR(point(*result, "loss", 32).value, std::log(33.0), 0.25);
  }
}

TEST(Tasks, ChanceLevelsAreWhatTheDocumentationSays) {
  const auto chance = [](const std::string& kind) {
    const RunSpec spec = task_spec(kind);
    const auto model = uniform_model(spec);
    TaskOptions options;
    options.lengths = {32};
    const auto result = measure(spec, kind, *model, options);
    EXPECT_TRUE(result);
    return std::pair(point(*result, "chance", 32).value, point(*result, "context_chance", 32).value);
  };
  EXPECT_DOUBLE_EQ(chance("mqar").first, 1.0 / 16);
  EXPECT_NEAR(chance("mqar").second, 0.25, 0.08) << "4 pairs; values may coincide";
  EXPECT_DOUBLE_EQ(chance("needle").first, 1.0 / 8);
  EXPECT_NEAR(chance("needle").second, 0.25, 0.12);
  EXPECT_DOUBLE_EQ(chance("copy").first, 1.0 / 31);
  EXPECT_DOUBLE_EQ(chance("induction").first, 1.0 / 32);
}

TEST(LossByPosition, WeighedByTargetsItIsTheOverallLoss) {
  const TemporaryFolder folder;
  write_tiny_text(folder / "text");
  RunSpec spec = tiny_spec(folder / "text", "rat:8,attention");
  spec.train.eval_tokens = 24 * 40;
  const auto model = model_of(spec);
  const auto result = measure(spec, "loss_by_position", *model);
  ASSERT_TRUE(result) << result.error().message;
  double sum = 0;
  int64_t targets = 0, positions = 0;
  for (const EvaluationPoint& one : result->points) {
    if (!one.position) continue;
    EXPECT_EQ(*one.position, positions++);
    EXPECT_EQ(one.targets, 40);
    EXPECT_GT(one.standard_error, 0);
    sum += one.value * static_cast<double>(one.targets);
    targets += one.targets;
  }
  EXPECT_EQ(positions, 24);
  EXPECT_NEAR(sum / static_cast<double>(targets), point(*result, "loss", 24).value, 1e-9);
  // The same number as perplexity and, at its length, as length generalisation; and as the model's own evaluation.
  const auto perplexity = measure(spec, "perplexity", *model), length = measure(spec, "length", *model);
  ASSERT_TRUE(perplexity && length);
  EXPECT_DOUBLE_EQ(point(*perplexity, "loss", 24).value, point(*result, "loss", 24).value);
  EXPECT_DOUBLE_EQ(point(*length, "loss", 24).value, point(*result, "loss", 24).value);
}

TEST(LossByPosition, PositionsWithoutQuestionsHaveNoPoint) {
  const RunSpec spec = task_spec("needle");
  const auto model = model_of(spec);
  const auto result = measure(spec, "loss_by_position", *model);
  ASSERT_TRUE(result) << result.error().message;
  std::vector<int64_t> positions;
  for (const EvaluationPoint& one : result->points)
    if (one.position) positions.push_back(*one.position);
  EXPECT_EQ(positions, (std::vector<int64_t>{24, 25, 26, 27, 28, 29, 30, 31}));
}

TEST(Length, BeyondTrainingIsTheMeanOverThePositionsPastIt) {
  for (const std::string layers : {"rat:8", "attention", "swa:8", "rnn"}) {
    SCOPED_TRACE(layers);
    const TemporaryFolder folder;
    write_tiny_text(folder / "text");
    RunSpec spec = tiny_spec(folder / "text", layers);
    const auto model = model_of(spec);
    TaskOptions options;
    options.sequences = 6;
    const auto length = measure(spec, "length", *model, options);
    ASSERT_TRUE(length) << length.error().message;
    EXPECT_EQ(nlohmann::json::parse(length->settings)["lengths"], (nlohmann::json{12, 24, 48, 96}));
    EXPECT_EQ(overall(*length, "loss_beyond", 24), nullptr);
    options.lengths = {96};
    const auto positions = measure(spec, "loss_by_position", *model, options);
    ASSERT_TRUE(positions);
    double sum = 0;
    int64_t targets = 0;
    for (const EvaluationPoint& one : positions->points)
      if (one.position && *one.position >= 24)
        sum += one.value * static_cast<double>(one.targets), targets += one.targets;
    EXPECT_EQ(targets, 6 * 72);
    EXPECT_NEAR(point(*length, "loss_beyond", 96).value, sum / static_cast<double>(targets), 1e-9);
    EXPECT_DOUBLE_EQ(point(*length, "loss", 96).value, point(*positions, "loss", 96).value);
  }
}

TEST(Needle, EveryCellIsWhatBruteForceCounts) {
  const RunSpec spec = task_spec("needle");
  const auto model = model_of(spec);
  TaskOptions options;
  options.sequences = 20;
  options.depths = {0, 0.4, 1};
  options.lengths = {24, 48};
  const auto result = measure(spec, "needle", *model, options);
  ASSERT_TRUE(result) << result.error().message;
  for (const int64_t T : options.lengths) {
    double mean = 0;
    for (std::size_t d = 0; d < options.depths.size(); ++d) {
      const TokenBatch batch = needle_sequences(spec.data, 33, T, needle_place(spec.data, T, options.depths[d]),
                                                20 * static_cast<int64_t>(d), 20);
      const auto logits = model->logits(batch.inputs, 20);
      ASSERT_TRUE(logits);
      int64_t right = 0;
      for (int64_t row = 0; row < 20; ++row) {
        const float* last = logits->data() + ((row + 1) * T - 1) * 33;
        right += std::max_element(last, last + 33) - last == batch.targets[(row + 1) * T - 1];
      }
      const auto cell = std::ranges::find_if(result->points, [&](const EvaluationPoint& one) {
        return one.seq_len == T && one.depth == options.depths[d];
      });
      ASSERT_NE(cell, result->points.end());
      EXPECT_DOUBLE_EQ(cell->value, static_cast<double>(right) / 20);
      EXPECT_EQ(cell->sequences, 20);
      mean += cell->value / 3;
    }
    EXPECT_NEAR(point(*result, "accuracy", T).value, mean, 1e-12);
    EXPECT_EQ(point(*result, "accuracy", T).targets, 60);
  }
}

TEST(Tasks, WhatCannotRunIsRefusedWithTheReason) {
  EXPECT_THAT(refusal(task_spec("copy", "rnn", 9), "needle"), HasSubstr("model.vocab 9"));
  EXPECT_THAT(refusal(task_spec("copy", "rnn", 33, 16), "mqar"), HasSubstr("needs 24 tokens"));
  TaskOptions options;
  options.memory_bytes = 1000;
  EXPECT_THAT(refusal(task_spec("copy"), "perplexity", options), HasSubstr("GiB may be used"));
  options = {};
  options.data = {{"train.lr", "1"}};
  EXPECT_THAT(refusal(task_spec("copy"), "copy", options), HasSubstr("'train.lr' cannot be changed"));
  options.data = {{"data.pairs", "none"}};
  EXPECT_THAT(refusal(task_spec("mqar"), "mqar", options), HasSubstr("data.pairs"));
  options = {};
  options.depths = {1.5};
  EXPECT_THAT(refusal(task_spec("needle"), "needle", options), HasSubstr("depth 1.5"));
  options = {};
  options.lengths = {8};
  EXPECT_THAT(refusal(task_spec("mqar"), "length", options), HasSubstr("seq_len is 8"));
  EXPECT_FALSE(find_task("neelde"));
  EXPECT_THAT(find_task("neelde").error().message, HasSubstr("did you mean 'needle'"));
  StopFlag stop;
  stop.request();
  const RunSpec spec = task_spec("copy");
  const auto model = model_of(spec);
  const auto stopped = measure(spec, "copy", *model, {}, &stop);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
}

TEST(Tasks, DefaultLengthsThatCannotBeHadAreNamed) {
  const RunSpec spec = task_spec("mqar", "rnn", 33, 20);  // T/2 = 10 cannot hold 4 pairs and 8 queries
  const auto model = model_of(spec);
  const auto result = measure(spec, "length", *model);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(nlohmann::json::parse(result->settings)["lengths"], (nlohmann::json{20, 40, 80}));
  ASSERT_THAT(result->notes, SizeIs(1));
  EXPECT_THAT(result->notes[0], HasSubstr("T = 10 is left out"));
}

// A longer sequence must not take its text from what was trained on.
TEST(Tasks, TheValidationPartNeverGrowsIntoTheTrainingPart) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", std::string(1000, 'x'));  // 100 bytes for validation
  const RunSpec spec = tiny_spec(folder / "text", "rnn");
  const auto model = model_of(spec);
  const auto result = measure(spec, "length", *model);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(nlohmann::json::parse(result->settings)["lengths"], (nlohmann::json{12, 24, 48, 96}));
  TaskOptions options;
  options.lengths = {100};  // needs 101 bytes
  const auto refused = measure(spec, "length", *model, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("not trained on"));
  RunSpec piped = spec;
  piped.data.path = "-";
  EXPECT_THAT(refusal(piped, "perplexity"), HasSubstr("standard input"));
}

TEST(Tasks, TheListIsComplete) {
  EXPECT_THAT(tasks(), SizeIs(7));
  for (const Task& task : tasks()) {
    EXPECT_FALSE(task.description.empty() || task.measures.empty() || task.chance.empty()) << task.name;
    EXPECT_FALSE(task.settings.empty()) << task.name;
    EXPECT_EQ(*find_task(task.name), &task);
  }
  EXPECT_EQ(default_task(task_spec("needle")).name, "needle");
  EXPECT_EQ(default_task(RunSpec{}).name, "perplexity");
}

TEST(MemoryGuard, GrowsWithLengthAndVocabularyAndBatchesStayWithinIt) {
  ModelConfig model;
  EXPECT_GT(forward_bytes(model, 4096, 1), 4096 * 256 * 4);
  EXPECT_NEAR(static_cast<double>(forward_bytes(model, 8192, 1)) / static_cast<double>(forward_bytes(model, 4096, 1)),
              2, 0.01);
  EXPECT_GT(available_memory_bytes(), 1 << 20);
  EXPECT_EQ(score_batch(model, 1 << 20, int64_t{1} << 40), 1);
  EXPECT_GE(score_batch(model, 64, int64_t{1} << 40), 8);
  EXPECT_EQ(decode_batch(model, 64, int64_t{1} << 40), 512);
  EXPECT_EQ(decode_batch(model, 64, 1), 1);
  EXPECT_LT(decode_batch(model, 1 << 24, int64_t{1} << 40), 512);
  EXPECT_TRUE(check_memory(model, 256, int64_t{1} << 40));
}

}  // namespace
}  // namespace rat
