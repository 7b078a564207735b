// The filter language of the Runs table.
#include <gtest/gtest.h>

#include <limits>

#include "app/window/run_filter.h"

namespace rat::app {
namespace {

struct Example {
  RunRow row;
  RunSpec spec;
};

Example example(const std::string& name, double val_loss, const std::string& layers, double decode) {
  Example made;
  made.row.name = name;
  made.row.tags = {"paper", "draft"};
  made.row.state = RunState::finished;
  made.row.layers = layers;
  made.row.seed = 3;
  made.row.steps_done = 500;
  made.row.metrics["val_loss"].last = val_loss;
  made.row.metrics["decode_tokens_per_s"].last = decode;
  made.spec.model.layers = *parse_layers(layers);
  return made;
}

bool matches(const std::string& text, const Example& one) {
  const Result<RunFilter> filter = parse_run_filter(text);
  EXPECT_TRUE(filter) << text << ": " << (filter ? "" : filter.error().message);
  return filter && filter->test(one.row, filter->needs_spec ? &one.spec : nullptr);
}

TEST(RunFilter, ComparesNumbers) {
  const Example run = example("rat16", 1.437, "rat:16*4", 5200);
  EXPECT_TRUE(matches("loss < 1.5", run));
  EXPECT_FALSE(matches("loss < 1.4", run));
  EXPECT_TRUE(matches("loss<1.5 and chunk >= 16", run));
  EXPECT_FALSE(matches("loss < 1.5 and chunk > 16", run));
  EXPECT_TRUE(matches("decode > 5k", run));
  EXPECT_FALSE(matches("decode > 5.3k", run));
  EXPECT_TRUE(matches("steps = 500", run));
  EXPECT_TRUE(matches("seed != 4", run));
  EXPECT_TRUE(matches("depth = 4 width=256", run));
}

TEST(RunFilter, AnyLayerCounts) {
  const Example hybrid = example("hybrid", 1.4, "rat:16,swa:128,rat:64", 1);
  EXPECT_TRUE(matches("chunk = 16", hybrid));
  EXPECT_TRUE(matches("chunk = 64", hybrid));
  EXPECT_FALSE(matches("chunk = 32", hybrid));
  EXPECT_TRUE(matches("window = 128", hybrid));
  EXPECT_FALSE(matches("chunk > 0", example("attention", 1.4, "attention*4", 1)));
}

TEST(RunFilter, WordsAndTexts) {
  const Example run = example("Big RAT run", 1.4, "rat:16*4", 1);
  EXPECT_TRUE(matches("", run));
  EXPECT_TRUE(matches("big", run));
  EXPECT_TRUE(matches("paper", run));
  EXPECT_TRUE(matches("finished", run));
  EXPECT_FALSE(matches("crashed", run));
  EXPECT_TRUE(matches("\"rat run\"", run));
  EXPECT_TRUE(matches("tag = draft", run));
  EXPECT_FALSE(matches("tag = draf", run));
  EXPECT_TRUE(matches("name ~ rat", run));
  EXPECT_TRUE(matches("state != running", run));
}

TEST(RunFilter, AndBindsTighterThanOr) {
  const Example run = example("a", 1.4, "rat:16*4", 1);
  EXPECT_TRUE(matches("crashed and loss < 1 or loss < 2", run));
  EXPECT_FALSE(matches("crashed and (loss < 1 or loss < 2)", run));
  EXPECT_TRUE(matches("not crashed", run));
  EXPECT_FALSE(matches("not (loss < 2)", run));
  EXPECT_TRUE(matches("loss < 2 not crashed", run));
}

TEST(RunFilter, MissingAndNanNeverPassABound) {
  Example run = example("a", std::numeric_limits<double>::quiet_NaN(), "rat:16*4", 1);
  EXPECT_FALSE(matches("loss < 100", run));
  EXPECT_FALSE(matches("loss >= 0", run));
  run.row.metrics.clear();
  EXPECT_FALSE(matches("loss < 100", run));
  EXPECT_FALSE(matches("loss != 3", run));
}

TEST(RunFilter, SaysWhatIsWrong) {
  const auto problem = [](const std::string& text) {
    const Result<RunFilter> filter = parse_run_filter(text);
    EXPECT_FALSE(filter) << text;
    return filter ? std::string() : filter.error().message;
  };
  EXPECT_NE(problem("los < 1").find("the fields are loss"), std::string::npos);
  EXPECT_NE(problem("loss < many").find("needs a number"), std::string::npos);
  EXPECT_NE(problem("(loss < 1").find("not closed"), std::string::npos);
  EXPECT_NE(problem("\"open").find("not closed"), std::string::npos);
  EXPECT_NE(problem("loss <").find("value is missing"), std::string::npos);
  EXPECT_NE(problem("name < 3").find("is a text"), std::string::npos);
  EXPECT_NE(problem("loss < 1 )").find("Unexpected"), std::string::npos);
  problem("and <");
}

}  // namespace
}  // namespace rat::app
