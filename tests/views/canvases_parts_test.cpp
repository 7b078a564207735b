// The parts under the canvases: tokens as text, ticks, numbers, colour maps, and reductions that lose no maximum.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "tests/views/canvas_harness.h"
#include "views/canvases/format.h"
#include "views/canvases/half_life_profile.h"
#include "views/canvases/heat_raster.h"
#include "views/canvases/throughput_data.h"
#include "views/canvases/ticks.h"
#include "views/canvases/token_text.h"
#include "views/canvases/unfold.h"

namespace rat::views {
namespace {

const float nan_value = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> bytes_of(std::string_view text) {
  std::vector<int32_t> out;
  for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  return out;
}

TEST(TokenText, EscapesWhatCannotBePrinted) {
  EXPECT_EQ(token_text('a', true), "a");
  EXPECT_EQ(token_text('\n', true), "\\n");
  EXPECT_EQ(token_text('\t', true), "\\t");
  EXPECT_EQ(token_text(0, true), "\\0");
  EXPECT_EQ(token_text(0x7f, true), "\\x7f");
  EXPECT_EQ(token_text(0xe2, true), "\\xe2");
  EXPECT_EQ(token_text(300, true), "<300>");
  EXPECT_EQ(token_text(4711, false), "4711");
  for (int byte = 0; byte < 256; ++byte) EXPECT_FALSE(token_text(byte, true).empty()) << byte;
}

TEST(TokenText, JoinsValidUtf8AndEscapesTheRest) {
  EXPECT_EQ(span_text(bytes_of("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x80"), true),
            "na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x80");
  EXPECT_EQ(span_text(bytes_of("a\xc3(b"), true), "a\\xc3(b");
  EXPECT_EQ(span_text(bytes_of("\xc0\xaf"), true), "\\xc0\\xaf") << "overlong";
  EXPECT_EQ(span_text(bytes_of("\xe0\x80\xaf"), true), "\\xe0\\x80\\xaf") << "overlong";
  EXPECT_EQ(span_text(bytes_of("\xed\xa0\x80"), true), "\\xed\\xa0\\x80") << "surrogate";
  EXPECT_EQ(span_text(bytes_of("\xe2\x82"), true), "\\xe2\\x82") << "cut off";
  EXPECT_EQ(span_text(bytes_of("a\nb"), true), "a\\nb");
  EXPECT_EQ(running_text(bytes_of("a\nb\r"), true), "a\nb\\r");
  EXPECT_EQ(span_text(std::vector<int32_t>{7, 12}, false), "7 12");
  EXPECT_EQ(tail_text(bytes_of("abc\ndef"), true, 5), "\\ndef");
}

// Eight samples in bf16 on a GPU were once shown as one in f32.
TEST(ThroughputData, SaysHowTheGenerateCanvasMeasured) {
  TrainingStatus training;
  training.run_id = "r1";
  GenerationStatus generation;
  generation.run_id = "r1", generation.samples = 8, generation.dtype = "bf16", generation.device = "cuda";
  generation.cache_dtype = "fp8", generation.position = 1234, generation.prompt_tokens = 34;
  generation.prefill_tokens_per_s = 10, generation.decode_tokens_per_s = 20;
  Frame frame;
  frame.training = std::make_shared<TrainingStatus>(training);
  const auto measured = [&] {
    frame.generation = std::make_shared<GenerationStatus>(generation);
    std::vector<std::string> conditions;
    const std::optional<ThroughputData> data = gather_throughput(frame);
    for (const SpeedRow& row : data->speeds)
      if (row.basis == "Generate canvas") conditions.push_back(row.regime + ": " + row.conditions);
    return conditions;
  };
  using Conditions = std::vector<std::string>;
  EXPECT_EQ(measured(), (Conditions{"decode: batch 8, position 1,234, bf16, cuda, cache fp8",
                                    "prefill: batch 1, T 34, bf16, cuda, cache fp8"}));
  generation.samples = 1, generation.dtype = generation.cache_dtype = "f32", generation.device = "cpu";
  EXPECT_EQ(measured(), (Conditions{"decode: batch 1, position 1,234, f32, cpu", "prefill: batch 1, T 34, f32, cpu"}));
  generation.run_id = "another";
  EXPECT_EQ(measured(), Conditions{});
}

TEST(Ticks, AreNiceInsideAndFew) {
  for (const double span : {1e-6, 0.3, 7.0, 123.0, 9.9e8})
    for (int most = 1; most < 12; ++most) {
      const auto ticks = linear_ticks(-span / 3, span, most);
      EXPECT_LE(static_cast<int>(ticks.size()), most);
      for (std::size_t i = 0; i < ticks.size(); ++i) {
        EXPECT_TRUE(ticks[i] >= -span / 3 - 1e-9 * span && ticks[i] <= span * (1 + 1e-9));
        if (i > 1) {
          EXPECT_NEAR(ticks[i] - ticks[i - 1], ticks[1] - ticks[0], 1e-9 * span);
        }
      }
      if (ticks.size() > 1) {
        const double step = ticks[1] - ticks[0], lead = step / std::pow(10, std::floor(std::log10(step) + 1e-9));
        EXPECT_TRUE(std::abs(lead - 1) < 1e-6 || std::abs(lead - 2) < 1e-6 || std::abs(lead - 5) < 1e-6) << step;
      }
    }
  EXPECT_EQ(power_of_two_ticks(0, 2047, 8), (std::vector<int64_t>{0, 256, 512, 768, 1024, 1280, 1536, 1792}));
  EXPECT_EQ(power_of_two_ticks(5, 9, 10), (std::vector<int64_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(log_ticks(0.001, 1, 4).size(), 4u);
  EXPECT_LE(log_ticks(1e-30, 1e30, 5).size(), 5u);
  EXPECT_TRUE(linear_ticks(0, std::nan(""), 5).empty());
  EXPECT_TRUE(linear_ticks(1, 1, 5).empty());
  EXPECT_TRUE(log_ticks(0, 1, 5).empty());
}

TEST(Format, HasThreeDigitsAndUnits) {
  EXPECT_EQ(grouped(-1234567), "-1,234,567");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(si(61340, "tok/s"), "61.3 k tok/s");
  EXPECT_EQ(si(999.6, "tok/s"), "1.00 k tok/s");
  EXPECT_EQ(si(12), "12");
  EXPECT_EQ(bytes_text(560000), "560 kB");
  EXPECT_EQ(bytes_text(8.4e6), "8.40 MB");
  EXPECT_EQ(milliseconds(1234), "1.23 s");
  EXPECT_EQ(number(0.31849), "0.318");
  EXPECT_EQ(number(0.000012), "1.2e-05");
  EXPECT_EQ(number(std::nan("")), "NaN");
  EXPECT_EQ(percent(0.0091), "0.9 %");
}

double lightness(Color c) {  // CIE L*
  const auto linear = [](uint8_t v) {
    const double x = v / 255.0;
    return x <= 0.04045 ? x / 12.92 : std::pow((x + 0.055) / 1.055, 2.4);
  };
  const double y = 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
  return y > 0.008856 ? 116 * std::cbrt(y) - 16 : 903.3 * y;
}

TEST(ColorMaps, SequentialOnesGetLighterAndHaveTheKnownEnds) {
  for (const ColorMap map : {ColorMap::viridis, ColorMap::cividis, ColorMap::magma})
    for (int i = 1; i <= 64; ++i)
      EXPECT_GT(lightness(color_at(map, static_cast<float>(i) / 64)),
                lightness(color_at(map, static_cast<float>(i - 1) / 64)) - 0.3)
          << color_map_name(map) << " " << i;
  EXPECT_EQ(color_at(ColorMap::viridis, 0), (Color{0x44, 0x01, 0x54}));
  EXPECT_EQ(color_at(ColorMap::viridis, 1), (Color{0xfd, 0xe7, 0x25}));
  EXPECT_EQ(color_at(ColorMap::viridis, -3), color_at(ColorMap::viridis, 0));
  const Color middle = color_at(ColorMap::diverging, 0.5f);
  EXPECT_TRUE(std::abs(middle.r - middle.b) < 8) << "zero is neutral";
}

TEST(ColorScale, PositionAndValueAreInverse) {
  for (const ScaleKind kind : {ScaleKind::linear, ScaleKind::log, ScaleKind::gamma}) {
    const ColorScale scale{ColorMap::viridis, kind, kind == ScaleKind::log ? 1e-4f : 0.0f, 0.8f};
    for (float t = 0; t <= 1; t += 0.125f) EXPECT_NEAR(scale.position(scale.value_at(t)), t, 1e-4f);
    EXPECT_EQ(scale.position(-5), 0);
    EXPECT_EQ(scale.position(9), 1);
  }
}

// The straight definition, over every cell of a pixel.
float direct_extreme(const std::vector<float>& values, int64_t cols, int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
  float best = nan_value;
  for (int64_t r = r0; r < r1; ++r)
    for (int64_t c = c0; c < c1; ++c)
      if (const float x = values[static_cast<std::size_t>(r * cols + c)]; !std::isnan(x) && !(x <= best)) best = x;
  return best;
}

TEST(Reduction, KeepsTheMaximumOfEveryPixel) {
  constexpr int64_t rows = 4096, cols = 96;
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(0, 0.5f);
  std::vector<float> values(rows * cols);
  for (float& x : values) x = uniform(random);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = r * cols / rows + 1; c < cols; ++c) values[static_cast<std::size_t>(r * cols + c)] = nan_value;
  for (int i = 0; i < 40; ++i) values[static_cast<std::size_t>((random() % rows) * cols)] = 1.0f;  // lone peaks
  const MatrixPyramid matrix(nullptr, values.data(), rows, cols, cols, CellKind::masked);
  // Ranges that are whole blocks of every level are exact; others may take in at most half their length beside them.
  std::vector<float> merged(cols);
  for (int64_t begin = 0; begin < rows; begin += 256) {
    matrix.merge_rows(begin, begin + 256, 0, merged);
    for (int64_t c = 0; c < cols; ++c) {
      const float expected = direct_extreme(values, cols, begin, begin + 256, c, c + 1);
      const float got = merged[static_cast<std::size_t>(c)];
      EXPECT_TRUE((std::isnan(expected) && std::isnan(got)) || got == expected) << begin << " " << c;
    }
  }
  for (int trial = 0; trial < 200; ++trial) {
    const int64_t begin = static_cast<int64_t>(random() % (rows - 300)),
                  end = begin + 1 + static_cast<int64_t>(random() % 299);
    matrix.merge_rows(begin, end, 0, merged);
    for (int64_t c = 0; c < cols; c += 11) {
      const float inside = direct_extreme(values, cols, begin, end, c, c + 1),
                  got = merged[static_cast<std::size_t>(c)];
      if (!std::isnan(inside)) {
        EXPECT_GE(got, inside) << "a maximum was lost";
      }
    }
  }
}

TEST(Reduction, ShowsALonePeakAtAnyZoomAndNeverInventsOne) {
  constexpr int64_t rows = 20000, cols = 50;
  std::vector<float> values(rows * cols, 0.0f);
  values[12345 * cols + 33] = 1.0f;
  const MatrixPyramid matrix(nullptr, values.data(), rows, cols, cols, CellKind::masked);
  const ColorScale scale{ColorMap::viridis, ScaleKind::linear, 0, 1};
  const uint32_t bright = packed(color_at(ColorMap::viridis, 1));
  for (const int height : {50, 333, 700, 5000}) {
    const Raster raster = rasterise(matrix, {0, cols, 0, rows}, 400, height, scale, {}, {});
    const auto lit = std::count(raster.pixels.begin(), raster.pixels.end(), bright);
    EXPECT_GE(lit, 8) << "eight pixels a column at least";
    EXPECT_LE(lit, 8 * 3) << "one cell must not smear over more than its neighbours";
    EXPECT_NEAR(raster.cells_per_pixel_y, static_cast<double>(rows) / height, 1e-9);
  }
}

TEST(Reduction, SignedKeepsTheLargestMagnitudeAndNanIsNews) {
  const std::vector<float> values{0.1f, -0.9f, 0.5f, 0.2f, nan_value, 0.3f};
  const MatrixPyramid matrix(nullptr, values.data(), 6, 1, 1, CellKind::signed_);
  float out = 0;
  matrix.merge_rows(0, 4, 0, {&out, 1});
  EXPECT_EQ(out, -0.9f);
  matrix.merge_rows(0, 6, 0, {&out, 1});
  EXPECT_TRUE(std::isnan(out));
  EXPECT_EQ(matrix.nan_count(), 1);
  EXPECT_EQ(matrix.max_abs(), 0.9f);
}

TEST(Raster, MasksTakeTheBackgroundAndMagnifiedCellsTheirOwnColour) {
  const std::vector<float> values{1.0f, nan_value, 0.0f, 1.0f};
  const MatrixPyramid matrix(nullptr, values.data(), 2, 2, 2, CellKind::masked);
  const Color background{1, 2, 3};
  const Raster raster =
      rasterise(matrix, {0, 2, 0, 2}, 10, 10, {ColorMap::viridis, ScaleKind::linear, 0, 1}, background, {255, 0, 0});
  const auto pixel = [&](int x, int y) { return raster.pixels[static_cast<std::size_t>(y * 10 + x)]; };
  EXPECT_EQ(pixel(2, 2), packed(color_at(ColorMap::viridis, 1)));
  EXPECT_EQ(pixel(7, 2), packed(background));
  EXPECT_EQ(pixel(2, 7), packed(color_at(ColorMap::viridis, 0))) << "a zero is the lowest colour, not the mask";
  const Raster beyond =
      rasterise(matrix, {5, 9, 5, 9}, 10, 10, {ColorMap::viridis, ScaleKind::linear, 0, 1}, background, {});
  for (const uint32_t p : beyond.pixels) EXPECT_EQ(p, packed(background));
}

TEST(Unfold, RetentionMatchesRunningTheRecurrence) {
  const auto trace = full_trace("rat:8", 24, 16, 2);
  const auto shares = retention(*trace, 0, 1, 8, 16);
  ASSERT_EQ(shares.size(), 8u);
  const ProbeTensor* gate = trace->find(Probe::gate, 0);
  ASSERT_NE(gate, nullptr);
  for (int64_t j = 0; j < 8; ++j) {  // push a one through at token j and see what is left at the end
    double mean = 0;
    for (int64_t p = 8; p < 16; ++p) {
      double state = 0;
      for (int64_t t = 0; t < 8; ++t) {
        const double g = gate->row(8 + t)[static_cast<std::size_t>(p)];
        state = g * state + (1 - g) * (t == j ? 1.0 : 0.0);
      }
      mean += state / 8;
    }
    EXPECT_NEAR(shares[static_cast<std::size_t>(j)], mean, 1e-6);
  }
  EXPECT_TRUE(retention(*trace, 0, 5, 8, 16).empty());
  EXPECT_TRUE(retention(*trace, 3, 0, 8, 16).empty());
  EXPECT_TRUE(retention(*trace, 0, 0, 20, 99).empty());
}

TEST(HalfLives, NoneBeyondTheChunkWastesNothing) {
  const HalfLives lives{{4, 2}, 16, true};
  EXPECT_TRUE(lives.summary().starts_with("no channel has a half-life above L = 16")) << lives.summary();
  EXPECT_EQ(lives.summary().find("wasting"), std::string::npos);
}

TEST(HalfLives, SortLongestFirstAndCountTheWasted) {
  HalfLives lives{{4, std::numeric_limits<double>::infinity(), std::nan(""), 40}, 16, true};
  EXPECT_EQ(channel_order(lives, 4, true), (std::vector<int64_t>{1, 3, 0, 2}));
  EXPECT_EQ(channel_order(lives, 4, false), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_DOUBLE_EQ(lives.share_beyond(), 0.5);
  EXPECT_EQ(lives.median(), 40);
}

}  // namespace
}  // namespace rat::views
