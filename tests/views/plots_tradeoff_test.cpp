#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "core/mixer_list.h"
#include "tests/views/plots_store.h"
#include "views/plots/exporters.h"
#include "views/plots/metric_info.h"
#include "views/plots/recipe.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

test::StoredRun result(const std::string& layers, uint64_t seed, double loss, double decode, double cache) {
  return {layers,
          seed,
          "",
          {{"val_loss", {{10, loss + 1, 1}, {20, loss, 2}}},
           {"decode_tokens_per_s", {{20, decode, 2}}},
           {"cache_bytes", {{20, cache, 2}}}}};
}

const Series* named(const PlotDescription& plot, const std::string& name) {
  for (const Series& series : plot.series)
    if (series.name == name) return &series;
  return nullptr;
}

PlotDescription tradeoff(const std::filesystem::path& database, std::vector<std::string> ids, Recipe recipe = {}) {
  recipe.kind = FigureKind::tradeoff;
  recipe.runs = std::move(ids);
  const auto store = StoreReader::open(database);
  EXPECT_TRUE(store);
  auto plot = build_plot(recipe, *store);
  EXPECT_TRUE(plot) << plot.error().message;
  return *plot;
}

TEST(PlotsTradeoff, GroupsSeedsAndFindsTheFront) {
  const test::Folder folder;
  // rat:4 is beaten by rat:16 (faster and better); attention, rat:16 and rnn are on the front.
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {result("attention*4", 1, 1.40, 1000, 8e6), result("rat:4*4", 1, 1.46, 2000, 2e6),
                                     result("rat:16*4", 1, 1.43, 5000, 5e5), result("rat:16*4", 2, 1.45, 5200, 5e5),
                                     result("rat:16*4", 3, 1.44, 4800, 5e5), result("rnn*4", 1, 1.56, 7000, 4e3),
                                     result("rat:16,swa:128*2", 1, 1.41, 3000, 6e5)});
  const PlotDescription plot = tradeoff(folder.path() / "r.db", ids);
  const Series* rat = named(plot, "rat");
  ASSERT_TRUE(rat);
  ASSERT_EQ(rat->x.size(), 2u);
  EXPECT_EQ(rat->labels, (std::vector<std::string>{"rat:4", "rat:16"}));
  EXPECT_EQ(rat->count, (std::vector<int64_t>{1, 3}));
  EXPECT_NEAR(rat->y[1], 1.44, 1e-12);
  // 95 % Student t interval for n = 3: 4.302653 * s / sqrt(3), s = 0.01.
  EXPECT_NEAR(rat->y_high[1] - rat->y[1], 4.302653 * 0.01 / std::sqrt(3.0), 1e-6);
  EXPECT_EQ(rat->y_low[0], rat->y[0]) << "one seed has no interval";
  ASSERT_TRUE(named(plot, "hybrid"));
  EXPECT_EQ(named(plot, "hybrid")->labels[0], "rat:16,swa:128");
  // Marker area goes with cache bytes.
  const Series* attention = named(plot, "attention");
  ASSERT_TRUE(attention);
  EXPECT_NEAR(std::pow(rat->size[0] / attention->size[0], 2), 2e6 / 8e6, 1e-9);
  const Series* front = named(plot, "Pareto front (staircase)");
  ASSERT_TRUE(front);
  const auto on_front = [&](double x, double y) {
    for (std::size_t i = 0; i < front->x.size(); ++i)
      if (std::abs(front->x[i] - x) < 1e-9 && std::abs(front->y[i] - y) < 1e-9) return true;
    return false;
  };
  EXPECT_TRUE(on_front(1000, 1.40));
  EXPECT_TRUE(on_front(3000, 1.41));
  EXPECT_TRUE(on_front(5000, 1.44));
  EXPECT_TRUE(on_front(7000, 1.56));
  EXPECT_FALSE(on_front(2000, 1.46));
  EXPECT_NE(plot.note.find("n = 1 to 3 seeds"), std::string::npos) << plot.note;
  EXPECT_EQ(plot.run_ids.size(), 7u);
}

// The same seed twice is no second seed: an interval over both says nothing about others.
TEST(PlotsTradeoff, RepeatsOfASeedAreNotCalledSeeds) {
  const test::Folder folder;
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {result("rat:16*4", 1, 1.43, 5000, 5e5), result("rat:16*4", 1, 1.43, 5200, 5e5),
                                     result("rat:16*4", 2, 1.45, 5100, 5e5), result("rnn*4", 1, 1.56, 7000, 4e3)});
  const PlotDescription plot = tradeoff(folder.path() / "r.db", ids);
  EXPECT_NE(plot.note.find("n = 1 to 3 runs, some of one seed"), std::string::npos) << plot.note;
  ASSERT_EQ(plot.warnings.size(), 1u);
  EXPECT_NE(plot.warnings[0].find("rat:16*4: 3 runs of 2 seeds"), std::string::npos) << plot.warnings[0];
  ASSERT_TRUE(named(plot, "rat"));
  EXPECT_NE(named(plot, "rat")->details[0].find("3 runs of 2 seeds"), std::string::npos);
  EXPECT_NE(named(plot, "rnn")->details[0].find("1 seed"), std::string::npos);
}

TEST(PlotsTradeoff, EveryMixerIsToldFromTheOthers) {
  const test::Folder folder;
  std::vector<test::StoredRun> runs{result("rat:16,attention*2", 1, 1.4, 1000, 5e5)};
  for (const MixerType& type : mixer_types())
    runs.push_back(
        result(format_layers({{.kind = std::string(type.name), .chunk = 16, .window = 16}}), 1, 1.5, 2000, 5e5));
  const PlotDescription plot = tradeoff(folder.path() / "r.db", test::write_runs(folder.path() / "r.db", runs));
  std::set<std::pair<int, Marker>> looks;
  std::size_t families = 0;
  for (const Series& series : plot.series) {
    if (series.line) continue;
    ++families;
    EXPECT_TRUE(looks.emplace(series.color, series.marker).second) << series.name;
  }
  EXPECT_EQ(families, 1 + mixer_types().size());
}

TEST(PlotsTradeoff, AccuracyIsBetterWhenLarger) {
  const test::Folder folder;
  const auto run = [](const std::string& layers, double accuracy, double cache) {
    return test::StoredRun{layers, 1, "", {{"val_accuracy", {{20, accuracy, 2}}}, {"cache_bytes", {{20, cache, 2}}}}};
  };
  const auto ids = test::write_runs(
      folder.path() / "r.db", {run("attention*4", 0.99, 8e6), run("rat:16*4", 0.8, 5e5), run("rat:64*4", 0.7, 6e5)});
  Recipe recipe;
  recipe.x_metric = "cache_bytes", recipe.y_metric = "val_accuracy", recipe.size_metric = "";
  const PlotDescription plot = tradeoff(folder.path() / "r.db", ids, recipe);
  const Series* front = named(plot, "Pareto front (staircase)");
  ASSERT_TRUE(front);
  EXPECT_EQ(front->x.front(), 5e5);
  EXPECT_EQ(front->x.back(), 8e6);
  for (const double y : front->y) EXPECT_NE(y, 0.7);
}

TEST(PlotsTradeoff, SaysWhatKeepsItsPointsFromBeingCompared) {
  const test::Folder folder;
  const std::filesystem::path database = folder.path() / "r.db";
  const auto ids =
      test::write_runs(database, {result("rat:16*4", 1, 1.4, 5000, 5e5), result("rat:16*4", 2, 1.5, 5100, 5e5)});
  {
    const auto writer = StoreWriter::open(database);
    ASSERT_TRUE(writer);
    const auto row = StoreReader::open(database)->run(ids[1]);
    ASSERT_TRUE((*writer)->rename_run(ids[1], "other text"));
    ASSERT_TRUE((*writer)->set_spec(ids[1], row->spec_json, "another spec", 20));
    ASSERT_TRUE((*writer)->set_data(ids[0], "texts", "hash of texts"));
    ASSERT_TRUE((*writer)->set_data(ids[1], "other texts", "hash of others"));
    (*writer)->set_progress(ids[1], 7);
    ASSERT_TRUE((*writer)->end_run(ids[1], RunState::stopped));
  }
  const PlotDescription plot = tradeoff(database, ids);
  const Series* rat = named(plot, "rat");
  ASSERT_TRUE(rat);
  ASSERT_EQ(rat->labels.size(), 2u);
  EXPECT_NE(rat->labels[0], rat->labels[1]);
  EXPECT_EQ(rat->labels[1], "rat:16 \xc2\xb7 other text") << "two points of the same layers have their runs' names";
  EXPECT_EQ(plot.warnings,
            (std::vector<std::string>{"the points were trained on 2 different data sets",
                                      "1 of 2 runs are not finished", "the runs have done 7 to 20 steps"}));
}

TEST(PlotsTradeoff, RunsWithoutTheNumbersAreCounted) {
  const test::Folder folder;
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {result("rat:16*4", 1, 1.4, 5000, 5e5),
                                     {"rnn*4", 1, "", {{"loss", test::points(3, [](int64_t) { return 1.0; })}}}});
  const PlotDescription plot = tradeoff(folder.path() / "r.db", ids);
  ASSERT_EQ(plot.warnings.size(), 1u);
  EXPECT_NE(plot.warnings[0].find("1 of 2 runs"), std::string::npos);
}

TEST(PlotsTradeoff, ResamplingKnowsCertainFromUncertain) {
  // b is clearly beaten by a; c and d overlap, so each is beaten in a part of the resamples only.
  const std::vector<UncertainPoint> points{
      {10, 1, 0, 0.001, 5, 5}, {5, 2, 0, 0.001, 5, 5}, {20, 1.5, 0, 0.2, 5, 5}, {20, 1.5, 0, 0.2, 5, 5}};
  const auto share = share_non_dominated(points, Goal::maximise, Goal::minimise);
  EXPECT_GT(share[0], 0.9);
  EXPECT_EQ(share[1], 0);
  EXPECT_NEAR(share[2], 0.5, 0.1);
  EXPECT_NEAR(share[3], 0.5, 0.1);
  EXPECT_EQ(share, share_non_dominated(points, Goal::maximise, Goal::minimise));
}

TEST(PlotsThroughput, BarsAreMediansAfterWarmUp) {
  const test::Folder folder;
  // 10 of 100 steps are warm-up with absurd values; then 1..90.
  const auto value = [](int64_t s) { return s <= 10 ? 1e6 : static_cast<double>(s - 10); };
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {{"rat:16*4",
                                      1,
                                      "a",
                                      {{"op_ms/gemm", test::points(100, value)},
                                       {"op_ms/cross entropy", test::points(100, [](int64_t) { return 2.0; })}}}});
  Recipe recipe;
  recipe.kind = FigureKind::throughput;
  recipe.runs = ids;
  const auto store = StoreReader::open(folder.path() / "r.db");
  const auto plot = build_plot(recipe, *store);
  ASSERT_TRUE(plot) << plot.error().message;
  ASSERT_EQ(plot->bars.size(), 2u);
  EXPECT_EQ(plot->bars[0].name, "gemm");
  EXPECT_DOUBLE_EQ(plot->bars[0].value, 45.5);
  EXPECT_DOUBLE_EQ(plot->bars[0].low, 23.25);
  EXPECT_DOUBLE_EQ(plot->bars[0].high, 67.75);
  EXPECT_NE(to_csv(*plot).find("0,gemm," + ids[0] + ",45.5,23.25,67.75"), std::string::npos);
}

TEST(PlotsMetrics, NumbersReadWell) {
  EXPECT_EQ(short_number(61300), "61.3 k");
  EXPECT_EQ(short_number(999.7), "1.00 k");
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(1.4121), "1.41");
  EXPECT_EQ(short_number(4), "4");
  EXPECT_EQ(with_unit(589824, metric_info("cache_bytes")), "590 kB");
  EXPECT_EQ(with_unit(4900, metric_info("decode_tokens_per_s")), "4.90 k tokens/s");
  EXPECT_EQ(metric_info("op_ms/gemm").label(), "gemm, ms a step");
  EXPECT_EQ(metric_info("something_new").title, "something new");
}

}  // namespace
}  // namespace rat
