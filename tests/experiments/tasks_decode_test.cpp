// Evaluation through decoding: the same predictions as the parallel pass's where nothing is rounded, whatever the
// lockstep; differences with their errors; refusals.
#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "experiments/tasks/scores.h"
#include "tests/experiments/task_fixture.h"

namespace rat {
namespace {

using ::testing::HasSubstr;

TaskOptions through_decoding() {
  TaskOptions options;
  options.through = Through::decode;
  return options;
}

// In f32 the cache forgets nothing, so each prediction is the parallel pass's, whatever the mixer and the lockstep.
TEST(ThroughDecoding, EveryPredictionIsThatOfThePass) {
  for (const std::string layers : {"rat:8,attention", "rat:5,swa:7,rnn", "ratplus:4/w4,rattention:6,linear"}) {
    SCOPED_TRACE(layers);
    const RunSpec spec = task_spec("mqar", layers);
    const auto model = model_of(spec);
    for (const Parameter& parameter : model->parameters())
      if (parameter.shape.size() == 2)
        for (float& value : parameter.value) value *= 4;  // initial weights barely use the context
    const auto source = DataSource::open(spec.data, spec.model, 32, 1);
    ASSERT_TRUE(source);
    const auto batches = (*source)->validation(3, 7 * 32);
    ASSERT_TRUE(batches);
    const auto pass = score(*model, *batches, {});
    ASSERT_TRUE(pass);
    for (const int64_t together : {1, 2, 5, 100}) {
      int64_t advanced = 0;
      const auto scores =
          decode_scores(*model, *batches, together, {nullptr, [&](int64_t tokens) { advanced += tokens; }});
      ASSERT_TRUE(scores) << scores.error().message;
      EXPECT_EQ(advanced, 7 * 32);
      EXPECT_EQ(scores->cache, "f32");
      ASSERT_EQ(scores->loss.size(), pass->loss.size());
      EXPECT_EQ(scores->correct, pass->correct);
      for (std::size_t i = 0; i < scores->loss.size(); ++i) EXPECT_NEAR(scores->loss[i], pass->loss[i], 2e-5) << i;
    }
  }
}

TEST(ThroughDecoding, EveryTaskIsComparedWithThePass) {
  for (const Task& task : tasks()) {
    SCOPED_TRACE(task.name);
    const RunSpec spec = task_spec(task.data_kind.empty() ? "copy" : std::string(task.data_kind));
    const auto model = model_of(spec);
    TaskOptions options = through_decoding();
    options.lengths = {24, 32};
    options.sequences = 5;
    int64_t done = 0, total = 0;
    const TaskContext context{
        *model, spec, options, nullptr, [&](int64_t now, int64_t all) { done = now, total = all; }};
    const auto decoded = task.run(context);
    ASSERT_TRUE(decoded) << decoded.error().message;
    EXPECT_EQ(done, total);
    options.through = Through::pass;
    const auto pass = measure(spec, std::string(task.name), *model, options);
    ASSERT_TRUE(pass);
    for (const int64_t T : options.lengths) {
      const EvaluationPoint& difference = point(*decoded, "loss_difference", T);
      EXPECT_NEAR(difference.value, point(*decoded, "loss", T).value - point(*pass, "loss", T).value, 1e-7);
      EXPECT_LE(std::abs(difference.value), 1e-5);
      EXPECT_LE(difference.standard_error, 1e-5);
      EXPECT_EQ(difference.targets, point(*pass, "loss", T).targets);
      EXPECT_EQ(overall(*pass, "loss_difference", T), nullptr);
    }
    const auto settings = nlohmann::json::parse(decoded->settings);
    EXPECT_EQ(settings["through"], "decode");
    EXPECT_EQ(settings["cache"], "f32");
    EXPECT_EQ(settings["compared_with"], "the parallel pass");
    EXPECT_FALSE(nlohmann::json::parse(pass->settings).contains("through"));
  }
}

TEST(ThroughDecoding, TheDifferenceIsOfPredictionsNotOfMeans) {
  TokenScores scores;
  scores.sequences = 2, scores.tokens = 3;
  scores.loss = {1, 9, 0, 4, 5, 6};
  scores.other_loss = {0.5f, 8.5f, 0, 3, 4, 5};
  scores.correct = {0, 1, TokenScores::no_target, 0, 0, 1};
  const Estimate difference = mean_loss_difference(scores, 0, 3);
  EXPECT_DOUBLE_EQ(difference.value, (2 * 0.5 + 3 * 1) / 5);
  EXPECT_EQ(difference.targets, 5);
  const double r = 0.8;  // residuals of the two sums: 1 - 2 r and 3 - 3 r
  EXPECT_NEAR(difference.standard_error, std::sqrt(2 * (std::pow(1 - 2 * r, 2) + std::pow(3 - 3 * r, 2))) / 5, 1e-7);
}

TEST(ThroughDecoding, RefusesACacheThatLayersCannotKeepAndStops) {
  TaskOptions options = through_decoding();
  options.cache = kernels::CacheDtype::fp8;
  EXPECT_THAT(refusal(task_spec("copy"), "perplexity", options), HasSubstr("a cache in fp8 is one of 'rat', 'ratplus', 'attention' and 'swa' layers"));
  const RunSpec spec = task_spec("copy");
  const auto model = model_of(spec);
  EXPECT_FALSE(measure(spec, "copy", *model, options));
  options.cache = kernels::CacheDtype::f32;
  EXPECT_TRUE(measure(spec, "copy", *model, options)) << "a refused cache is not asked for any more";
  StopFlag stop;
  stop.request();
  const auto stopped = measure(spec, "copy", *model, options, &stop);
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().code, ErrorCode::cancelled);
}

}  // namespace
}  // namespace rat
