#include <gtest/gtest.h>

#include "views/plots/exporters.h"
#include "views/plots/recipe.h"
#include "views/plots/venues.h"

namespace rat {
namespace {

TEST(PlotsRecipe, EveryFieldSurvivesTheRoundTrip) {
  Recipe recipe;
  recipe.kind = FigureKind::states;
  recipe.runs = {"a1", "b2"};
  recipe.metric = "grad_norm";
  recipe.smoothing = 0.93;
  recipe.show_raw = false;
  recipe.collapse_seeds = true;
  recipe.x_axis = "tokens";
  recipe.x = {"x, \"quoted\"", Scale::log2, std::pair(1.0, 64.0)};
  recipe.y = {"", Scale::symlog, std::pair(-1.5, 2.5)};
  recipe.x_metric = "cache_bytes";
  recipe.y_metric = "val_accuracy";
  recipe.size_metric = "";
  recipe.trace_file = "figure-trace.safetensors";
  recipe.probe = Probe::state_k;
  recipe.layer = 3;
  recipe.head = 2;
  recipe.sort_channels = true;
  recipe.color_map = ColorMap::diverging;
  recipe.log_color = false;
  recipe.color_limits = {-0.25f, 0.5f};
  recipe.token_begin = 4, recipe.token_end = 100, recipe.column_begin = 1, recipe.column_end = 9;
  recipe.venue = "acl";
  recipe.full_width = true;
  recipe.width_in = 3, recipe.height_in = 2.25;
  recipe.legend = "below";
  recipe.commit = "3f2a91c";
  const std::string text = to_json(recipe);
  const auto again = parse_recipe(text);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(to_json(*again), text);
  EXPECT_EQ(again->probe, Probe::state_k);
  EXPECT_EQ(again->x.limits, recipe.x.limits);
  EXPECT_EQ(again->color_limits, recipe.color_limits);
  EXPECT_EQ(again->runs, recipe.runs);
}

TEST(PlotsRecipe, MissingKeysTakeTheDefaults) {
  const auto recipe = parse_recipe(R"({"kind": "tradeoff"})");
  ASSERT_TRUE(recipe);
  EXPECT_EQ(recipe->y_metric, "val_loss");
  EXPECT_EQ(recipe->venue, "neurips");
}

// Each broken recipe, and what its error must name.
TEST(PlotsRecipe, ErrorsNameWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> broken{
      {"", "not valid JSON"},
      {"[]", "must be a JSON object"},
      {"{}", "no 'kind'"},
      {R"({"kind": "curve"})", "curves, tradeoff"},
      {R"({"kind": "curves", "smooting": 0.5})", "smoothing"},
      {R"({"kind": "curves", "smoothing": 1})", "0 to 0.999"},
      {R"({"kind": "curves", "smoothing": "0.5"})", "'smoothing'"},
      {R"({"kind": "curves", "x": {"scale": "log"}})", "log10"},
      {R"({"kind": "curves", "x": {"limit": [0, 1]}})", "x.limits"},
      {R"({"kind": "curves", "y": {"scale": "log10", "limits": [0, 1]}})", "positive"},
      {R"({"kind": "curves", "y": {"limits": [2, 1]}})", "low < high"},
      {R"({"kind": "curves", "runs": "a"})", "list of run ids"},
      {R"({"kind": "curves", "runs": [1]})", "list of run ids"},
      {R"({"kind": "curves", "venue": "neurip"})", "neurips"},
      {R"({"kind": "states", "probe": "stat_v"})", "state_v"},
      {R"({"kind": "states", "layer": 1.5})", "whole number"},
      {R"({"kind": "states", "layer": -2})", "-1"},
      {R"({"kind": "states", "color_map": "jet"})", "viridis"},
      {R"({"kind": "curves", "legend": "above"})", "inside"},
      {R"({"kind": "curves", "collapse_seeds": 1})", "true or false"},
  };
  for (const auto& [text, part] : broken) {
    const auto recipe = parse_recipe(text);
    ASSERT_FALSE(recipe) << text;
    EXPECT_NE(recipe.error().message.find(part), std::string::npos) << text << " -> " << recipe.error().message;
  }
}

TEST(PlotsVenues, WidthsAreWholePointsAndNeverTooWide) {
  for (const Venue& venue : venues())
    for (const bool full : {false, true}) {
      Recipe recipe;
      recipe.venue = venue.id;
      recipe.full_width = full;
      const auto size = figure_size(recipe);
      ASSERT_TRUE(size);
      const double wanted = full ? venue.full_in : venue.column_in;
      EXPECT_LE(size->width_pt, wanted * 72 + 1e-6) << venue.id;
      EXPECT_GT(size->width_pt, wanted * 72 - 1) << venue.id;
      EXPECT_GE(std::min(venue.label_pt, venue.tick_pt), 6) << venue.id;
    }
  EXPECT_EQ(find_venue("icml")->full_in, 6.75);
  EXPECT_FALSE(find_venue("icm"));
}

TEST(PlotsVenues, TooSmallAFigureIsRefused) {
  Recipe recipe;
  recipe.width_in = 0.5;
  EXPECT_FALSE(figure_size(recipe));
}

}  // namespace
}  // namespace rat
