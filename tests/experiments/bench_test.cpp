// The benchmark's arithmetic and form; its numbers are the machine's.
#include "experiments/bench/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>

#include "experiments/bench/peak_memory.h"

namespace rat {
namespace {

BenchConfig small() {
  BenchConfig config;
  config.model.vocab = 32;
  config.model.d_model = 32;
  config.model.layers = {{.kind = "rat", .chunk = 8, .window = 4}, {.kind = "swa", .chunk = 8, .window = 4}};
  config.seq_len = 40;
  config.batch = 2;
  config.min_seconds = 0;
  return config;
}

void expect_plausible(const BenchRow& row, std::string_view what, int64_t tokens) {
  EXPECT_EQ(row.what, what);
  EXPECT_GE(row.repetitions, 20);
  EXPECT_GT(row.median_ms, 0);
  EXPECT_LE(row.q1_ms, row.median_ms);
  EXPECT_LE(row.median_ms, row.q3_ms);
  EXPECT_DOUBLE_EQ(row.tokens_per_s, 1000.0 * static_cast<double>(tokens) / row.median_ms);
  EXPECT_EQ(row.seq_len, 40);
  EXPECT_EQ(row.batch, 2);
}

TEST(Bench, LayerRows) {
  const auto rows = bench_layer(small());
  ASSERT_TRUE(rows) << rows.error().message;
  ASSERT_EQ(rows->size(), 2u);
  expect_plausible(rows->at(0), "train", 80);
  expect_plausible(rows->at(1), "prefill", 80);
  EXPECT_EQ(rows->at(0).kind, "rat");
  EXPECT_EQ(rows->at(0).chunk, 8);
  EXPECT_EQ(rows->at(0).cache, "");
  EXPECT_EQ(rows->at(1).cache, "f32");
  EXPECT_GT(rows->at(0).op_ms.total_ms(), 0);
  EXPECT_LE(rows->at(0).op_ms.total_ms(), 2 * rows->at(0).q3_ms + 1);
}

TEST(Bench, ModelAndDecodeRows) {
  const auto rows = bench_model(small());
  ASSERT_TRUE(rows) << rows.error().message;
  ASSERT_EQ(rows->size(), 3u);
  expect_plausible(rows->at(0), "train", 80);
  expect_plausible(rows->at(1), "prefill", 80);
  expect_plausible(rows->at(2), "decode", 2);
  EXPECT_EQ(rows->at(0).kind, format_layers(small().model.layers));
  const auto decode = bench_decode(small());
  ASSERT_TRUE(decode) << decode.error().message;
  ASSERT_EQ(decode->size(), 1u);
  expect_plausible(decode->at(0), "decode", 2);
  EXPECT_EQ(decode->at(0).cache, "f32");
  EXPECT_EQ(rows->at(2).cache, "f32");

  const nlohmann::json json = nlohmann::json::parse(to_json(*rows));
  for (const char* key : {"what", "kind", "chunk", "seq_len", "batch", "d_model", "heads", "dtype", "device",
                          "median_ms", "q1_ms", "q3_ms", "tokens_per_s", "peak_bytes"})
    EXPECT_TRUE(json.at(0).contains(key)) << key;
  EXPECT_TRUE(json.at(0).at("op_ms").contains("optimizer"));
}

TEST(Bench, DecodesSequencesOfEveryMixerAtOnce) {
  for (const char* layers : {"rat:8", "attention", "swa:4", "rnn", "ratplus:3/w2", "rattention:4", "linear"}) {
    BenchConfig config = small();
    config.model.layers = *parse_layers(layers);
    config.batch = 70;  // more than the tokens of a sequence
    const auto rows = bench_decode(config);
    ASSERT_TRUE(rows) << layers << ": " << rows.error().message;
    EXPECT_EQ(rows->at(0).batch, 70);
    EXPECT_DOUBLE_EQ(rows->at(0).tokens_per_s, 70'000.0 / rows->at(0).median_ms);
    EXPECT_GT(rows->at(0).op_ms.total_ms(), 0);
    config.whole_model = true;
    const auto model = bench_decode(config);
    ASSERT_TRUE(model) << layers << ": " << model.error().message;
    EXPECT_EQ(model->at(0).batch, 70);
  }
}

TEST(Bench, OnePhaseOnly) {
  BenchConfig config = small();
  for (const char* phase : {"train", "prefill", "decode"}) {
    config.phase = phase;
    for (const auto bench : {bench_layer, bench_model}) {
      const auto rows = bench(config);
      ASSERT_TRUE(rows) << rows.error().message;
      ASSERT_EQ(rows->size(), 1u);
      EXPECT_EQ(rows->at(0).what, phase);
    }
  }
  EXPECT_TRUE(bench_decode(config));
  config.phase = "train";
  EXPECT_THAT(bench_decode(config).error().message, testing::HasSubstr("no phase 'train'"));
}

TEST(Bench, RowsComeBackFromTheirJson) {
  const auto rows = bench_layer(small());
  ASSERT_TRUE(rows);
  std::vector<BenchRow> written = *rows;
  written[1].peak_bytes.reset();
  const auto read = parse_bench_rows(to_json(written), "'x.json'");
  ASSERT_TRUE(read) << read.error().message;
  for (BenchRow& row : written) row.op_ms = {};  // not read
  EXPECT_EQ(to_json(*read), to_json(written));
  EXPECT_EQ(read->at(0).layers, "rat:8");
  EXPECT_FALSE(read->at(0).whole_model);

  const std::string good = to_json(written);
  const auto refusal = [&](const std::string& text) {
    const auto result = parse_bench_rows(text, "'x.json'");
    return result ? "accepted" : result.error().message;
  };
  const auto without = [&](const std::string& key) {
    nlohmann::json json = nlohmann::json::parse(good);
    json.at(1).erase(key);
    return refusal(json.dump());
  };
  EXPECT_THAT(refusal("what kind L"), testing::StartsWith("'x.json' is not what `rat bench --json` prints"));
  EXPECT_THAT(refusal(R"({"error": "no"})"), testing::HasSubstr("not a list of rows"));
  EXPECT_THAT(refusal("[1]"), testing::HasSubstr("row 1"));
  for (const char* key : {"what", "of", "layers", "seq_len", "batch", "dtype", "device", "median_ms", "q1_ms", "q3_ms"})
    EXPECT_THAT(without(key), testing::AllOf(testing::HasSubstr("row 2"), testing::HasSubstr(key)));
  nlohmann::json wrong = nlohmann::json::parse(good);
  wrong.at(0)["median_ms"] = 0;
  EXPECT_THAT(refusal(wrong.dump()), testing::HasSubstr("above 0"));
  wrong.at(0)["median_ms"] = 1e9;
  EXPECT_THAT(refusal(wrong.dump()), testing::HasSubstr("quartiles"));
}

TEST(Bench, StopsAndRefuses) {
  BenchConfig config = small();
  StopFlag stop;
  stop.request();
  config.stop = &stop;
  EXPECT_EQ(bench_model(config).error().code, ErrorCode::cancelled);
  config = small();
  config.cache = kernels::CacheDtype::fp8;
  EXPECT_THAT(bench_decode(config).error().message, testing::HasSubstr("a cache in fp8"));
  config.phase = "train";
  EXPECT_THAT(bench_layer(config).error().message, testing::HasSubstr("training keeps no cache"));
  config = small();
  config.dtype = "f16";
  EXPECT_THAT(bench_layer(config).error().message, testing::HasSubstr("'f16'"));
  config = small();
  config.device = "abacus";
  EXPECT_FALSE(bench_decode(config));
  config = small();
  config.batch = 0;
  EXPECT_FALSE(bench_layer(config));
  config = small();
  config.repetitions = 0;
  EXPECT_FALSE(bench_layer(config));
}

TEST(Bench, QuantilesInterpolate) {
  EXPECT_EQ(quantile({3}, 0.25), 3);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 0.25), 1.75);
  EXPECT_EQ(quantile({4, 1, 3, 2}, 1), 4);
}

TEST(PeakMemory, SeesABlockThatCameAndWent) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer's shadow memory counts as memory of the process";
#endif
  const PeakMemory peak;
  if (!peak.bytes()) GTEST_SKIP() << "this system does not let a process reset its memory high-water mark";
  {
    std::vector<char> block(64 << 20);
    for (std::size_t i = 0; i < block.size(); i += 4096) block[i] = 1;
    EXPECT_EQ(std::accumulate(block.begin(), block.end(), int64_t{0}), (64 << 20) / 4096);
  }
  EXPECT_GT(*peak.bytes(), 60 << 20);
  EXPECT_LT(*peak.bytes(), 100 << 20);
}

}  // namespace
}  // namespace rat
