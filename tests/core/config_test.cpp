// Configurations: the layer shorthand, and one clear sentence for every wrong value.
#include "core/config.h"

#include <array>

#include "core/mixer_list.h"
#include "tests/support/compare.h"

namespace rat {
namespace {

std::string kinds(std::string_view pattern) {
  const auto layers = parse_layers(pattern);
  if (!layers) return "error: " + layers.error().message;
  std::string text;
  for (const LayerConfig& layer : *layers) {
    if (!text.empty()) text += ' ';
    text += format_layer(layer);
  }
  return text;
}

TEST(LayerPattern, RepeatsEverythingSinceTheLastRepeat) {
  EXPECT_EQ(kinds("rat:16*4"), "rat:16 rat:16 rat:16 rat:16");
  EXPECT_EQ(kinds("rat:16,swa:128*2"), "rat:16 swa:128 rat:16 swa:128");
  EXPECT_EQ(kinds("rat:16*2,attention*2"), "rat:16 rat:16 attention attention");
  EXPECT_EQ(kinds("(rat:16,swa:128)*2,attention"), "rat:16 swa:128 rat:16 swa:128 attention");
  EXPECT_EQ(kinds("rnn,(rat:4)*2,attention*2"), "rnn rat:4 rat:4 attention attention");
  EXPECT_EQ(kinds("((rat:4,rnn)*2,swa:0)*2"), "rat:4 rnn rat:4 rnn swa:0 rat:4 rnn rat:4 rnn swa:0");
  EXPECT_EQ(kinds(" rat:8 , rnn "), "rat:8 rnn");
  EXPECT_EQ(kinds("rat"), "rat:16");
}

TEST(LayerPattern, RoundTripsAndIsShort) {
  for (const std::string text : {"rat:16*4", "rat:16,swa:128*2", "(rat:16,swa:128)*2,attention", "attention", "rnn*7",
                                 "rnn,(rat:4)*3,attention*2", "rat:1,rat:2,rat:3", "swa:0*2,attention,rnn"}) {
    const auto layers = parse_layers(text);
    ASSERT_OK(layers);
    const std::string shortest = format_layers(*layers);
    const auto again = parse_layers(shortest);
    ASSERT_OK(again);
    EXPECT_EQ(*again, *layers) << text << " became " << shortest;
    EXPECT_LE(shortest.size(), text.size()) << text << " became " << shortest;
  }
  EXPECT_EQ(format_layers(*parse_layers("rat:16,rat:16,rat:16,rat:16")), "rat:16*4");
  EXPECT_EQ(format_layers(*parse_layers("rat:16,swa:128,rat:16,swa:128")), "rat:16,swa:128*2");
}

TEST(LayerPattern, RoundTripsRandomLists) {
  uint64_t state = 7;
  for (int round = 0; round < 300; ++round) {
    std::vector<LayerConfig> layers;
    const auto next = [&](uint64_t n) {
      return ((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) % n;
    };
    for (uint64_t i = 0, n = 1 + next(12); i < n; ++i) {
      LayerConfig layer = *(*parse_layers(std::array{"rat:4", "rat:16", "attention", "rnn"}[next(4)])).begin();
      layers.push_back(layer);
    }
    const auto again = parse_layers(format_layers(layers));
    ASSERT_OK(again);
    EXPECT_EQ(*again, layers) << format_layers(layers);
  }
}

TEST(LayerPattern, WrongPatternsSayWhereAndWhy) {
  for (const auto& [text, reason] :
       std::vector<std::pair<std::string, std::string>>{{"", "layer name"},
                                                        {"rat:", "chunk length"},
                                                        {"rat:0", "at least 1"},
                                                        {"rat:x", "chunk length"},
                                                        {"attention:5", "takes no number"},
                                                        {"rat:16*0", "at least 1"},
                                                        {"rat:16*", "repeat count"},
                                                        {"(rat:16", "')' is missing"},
                                                        {"rat:16)", "unexpected ')'"},
                                                        {"ratt:16", "did you mean 'rat'"},
                                                        {"rat:16,,rnn", "layer name"},
                                                        {"rat:16*999999", "more than 512"},
                                                        {"swa:-1", "at least 0"},
                                                        {"rat:99999999999999999999", "too large"},
                                                        {"rat:16,", "layer name"},
                                                        {"rat:16*9223372036854775807", "512"}}) {
    const auto layers = parse_layers(text);
    ASSERT_FALSE(layers) << text;
    EXPECT_NE(layers.error().message.find(reason), std::string::npos) << layers.error().message;
  }
  EXPECT_FALSE(parse_layers(std::string(100000, '(')));
}

TEST(Validate, NamesTheFirstWrongValue) {
  const auto reason = [](auto change) {
    ModelConfig config;
    change(config);
    const Status status = validate(config);
    return status ? std::string() : status.error().message;
  };
  const auto has = [](const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; };
  EXPECT_EQ(reason([](ModelConfig&) {}), "");
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.vocab = 1; }), "vocab is 1"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.heads = 5; }), "heads must divide d_model"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.heads = 0; }), "heads is 0"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.d_model = 12; }), "even"));
  EXPECT_EQ(reason([](ModelConfig& c) { c.d_model = 12, c.positions = Positions::none; }), "");
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.groups = 3; }), "groups must divide heads"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers.clear(); }), "empty"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[1].chunk = 0; }), "layer 1"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[2] = {"swa", 16, -3}; }), "window is -3"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[0].kind = "atention"; }), "did you mean 'attention'"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.rope_base = 0.5; }), "rope_base"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.ffn_mult = -1; }), "ffn_mult"));
  EXPECT_EQ(reason([](ModelConfig& c) { c.groups = 3, c.layers = {{"attention", 16, 128}}; }), "");
}

}  // namespace
}  // namespace rat
