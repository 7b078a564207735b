// Configurations: the layer shorthand, and one clear sentence for every wrong value.
#include "core/config.h"

#include <array>
#include <set>

#include "core/mixer_list.h"
#include "core/presets.h"
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
  EXPECT_EQ(kinds("rat-swa*2,attention"), "rat:16 swa:1024 rat:16 swa:1024 attention");
}

TEST(LayerPattern, SettingsFollowASlash) {
  EXPECT_EQ(kinds("ratplus,ratplus:8,ratplus:8/w4/s2"), "ratplus ratplus:8 ratplus:8/w4/s2");
  EXPECT_EQ(kinds("ratplus/s2/w4,ratplus:1"), "ratplus/w4/s2 ratplus");
  EXPECT_EQ(kinds("attention/nope,swa:8/rope , rat/nope*2"), "attention/nope swa:8/rope rat:16/nope attention/nope "
                                                             "swa:8/rope rat:16/nope");
  EXPECT_EQ(kinds("rattention:7,linear"), "rattention:7 linear");
  const auto layer = parse_layers("ratplus:8/w4/s2/nope")->front();
  EXPECT_EQ(layer.dilation, 8);
  EXPECT_EQ(layer.window, 4);
  EXPECT_EQ(layer.initial, 2);
  EXPECT_EQ(layer.pos, Positions::none);
}

TEST(LayerPresets, AreValidAndNamedApart) {
  std::set<std::string_view> names;
  for (const LayerPreset& preset : layer_presets()) {
    ModelConfig config;
    const auto layers = parse_layers(preset.name);
    ASSERT_OK(layers);
    config.layers = *layers;
    EXPECT_OK(validate(config));
    EXPECT_EQ(format_layers(*layers), preset.pattern);
    EXPECT_TRUE(names.insert(preset.name).second);
    EXPECT_FALSE(find_mixer_type(preset.name)) << "a mixer of this name would be hidden";
    EXPECT_FALSE(preset.description.empty());
  }
}

TEST(LayerPattern, RoundTripsAndIsShort) {
  for (const std::string text : {"rat:16*4", "rat:16,swa:128*2", "(rat:16,swa:128)*2,attention", "attention", "rnn*7",
                                 "rnn,(rat:4)*3,attention*2", "rat:1,rat:2,rat:3", "swa:0*2,attention,rnn",
                                 "ratplus:8/w4/s2*3", "attention/nope,ratplus*2", "rattention:0,linear"}) {
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
      LayerConfig layer = *(*parse_layers(std::array{"rat:4", "rat:16", "attention", "rnn", "ratplus:8/w1", "swa:3/nope"}[next(6)])).begin();
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
                                                        {"rat:16/w4", "nope or rope"},
                                                        {"ratplus/", "w and s"},
                                                        {"ratplus/w", "window"},
                                                        {"ratplus/w-1", "at least 0"},
                                                        {"ratplus:0", "at least 1"},
                                                        {"rnn/nope", "nothing after a slash"},
                                                        {"linear:4", "takes no number"},
                                                        {"swa:4/w5", "nope or rope"},
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
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.kv_heads = 3, c.layers = {{"attention"}}; }), "kv_heads must divide"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[1] = {"ratplus", 16, 0, 0}; }), "dilation is 0"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[1] = {"ratplus", 16, 0, 2, -1}; }), "first -1 tokens"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) { c.layers[1] = {"rnn"}, c.layers[1].pos = Positions::none; }), "no positions"));
  EXPECT_TRUE(has(reason([](ModelConfig& c) {
                    c.d_model = 12, c.positions = Positions::none, c.layers[3].pos = Positions::rope;
                  }),
                  "even"));
  EXPECT_EQ(reason([](ModelConfig& c) { c.d_model = 12, c.layers = {{"linear"}, {"rnn"}}; }), "");
  EXPECT_EQ(reason([](ModelConfig& c) { c.groups = 3, c.layers = {{"attention", 16, 128}}; }), "");
}

}  // namespace
}  // namespace rat
