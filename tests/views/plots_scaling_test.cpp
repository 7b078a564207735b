// Time and memory against sequence length, from rows of `rat bench`.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/views/plots_store.h"
#include "views/plots/exporters.h"
#include "views/plots/recipe.h"

namespace rat {
namespace {

Recipe scaling(std::vector<BenchRow> rows) {
  Recipe recipe;
  recipe.kind = FigureKind::scaling;
  recipe.metric = "time";
  recipe.bench = std::move(rows);
  return recipe;
}

// Through JSON, as a recipe from a file comes.
Result<PlotDescription> build(const Recipe& recipe) {
  const auto parsed = parse_recipe(to_json(recipe));
  EXPECT_TRUE(parsed) << parsed.error().message;
  return build_plot(*parsed);
}

std::string refusal(const Recipe& recipe) {
  const auto plot = build(recipe);
  return plot ? "drawn" : plot.error().message;
}

TEST(PlotsScaling, ALineForEachConfigurationOnLogAxes) {
  Recipe recipe = scaling(test::bench_rows());
  std::swap(recipe.bench.front(), recipe.bench.back());  // the order of the rows does not matter to a line
  const auto plot = build(recipe);
  ASSERT_TRUE(plot) << plot.error().message;
  EXPECT_EQ(plot->x.scale, Scale::log2);
  EXPECT_EQ(plot->y.scale, Scale::log10);
  EXPECT_EQ(plot->x.label, "sequence length T, tokens");
  EXPECT_EQ(plot->y.label, "forward + backward, ms");
  ASSERT_EQ(plot->series.size(), 3u);
  const auto line =
      std::find_if(plot->series.begin(), plot->series.end(), [](const Series& one) { return one.name == "attention"; });
  ASSERT_NE(line, plot->series.end());
  EXPECT_EQ(line->x, (std::vector<double>{512, 1024, 2048}));
  EXPECT_EQ(line->y, (std::vector<double>{2, 8, 32}));
  EXPECT_EQ(line->y_low, (std::vector<double>{1.5, 6, 24}));
  EXPECT_EQ(line->y_high, (std::vector<double>{2.5, 10, 40}));
  EXPECT_TRUE(line->band) << "otherwise the quartiles of a line are not drawn";
  for (const char* part : {"train of one layer", "cpu, f32, batch 1, D 256, 4 heads", "quartiles", "n = 20"})
    EXPECT_NE(plot->note.find(part), std::string::npos) << plot->note;
  EXPECT_NE(to_csv(*plot).find("rat:16,,,1024,4,,3,5,"), std::string::npos) << to_csv(*plot);
}

TEST(PlotsScaling, TheGuideIsProportionalToTAndBelowEveryLine) {
  const auto plot = build(scaling(test::bench_rows()));
  ASSERT_TRUE(plot);
  const Series& guide = plot->series.back();
  EXPECT_EQ(guide.name, "proportional to T");
  EXPECT_EQ(guide.x, (std::vector<double>{512, 1024, 2048}));
  EXPECT_DOUBLE_EQ(guide.y[1] / guide.y[0], 2);
  EXPECT_DOUBLE_EQ(guide.y[2] / guide.y[0], 4);
  for (const Series& line : plot->series)
    for (std::size_t i = 0; i < line.x.size() && &line != &guide; ++i)
      EXPECT_LT(guide.y[0] / guide.x[0], line.y[i] / line.x[i]);
}

TEST(PlotsScaling, ThePgfplotsLegendIsWhereTheRisingLinesAreNot) {
  const Recipe recipe = scaling(test::bench_rows());
  auto plot = build(recipe);
  ASSERT_TRUE(plot);
  const auto legend_left = [&] {
    return to_tikz(*plot, recipe, "c", "m")->find("legend pos=north west") != std::string::npos;
  };
  EXPECT_TRUE(legend_left());
  for (Series& series : plot->series) std::reverse(series.y.begin(), series.y.end());
  EXPECT_FALSE(legend_left());
}

TEST(PlotsScaling, MemoryAndTheOtherPhase) {
  Recipe recipe = scaling(test::bench_rows());
  recipe.metric = "memory";
  recipe.phase = "prefill";
  recipe.bench[1].peak_bytes.reset();  // rat:16 at 512, prefill
  const auto plot = build(recipe);
  ASSERT_TRUE(plot) << plot.error().message;
  EXPECT_EQ(plot->y.label, "peak memory, MiB");
  EXPECT_EQ(plot->series[0].x, (std::vector<double>{1024, 2048}));
  EXPECT_EQ(plot->series[0].y, (std::vector<double>{2, 4}));
  EXPECT_TRUE(plot->series[0].y_low.empty()) << "measured once";
  ASSERT_EQ(plot->warnings.size(), 1u);
  EXPECT_NE(plot->warnings[0].find("1 measurements without peak memory"), std::string::npos);
  for (BenchRow& row : recipe.bench) row.peak_bytes.reset();
  EXPECT_NE(refusal(recipe).find("draw the time"), std::string::npos) << refusal(recipe);
}

TEST(PlotsScaling, WhatIsNotComparableIsNotDrawnTogether) {
  const auto changed = [](auto change) {
    Recipe recipe = scaling(test::bench_rows());
    change(recipe.bench[2]);  // rat:16 at 1024, train
    return refusal(recipe);
  };
  const auto expect = [](const std::string& sentence, const std::string& part) {
    EXPECT_NE(sentence.find("cannot be compared"), std::string::npos) << sentence;
    EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
    EXPECT_NE(sentence.find("rat:16 at T = 1024"), std::string::npos) << sentence;
  };
  expect(changed([](BenchRow& row) { row.dtype = "bf16"; }), "the dtype is f32 for rat:16 at T = 512, but bf16");
  expect(changed([](BenchRow& row) { row.device = "cuda"; }), "cuda");
  expect(changed([](BenchRow& row) { row.whole_model = true; }), "a model");
  expect(changed([](BenchRow& row) { row.d_model = 64; }), "D is 256");
  expect(changed([](BenchRow& row) { row.heads = 2; }), "heads");
  expect(changed([](BenchRow& row) { row.kv_heads = 1; }), "key/value heads");
  expect(changed([](BenchRow& row) { row.batch = 8; }), "the batch is 1");
  const std::string twice = changed([](BenchRow& row) { row.seq_len = 512; });
  EXPECT_NE(twice.find("two measurements of rat:16 at T = 512"), std::string::npos) << twice;
}

TEST(PlotsScaling, AConstantNumberOfTokensIsComparableAndSaidSo) {
  Recipe recipe = scaling(test::bench_rows());
  for (BenchRow& row : recipe.bench) row.batch = 2048 / row.seq_len;
  const auto plot = build(recipe);
  ASSERT_TRUE(plot) << plot.error().message;
  EXPECT_NE(plot->note.find("2048 tokens a batch"), std::string::npos) << plot->note;
  EXPECT_EQ(plot->series.size(), 2u) << "no guide: at a constant number of tokens linear is level";
}

TEST(PlotsScaling, MissingPhasesMetricsAndNumbersAreNamed) {
  Recipe recipe = scaling(test::bench_rows());
  recipe.phase = "decode";
  EXPECT_NE(refusal(recipe).find("None of the 12 measurements is of 'decode'"), std::string::npos);
  recipe.phase = "train";
  recipe.metric = "loss";
  EXPECT_NE(refusal(recipe).find("time or memory, not 'loss'"), std::string::npos);
  EXPECT_NE(refusal(scaling({})).find("None of the 0"), std::string::npos);
  Recipe curves;
  EXPECT_FALSE(build_plot(curves)) << "curves come from the database";
  const auto broken = parse_recipe(R"({"kind": "scaling", "bench": [{"what": "train"}]})");
  ASSERT_FALSE(broken);
  EXPECT_NE(broken.error().message.find("The recipe's 'bench'"), std::string::npos) << broken.error().message;
  EXPECT_FALSE(parse_recipe(R"({"kind": "scaling", "phase": "training"})"));
}

}  // namespace
}  // namespace rat
