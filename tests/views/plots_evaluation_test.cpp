// Figures of what `rat eval` stored.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/views/plots_store.h"
#include "views/plots/exporters.h"
#include "views/plots/recipe.h"

namespace rat {
namespace {

EvaluationPoint point(const std::string& metric, int64_t seq_len, double value, std::optional<double> depth = {},
                      std::optional<int64_t> position = {}, int64_t targets = 10) {
  return {metric, seq_len, depth, position, value, 0.5, 10, targets};
}

class PlotsEvaluation : public ::testing::Test {
 protected:
  void SetUp() override {
    ids_ = test::write_runs(database_, {{"rat:16*2", 1, "first", {}}, {"rnn*2", 1, "second", {}}});
  }
  void record(int run, const std::string& task, const std::vector<EvaluationPoint>& points,
              const std::string& settings = "{}") {
    auto writer = StoreWriter::open(database_);
    ASSERT_TRUE(writer);
    Evaluation evaluation;
    evaluation.task = task;
    evaluation.step = 20;
    evaluation.settings = settings;
    evaluation.points = points;
    ASSERT_TRUE((*writer)->record_evaluation(ids_[static_cast<std::size_t>(run)], evaluation));
  }
  Result<PlotDescription> build(const std::string& task, const std::vector<std::string>& runs,
                                const std::string& metric = "loss") {
    Recipe recipe;
    recipe.kind = FigureKind::evaluation;
    recipe.task = task;
    recipe.metric = metric;
    recipe.runs = runs;
    // Through JSON, as a recipe from a file comes.
    const auto parsed = parse_recipe(to_json(recipe));
    EXPECT_TRUE(parsed) << parsed.error().message;
    const auto store = StoreReader::open(database_);
    EXPECT_TRUE(store);
    return build_plot(*parsed, *store);
  }

  test::Folder folder_;
  std::filesystem::path database_ = folder_.path() / "r.db";
  std::vector<std::string> ids_;
};

TEST_F(PlotsEvaluation, LengthsAreLinesWithTheirErrorsOnALogAxis) {
  record(0, "length", {point("loss", 512, 2), point("loss", 256, 3), point("accuracy", 256, 0.5)}, R"({"old":1})");
  record(0, "length", {point("loss", 512, 1), point("loss", 256, 4), point("accuracy", 256, 0.25)});
  record(1, "length", {point("loss", 512, 5)});
  const auto plot = build("length", ids_);
  ASSERT_TRUE(plot) << plot.error().message;
  ASSERT_EQ(plot->series.size(), 2u);
  EXPECT_EQ(plot->series[0].name, "first");
  EXPECT_EQ(plot->series[0].x, (std::vector<double>{256, 512})) << "in order of length";
  EXPECT_EQ(plot->series[0].y, (std::vector<double>{4, 1})) << "the newest evaluation";
  EXPECT_EQ(plot->series[0].y_high, (std::vector<double>{4.5, 1.5}));
  EXPECT_TRUE(plot->series[0].band) << "without it the intervals that the note names are not drawn";
  EXPECT_EQ(plot->x.scale, Scale::log2);
  EXPECT_EQ(plot->y.label, "loss, nats");
  EXPECT_NE(plot->note.find("n = 10"), std::string::npos) << plot->note;
  EXPECT_NE(to_csv(*plot).find("256,4"), std::string::npos);
  const auto accuracy = build("length", ids_, "accuracy");
  ASSERT_TRUE(accuracy);
  EXPECT_EQ(accuracy->series.size(), 1u);
  EXPECT_EQ(accuracy->warnings.size(), 1u) << "the second run has none";
}

TEST_F(PlotsEvaluation, PositionsAreAveragedInBinsThatTheNoteNames) {
  std::vector<EvaluationPoint> points{point("loss", 128, 9)};
  for (int64_t t = 0; t < 128; ++t)
    points.push_back(point("loss", 128, static_cast<double>(t), {}, t, t % 2 == 0 ? 10 : 30));
  record(0, "loss_by_position", points);
  const auto plot = build("loss_by_position", {ids_[0]});
  ASSERT_TRUE(plot) << plot.error().message;
  ASSERT_EQ(plot->series.size(), 1u);
  ASSERT_EQ(plot->series[0].x.size(), 64u);
  EXPECT_EQ(plot->series[0].x[1], 2.5) << "positions 2 and 3";
  EXPECT_NEAR(plot->series[0].y[1], (2.0 * 10 + 3.0 * 30) / 40, 1e-12) << "weighed by predictions";
  EXPECT_NE(plot->note.find("bins of 2 positions"), std::string::npos) << plot->note;
}

TEST_F(PlotsEvaluation, NeedleIsAMapOfDepthsByLengths) {
  record(0, "needle",
         {point("accuracy", 64, 0.25, 0.0), point("accuracy", 32, 0.5, 0.0), point("accuracy", 32, 1, 0.5),
          point("accuracy", 32, 0.75)});
  const auto plot = build("needle", {ids_[0]});
  ASSERT_TRUE(plot) << plot.error().message;
  ASSERT_TRUE(plot->heat_map);
  EXPECT_EQ(plot->heat_map->rows, 2);
  EXPECT_EQ(plot->heat_map->cols, 2);
  EXPECT_EQ(plot->heat_map->values[0], 0.5f);
  EXPECT_EQ(plot->heat_map->values[1], 0.25f);
  EXPECT_EQ(plot->heat_map->values[2], 1.0f);
  EXPECT_TRUE(std::isnan(plot->heat_map->values[3])) << "not measured";
  using Ticks = std::vector<std::pair<double, std::string>>;
  EXPECT_EQ(plot->heat_map->row_labels, (Ticks{{0.5, "0"}, {1.5, "0.5"}})) << "in the middle of its cell";
  EXPECT_EQ(plot->heat_map->column_labels, (Ticks{{0.5, "32"}, {1.5, "64"}}));
  EXPECT_EQ(to_csv(*plot), "depth,T = 32,T = 64\r\n0,0.5,0.25\r\n0.5,1,\r\n");
  EXPECT_FALSE(build("needle", ids_)) << "one run a map";
}

TEST_F(PlotsEvaluation, WhatWasNotMeasuredIsNamedWithTheCommandThatDoes) {
  const auto missing = build("length", {ids_[1]});
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("rat eval " + ids_[1] + " --task length"), std::string::npos);
  EXPECT_FALSE(parse_recipe(R"({"kind": "evaluation", "runs": ["x"], "task": "lenght"})"));
}

}  // namespace
}  // namespace rat
