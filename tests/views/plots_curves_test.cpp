#include <gtest/gtest.h>

#include <cmath>

#include "tests/views/plots_store.h"
#include "views/plots/exporters.h"
#include "views/plots/recipe.h"
#include "views/plots/series_math.h"

namespace rat {
namespace {

using test::points;

PlotDescription curves(const std::filesystem::path& database, const Recipe& recipe, int64_t max_points = 0) {
  const auto store = StoreReader::open(database);
  EXPECT_TRUE(store) << store.error().message;
  auto plot = build_plot(recipe, *store, max_points);
  EXPECT_TRUE(plot) << plot.error().message;
  return *plot;
}

Recipe of_runs(std::vector<std::string> ids, const std::string& metric = "loss") {
  Recipe recipe;
  recipe.runs = std::move(ids);
  recipe.metric = metric;
  return recipe;
}

TEST(PlotsCurves, SmoothingIsTheDebiasedAverageOfAllPoints) {
  const test::Folder folder;
  const auto value = [](int64_t s) { return 5.0 / static_cast<double>(s) + std::sin(static_cast<double>(s)); };
  const auto ids = test::write_runs(folder.path() / "r.db", {{"rat:16*2", 1, "a", {{"loss", points(500, value)}}}});
  Recipe recipe = of_runs(ids);
  recipe.smoothing = 0.9;
  const PlotDescription plot = curves(folder.path() / "r.db", recipe);
  ASSERT_EQ(plot.series.size(), 1u);
  ASSERT_EQ(plot.series[0].y.size(), 500u);
  // The definition as a weighted mean over the whole past, not as a recursion: sum s^(n-i) y_i / sum s^(n-i).
  for (const int64_t n : {1, 2, 17, 500}) {
    double above = 0, below = 0;
    for (int64_t i = 1; i <= n; ++i) {
      const double weight = std::pow(0.9, static_cast<double>(n - i));
      above += weight * value(i), below += weight;
    }
    EXPECT_NEAR(plot.series[0].y[static_cast<std::size_t>(n - 1)], above / below, 1e-12 * 500);
    EXPECT_EQ(plot.series[0].raw[static_cast<std::size_t>(n - 1)], value(n));
  }
  EXPECT_NE(plot.note.find("s = 0.9 (half-life 6.58 points)"), std::string::npos) << plot.note;
  EXPECT_NE(plot.note.find("T 512"), std::string::npos) << plot.note;
}

TEST(PlotsCurves, ThinningKeepsEveryExtremeAndSmoothsBefore) {
  const test::Folder folder;
  const auto value = [](int64_t s) {
    return s == 4321 ? 99.0 : s == 777 ? -50.0 : std::cos(0.01 * static_cast<double>(s));
  };
  const auto ids = test::write_runs(folder.path() / "r.db", {{"rat:16*2", 1, "a", {{"loss", points(10000, value)}}}});
  Recipe recipe = of_runs(ids);
  recipe.smoothing = 0.5;
  const PlotDescription full = curves(folder.path() / "r.db", recipe),
                        thin = curves(folder.path() / "r.db", recipe, 200);
  const Series& series = thin.series[0];
  EXPECT_LE(series.x.size(), 202u);
  EXPECT_EQ(*std::max_element(series.raw.begin(), series.raw.end()), 99.0);
  EXPECT_EQ(*std::min_element(series.raw.begin(), series.raw.end()), -50.0);
  EXPECT_EQ(series.x.front(), 1);
  EXPECT_EQ(series.x.back(), 10000);
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    const auto at = static_cast<std::size_t>(series.x[i]) - 1;
    EXPECT_EQ(series.y[i], full.series[0].y[at]) << "thinning must not change a smoothed value";
  }
  EXPECT_NE(thin.note.find("points fewer"), std::string::npos);
  EXPECT_EQ(full.note.find("points fewer"), std::string::npos);
}

TEST(PlotsCurves, ASinglePointIsMarkedBecauseItHasNoLine) {
  const test::Folder folder;
  const auto value = [](int64_t s) { return 1.0 * static_cast<double>(s); };
  const auto ids = test::write_runs(folder.path() / "r.db", {{"rat:16*2", 1, "one", {{"loss", points(1, value)}}},
                                                             {"rnn*2", 1, "two", {{"loss", points(2, value)}}}});
  const PlotDescription plot = curves(folder.path() / "r.db", of_runs(ids));
  ASSERT_EQ(plot.series.size(), 2u);
  for (const Series& series : plot.series) EXPECT_EQ(series.marker != Marker::none, series.y.size() == 1) << series.name;
}

TEST(PlotsCurves, NotFiniteValuesAreCountedAndMarkedNotDropped) {
  const test::Folder folder;
  const auto value = [](int64_t s) { return s == 3 ? std::nan("") : s == 5 ? INFINITY : 1.0 * static_cast<double>(s); };
  const auto ids = test::write_runs(folder.path() / "r.db", {{"rat:16*2", 1, "a", {{"loss", points(8, value)}}}});
  const PlotDescription plot = curves(folder.path() / "r.db", of_runs(ids));
  EXPECT_EQ(plot.series[0].x, (std::vector<double>{1, 2, 4, 6, 7, 8}));
  EXPECT_EQ(plot.series[0].bad_x, (std::vector<double>{3, 5}));
  ASSERT_EQ(plot.warnings.size(), 1u);
  EXPECT_NE(plot.warnings[0].find("2 NaN or infinite"), std::string::npos);
}

TEST(PlotsCurves, LogAxisCountsWhatItCannotShow) {
  const test::Folder folder;
  const auto ids = test::write_runs(
      folder.path() / "r.db",
      {{"rat:16*2", 1, "a", {{"grad_norm", points(6, [](int64_t s) { return static_cast<double>(s - 3); })}}}});
  Recipe recipe = of_runs(ids, "grad_norm");
  recipe.y.scale = Scale::log10;
  const PlotDescription plot = curves(folder.path() / "r.db", recipe);
  EXPECT_EQ(plot.series[0].y, (std::vector<double>{1, 2, 3}));
  ASSERT_EQ(plot.warnings.size(), 1u);
  EXPECT_EQ(plot.warnings[0], "3 values <= 0 not drawn on the log y axis");
}

TEST(PlotsCurves, SeedsCollapseToMeanAndDeviationWithTheirCount) {
  const test::Folder folder;
  std::vector<test::StoredRun> runs;
  for (uint64_t seed = 1; seed <= 3; ++seed)
    runs.push_back({"rat:16*2", seed, "", {{"loss", points(seed == 3 ? 5 : 10, [seed](int64_t s) {
                                              return static_cast<double>(s) + static_cast<double>(seed * seed);
                                            })}}});
  runs.push_back({"rnn*2", 1, "", {{"loss", points(10, [](int64_t) { return 2.0; })}}});
  const auto ids = test::write_runs(folder.path() / "r.db", runs);
  Recipe recipe = of_runs(ids);
  recipe.collapse_seeds = true;
  const PlotDescription plot = curves(folder.path() / "r.db", recipe);
  ASSERT_EQ(plot.series.size(), 2u);
  const Series& mean = plot.series[0];
  EXPECT_EQ(mean.name, "rat:16*2 (n = 3)");
  EXPECT_EQ(mean.count[0], 3);
  EXPECT_EQ(mean.count[9], 2);  // the third seed ended early, and the plot says so
  // Step 1: 2, 5, 10: mean 17/3, sample variance (3 (4+25+100) - 17^2) / 6.
  EXPECT_NEAR(mean.y[0], 17.0 / 3, 1e-12);
  EXPECT_NEAR(mean.y_high[0] - mean.y[0], std::sqrt((3.0 * 129 - 289) / 6), 1e-12);
  EXPECT_EQ(plot.series[1].count[0], 1);
  EXPECT_EQ(plot.series[1].y_low[0], 2.0);
  EXPECT_NE(plot.note.find("n = 1 to 3"), std::string::npos) << plot.note;
}

TEST(PlotsCurves, TokensAndWallTimeAsX) {
  const test::Folder folder;
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {{"rat:16*2", 1, "a", {{"loss", points(4, [](int64_t) { return 1.0; })}}}});
  Recipe recipe = of_runs(ids);
  recipe.x_axis = "tokens";
  EXPECT_EQ(curves(folder.path() / "r.db", recipe).series[0].x.back(), 4.0 * 16 * 512);
  recipe.x_axis = "wall";
  EXPECT_DOUBLE_EQ(curves(folder.path() / "r.db", recipe).series[0].x.back(), 0.2);
}

TEST(PlotsCurves, TimeThatGoesBackStartsANewLine) {
  const test::Folder folder;
  std::vector<MetricPoint> resumed{{1, 9, 10}, {2, 8, 20}, {3, 7, 30}, {4, 6, 5}, {5, 5, 15}};
  const auto ids = test::write_runs(folder.path() / "r.db", {{"rat:16*2", 1, "a", {{"loss", resumed}}}});
  Recipe recipe = of_runs(ids);
  recipe.x_axis = "wall";
  const PlotDescription plot = curves(folder.path() / "r.db", recipe);
  ASSERT_EQ(plot.series.size(), 2u);
  EXPECT_EQ(plot.series[0].x, (std::vector<double>{10, 20, 30}));
  EXPECT_EQ(plot.series[1].x, (std::vector<double>{5, 15}));
  EXPECT_EQ(plot.series[1].name, "") << "one legend entry a run";
}

TEST(PlotsCurves, ErrorsSayWhatToDo) {
  const test::Folder folder;
  const auto ids = test::write_runs(folder.path() / "r.db",
                                    {{"rat:16*2", 1, "a", {{"loss", points(4, [](int64_t) { return 1.0; })}}}});
  const auto store = StoreReader::open(folder.path() / "r.db");
  ASSERT_TRUE(store);
  EXPECT_FALSE(build_plot(of_runs({}), *store));
  EXPECT_FALSE(build_plot(of_runs({"nosuchrun"}), *store));
  const auto no_metric = build_plot(of_runs(ids, "val_loss"), *store);
  ASSERT_FALSE(no_metric);
  EXPECT_NE(no_metric.error().message.find("val_loss"), std::string::npos);
  Recipe map = of_runs(ids);
  map.kind = FigureKind::attention;
  EXPECT_FALSE(build_plot(map, *store));
}

TEST(PlotsCsv, HoldsExactlyWhatIsDrawn) {
  PlotDescription plot;
  Series line;
  line.name = "a \"b\", c";
  line.run_id = "r1";
  line.x = {1, 2};
  line.y = {0.1, 1e-300};
  line.raw = {0.30000000000000004, -0.0};
  line.y_low = {0, 1}, line.y_high = {2, 3};
  line.count = {3, 2};
  line.bad_x = {1.5};
  Series point;
  point.name = "p";
  point.x = {5}, point.y = {6}, point.x_low = {4}, point.x_high = {7}, point.size = {3.5};
  point.labels = {"rat:16,swa:8"}, point.point_runs = {"r9"};
  plot.series = {line, point};
  EXPECT_EQ(to_csv(plot),
            "series,name,run_id,label,x,y,raw,y_low,y_high,x_low,x_high,n,size_pt\r\n"
            "0,\"a \"\"b\"\", c\",r1,,1,0.1,0.30000000000000004,0,2,,,3,\r\n"
            "0,\"a \"\"b\"\", c\",r1,,2,1e-300,-0,1,3,,,2,\r\n"
            "0,\"a \"\"b\"\", c\",r1,,1.5,nan,,,,,,,\r\n"
            "1,p,r9,\"rat:16,swa:8\",5,6,,,,4,7,,3.5\r\n");
}

TEST(PlotsSeriesMath, ThinningOfEqualAndSinglePoints) {
  const std::vector<double> x{1, 1, 1, 1, 1}, y{3, 1, 4, 1, 5};
  const std::span<const double> columns[]{y};
  const auto kept = thin_min_max(x, columns, 3);
  EXPECT_NE(std::find(kept.begin(), kept.end(), 4u), kept.end());
  EXPECT_NE(std::find(kept.begin(), kept.end(), 1u), kept.end());
  EXPECT_TRUE(thin_min_max({}, columns, 3).empty());
}

}  // namespace
}  // namespace rat
