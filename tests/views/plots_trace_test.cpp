#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>

#include "tests/views/plots_store.h"
#include "views/plots/exporters.h"
#include "views/plots/heat_map_image.h"
#include "views/plots/recipe.h"

namespace rat {
namespace {

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST(PlotsTrace, SurvivesTheFileBitForBit) {
  const test::Folder folder;
  const TraceSnapshot trace = test::small_trace();
  const auto written = write_trace(folder.path() / "t.safetensors", trace);
  ASSERT_TRUE(written) << written.error().message;
  const auto again = read_trace(folder.path() / "t.safetensors");
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->run_id, trace.run_id);
  EXPECT_EQ(again->step, trace.step);
  EXPECT_EQ(again->serial, trace.serial);
  EXPECT_EQ(again->cost_ms, trace.cost_ms);
  EXPECT_EQ(again->source, trace.source);
  EXPECT_EQ(again->kernel_path, trace.kernel_path);
  EXPECT_EQ(again->byte_tokens, trace.byte_tokens);
  EXPECT_EQ(again->tokens, trace.tokens);
  EXPECT_EQ(again->model, trace.model);
  ASSERT_EQ(again->tensors.size(), trace.tensors.size());
  for (const ProbeTensor& tensor : trace.tensors) {
    const ProbeTensor* other = again->find(tensor.probe, tensor.layer);
    ASSERT_TRUE(other);
    EXPECT_EQ(other->shape, tensor.shape);
    EXPECT_TRUE(same_bits(other->values, tensor.values)) << "NaN cells included";
  }
}

TEST(PlotsTrace, RefusesFilesThatAreNotTraces) {
  const test::Folder folder;
  std::ofstream(folder.path() / "text") << "not a trace at all";
  EXPECT_FALSE(read_trace(folder.path() / "text"));
  EXPECT_FALSE(read_trace(folder.path() / "missing"));
}

TEST(PlotsTrace, AttentionKeepsTheMaskAndSetsTheOwnStateApart) {
  const TraceSnapshot trace = test::small_trace(19);
  Recipe recipe;
  recipe.kind = FigureKind::attention;
  const auto plot = build_plot(recipe, trace);
  ASSERT_TRUE(plot) << plot.error().message;
  const HeatMap& map = *plot->heat_map;
  const ProbeTensor& attention = *trace.find(Probe::attention, 0);
  EXPECT_EQ(map.rows, 19);
  EXPECT_EQ(map.cols, 5 + 1 + 1);  // five chunks, a gap, the own state
  for (int64_t t = 0; t < 19; ++t) {
    for (int64_t c = 0; c < 5; ++c) {
      const float drawn = map.values[static_cast<std::size_t>(t * map.cols + c)];
      if (c >= t / 4) {
        EXPECT_TRUE(std::isnan(drawn)) << t << ", " << c;
      } else {
        EXPECT_EQ(drawn, attention.row(0, t)[static_cast<std::size_t>(c)]);
      }
    }
    EXPECT_TRUE(std::isnan(map.values[static_cast<std::size_t>(t * map.cols + 5)])) << "the gap";
    EXPECT_EQ(map.values[static_cast<std::size_t>(t * map.cols + 6)], attention.row(0, t)[5]);
  }
  EXPECT_EQ(map.row_lines, (std::vector<double>{4, 8, 12, 16}));
  EXPECT_EQ(map.column_names[6], "own state");
  EXPECT_EQ(plot->run_ids, std::vector<std::string>{"abc123"});
  const std::string csv = to_csv(*plot);
  EXPECT_EQ(csv.substr(0, csv.find("\r\n")), "query token,chunk 0,chunk 1,chunk 2,chunk 3,chunk 4,own state");
  EXPECT_NE(csv.find("\r\n0,,,,,,1\r\n"), std::string::npos)
      << "the first token sees only itself; masked cells are empty";
}

TEST(PlotsTrace, StatesAreSortedByHalfLifeAndTransposed) {
  const TraceSnapshot trace = test::small_trace(19, 6);
  Recipe recipe;
  recipe.kind = FigureKind::states;
  recipe.probe = Probe::state_v;
  recipe.sort_channels = true;
  recipe.color_map = ColorMap::diverging;
  recipe.token_begin = 2, recipe.token_end = 12;
  const auto plot = build_plot(recipe, trace);
  ASSERT_TRUE(plot) << plot.error().message;
  const HeatMap& map = *plot->heat_map;
  EXPECT_EQ(map.rows, 6);
  EXPECT_EQ(map.cols, 10);
  // Gates 0.1 + 0.8 ((7 d) mod 6) / 6 grow with d: channel 5 remembers longest.
  EXPECT_EQ(map.row_names, (std::vector<std::string>{"5", "4", "3", "2", "1", "0"}));
  EXPECT_EQ(map.values[0], trace.find(Probe::state_v, 0)->row(2)[5]);
  EXPECT_EQ(map.low, -map.high) << "a diverging map is symmetric about 0";
  EXPECT_EQ(map.column_lines, (std::vector<double>{4, 8}));
  EXPECT_NE(plot->note.find("symmetric, clamped at the 99th percentile"), std::string::npos) << plot->note;
}

TEST(PlotsTrace, WrongRequestsSayWhatThereIs) {
  const TraceSnapshot trace = test::small_trace();
  Recipe recipe;
  recipe.kind = FigureKind::attention;
  recipe.layer = 3;
  auto plot = build_plot(recipe, trace);
  ASSERT_FALSE(plot);
  EXPECT_NE(plot.error().message.find("attention/0"), std::string::npos) << plot.error().message;
  recipe.layer = 0, recipe.head = 1;
  EXPECT_FALSE(build_plot(recipe, trace));
  recipe.head = 0, recipe.token_end = 1000;
  EXPECT_FALSE(build_plot(recipe, trace));
  recipe.kind = FigureKind::curves;
  EXPECT_FALSE(build_plot(recipe, trace));
}

TEST(PlotsTrace, AFigureSavesOnlyWhatItDraws) {
  Recipe recipe;
  recipe.kind = FigureKind::states;
  recipe.probe = Probe::state_v;
  EXPECT_EQ(trace_of_figure(recipe, test::small_trace()).tensors.size(), 1u);
  recipe.sort_channels = true;
  EXPECT_EQ(trace_of_figure(recipe, test::small_trace()).tensors.size(), 2u);
}

TEST(PlotsHeatMap, ColoursRunFromTheFirstToTheLast) {
  HeatMap map;
  map.rows = 1, map.cols = 4;
  map.values = {0, 1, std::nanf(""), 0.01f};
  map.low = 0.01f, map.high = 1;
  map.log_color = true;
  const Color white{255, 255, 255};
  const IndexedImage image = heat_map_image(map, white);
  EXPECT_EQ(image.pixels, (std::vector<uint8_t>{1, 255, 0, 1}));
  EXPECT_EQ(image.palette[0], white);
  EXPECT_EQ(image.palette[1], color_at(ColorMap::viridis, 0));
  EXPECT_EQ(image.palette[255], color_at(ColorMap::viridis, 1));
  map.values[0] = 0.1f;  // half way on the logarithmic bar
  EXPECT_EQ(heat_map_image(map, white).pixels[0], 128);
}

TEST(PlotsTikz, IsCompleteAndRefusesWhatPgfplotsCannot) {
  PlotDescription plot;
  plot.x.scale = Scale::log2;
  plot.x.label = "chunk_length";
  Series line;
  line.name = "a_b % c";
  line.x = {1, 2, 4}, line.y = {3, 2, 1};
  plot.series = {line};
  const auto source = to_tikz(plot, {}, "f-pgf.csv", "f-map.png");
  ASSERT_TRUE(source);
  for (const char* part :
       {"xmode=log, log basis x=2", "chunk\\_length", "a\\_b \\% c", "{f-pgf.csv}", "\\end{tikzpicture}"})
    EXPECT_NE(source->find(part), std::string::npos) << part;
  EXPECT_EQ(to_pgf_table(plot), "s0_x,s0_y\n1,3\n2,2\n4,1\n");
  plot.y.scale = Scale::symlog;
  EXPECT_FALSE(to_tikz(plot, {}, "a", "b"));
}

}  // namespace
}  // namespace rat
