// What hovering, clicking and keys do to the shared selection, and that exported recipes say what is seen.
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "tests/views/canvas_harness.h"
#include "views/canvases/heat_map_widget.h"
#include "views/canvases/map_controls.h"
#include "views/plots/heat_map_image.h"

namespace rat::views {
namespace {

std::unique_ptr<View> make(std::string_view id) {
  for (const ViewType& type : view_types())
    if (type.id == id) return type.make();
  return nullptr;
}

TEST(Attention, HoverIsTransientAndClickPinsTheCell) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4", 32);
  const auto view = make("attention");
  const ImVec2 inside{300, 420}, outside{-50, -50};
  canvas.draw(*view, 900, 700, inside);
  canvas.draw(*view, 900, 700, inside);
  const int64_t token = canvas.selection.hover_token, key = canvas.selection.hover_key;
  ASSERT_GE(token, 0);
  ASSERT_GE(key, 0);
  EXPECT_EQ(canvas.selection.query_token, -1);
  canvas.draw(*view, 900, 700, inside, true);
  canvas.draw(*view, 900, 700, inside, false);
  EXPECT_EQ(canvas.selection.query_token, token);
  EXPECT_EQ(canvas.selection.key, key);
  canvas.draw(*view, 900, 700, outside);
  EXPECT_EQ(canvas.selection.hover_token, -1);
  EXPECT_EQ(canvas.selection.query_token, token);
  EXPECT_TRUE(view->key_pressed(ImGuiKey_Escape, false, false, canvas.frame));
  EXPECT_EQ(canvas.selection.query_token, -1);
}

TEST(Attention, KeysMoveLayerHeadAndToken) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4*3", 32);
  const auto view = make("attention");
  EXPECT_TRUE(view->key_pressed(ImGuiKey_DownArrow, false, false, canvas.frame));
  EXPECT_EQ(canvas.selection.layer, 1);
  for (int i = 0; i < 5; ++i) view->key_pressed(ImGuiKey_DownArrow, false, false, canvas.frame);
  EXPECT_EQ(canvas.selection.layer, 2);
  EXPECT_TRUE(view->key_pressed(']', false, false, canvas.frame));
  EXPECT_EQ(canvas.selection.head, 1);
  EXPECT_TRUE(view->key_pressed('[', false, false, canvas.frame));
  EXPECT_TRUE(view->key_pressed('[', false, false, canvas.frame));
  EXPECT_EQ(canvas.selection.head, 0);
  canvas.selection.query_token = 5, canvas.selection.key = 0;
  EXPECT_TRUE(view->key_pressed(ImGuiKey_RightArrow, true, false, canvas.frame));
  EXPECT_EQ(canvas.selection.query_token, 8) << "the next chunk boundary of L = 4";
  EXPECT_TRUE(view->key_pressed(ImGuiKey_LeftArrow, true, false, canvas.frame));
  EXPECT_EQ(canvas.selection.query_token, 4);
  EXPECT_TRUE(view->key_pressed(ImGuiKey_End, false, false, canvas.frame));
  EXPECT_EQ(canvas.selection.query_token, 31);
}

TEST(Attention, RecipeNamesRunLayerHeadAndTheLimitsOnScreen) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4*2", 32);
  canvas.selection.layer = 1, canvas.selection.head = 1;
  const auto view = make("attention");
  canvas.draw(*view, 900, 700);
  const auto recipe = view->recipe(canvas.frame);
  ASSERT_TRUE(recipe.has_value());
  EXPECT_EQ(recipe->kind, FigureKind::attention);
  EXPECT_EQ(recipe->runs, std::vector<std::string>{"run"});
  EXPECT_EQ(recipe->layer, 1);
  EXPECT_EQ(recipe->head, 1);
  ASSERT_TRUE(recipe->color_limits.has_value());
  EXPECT_FLOAT_EQ(recipe->color_limits->second, 0.5f) << "head 1: the largest weight is 1 / (1 + 1)";
  EXPECT_TRUE(recipe->log_color);
  EXPECT_EQ(recipe->token_end, 0) << "everything is visible";
}

// A map of more than a million weights is reduced beside the frames, and what arrives is what was asked for last.
TEST(Attention, ALargeMapIsPreparedOffTheFrames) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4", 2200);
  const auto view = make("attention");
  const auto until_there = [&] {
    for (int i = 0; i < 2000; ++i) {
      canvas.frame.wants_frame = false;
      canvas.draw(*view, 900, 700);
      if (!canvas.frame.wants_frame) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  };
  canvas.draw(*view, 900, 700);
  EXPECT_TRUE(canvas.frame.wants_frame);
  EXPECT_FALSE(canvas.textures.stored.contains("attention/main"));
  EXPECT_FALSE(view->recipe(canvas.frame)->color_limits.has_value()) << "the limits of a map that is not there yet";
  canvas.selection.head = 1;  // before the first one has arrived
  ASSERT_TRUE(until_there());
  EXPECT_TRUE(canvas.textures.stored.contains("attention/main"));
  EXPECT_FLOAT_EQ(view->recipe(canvas.frame)->color_limits->second, 0.5f) << "the map of another head";
  canvas.selection.head = 0;
  ASSERT_TRUE(until_there());
  EXPECT_FLOAT_EQ(view->recipe(canvas.frame)->color_limits->second, 1.0f);
}

TEST(Attention, TheFigureFollowsEveryColourScale) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4", 32);
  for (const ScaleKind kind : {ScaleKind::linear, ScaleKind::log, ScaleKind::gamma}) {
    const MapControls controls(kind);
    Recipe recipe;
    recipe.kind = FigureKind::attention;
    copy_colors(controls, false, recipe);
    recipe.color_limits = {0.01f, 0.9f};
    const auto plot = build_plot(*parse_recipe(to_json(recipe)), *canvas.frame.trace);
    ASSERT_TRUE(plot) << plot.error().message;
    const ColorScale screen{ColorMap::viridis, kind, 0.01f, 0.9f};
    for (const float weight : {0.005f, 0.02f, 0.1f, 0.5f, 0.9f, 1.0f})
      EXPECT_NEAR(color_position(*plot->heat_map, weight), screen.position(weight), 1e-5) << weight;
  }
}

TEST(States, SortingKeepsTheHoveredValueEqualToTheSnapshot) {
  // The channel reported for a row must be the one whose values are drawn there, sorted or not.
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4", 32);
  const auto view = make("states");
  for (const bool sorted : {false, true}) {
    if (sorted) view->key_pressed('S', false, false, canvas.frame);
    std::vector<int64_t> seen;
    for (float y = 150; y < 480; y += 4) {
      canvas.draw(*view, 1000, 700, {300, y});
      if (canvas.selection.hover_channel >= 0 && (seen.empty() || seen.back() != canvas.selection.hover_channel))
        seen.push_back(canvas.selection.hover_channel);
    }
    ASSERT_GE(seen.size(), 8u);
    // Gates grow with the channel index in the test trace: longest half-life first is descending order.
    for (std::size_t i = 1; i < seen.size(); ++i) EXPECT_EQ(seen[i], seen[i - 1] + (sorted ? -1 : 1));
  }
}

TEST(HeatMap, ReadsTheCellUnderTheMouseAndWheelZoomsAboutIt) {
  Canvas canvas;
  struct MapView final : View {
    std::vector<float> values;
    HeatMapWidget map{"test"};
    MapResult result;
    void draw(Frame& frame) override {
      map.set_matrix("one", [this] { return MatrixPyramid(nullptr, values.data(), 40, 30, 30, CellKind::signed_); });
      result = map.draw(Pen::of(frame), {0, 0, 600, 500}, frame.textures, {"x", "y", "v", false, 0, 0},
                        {ColorMap::viridis, ScaleKind::linear, 0, 1}, {});
    }
    ProbeRequest probes(const Selection&, const ModelConfig&) const override { return {}; }
    std::optional<Recipe> recipe(const Frame&) const override { return std::nullopt; }
  } view;
  for (int i = 0; i < 1200; ++i) view.values.push_back(static_cast<float>(i));
  canvas.draw(view, 600, 500);
  const Box plot = view.result.plot;
  for (int row = 0; row < 40; row += 3)
    for (int col = 0; col < 30; col += 7) {
      const ImVec2 centre{plot.x0 + (static_cast<float>(col) + 0.5f) * plot.width() / 30,
                          plot.y0 + (static_cast<float>(row) + 0.5f) * plot.height() / 40};
      canvas.draw(view, 600, 500, centre);
      ASSERT_TRUE(view.result.hovered);
      EXPECT_EQ(view.result.row, row);
      EXPECT_EQ(view.result.col, col);
      EXPECT_EQ(view.map.matrix().at(view.result.row, view.result.col),
                view.values[static_cast<std::size_t>(row * 30 + col)]);
    }
  const ImVec2 at{plot.x0 + plot.width() * 0.3f, plot.y0 + plot.height() * 0.6f};
  canvas.draw(view, 600, 500, at);
  const int64_t row = view.result.row, col = view.result.col;
  for (int i = 0; i < 4; ++i) canvas.draw(view, 600, 500, at, false, 1);
  EXPECT_FALSE(view.map.fitted());
  EXPECT_LT(view.map.window().x1 - view.map.window().x0, 20);
  EXPECT_EQ(view.result.row, row);
  EXPECT_EQ(view.result.col, col);
  for (int i = 0; i < 40; ++i) canvas.draw(view, 600, 500, at, false, -1);
  EXPECT_EQ(view.map.window(), (Window{0, 30, 0, 40})) << "zooming out ends at the whole map";
}

}  // namespace
}  // namespace rat::views
