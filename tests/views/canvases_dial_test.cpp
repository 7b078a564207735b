// The dial that turns dilation or chunk length on the same weights, and the text that can be marked.
#include <gtest/gtest.h>

#include "tests/views/canvas_harness.h"
#include "views/canvases/generation_text.h"
#include "views/canvases/layer_dial.h"

namespace rat::views {
namespace {

InspectStatus status_of(const std::string& trained, const std::string& now = "") {
  InspectStatus status;
  status.run_id = "run";
  status.trained_layers = *parse_layers(trained);
  status.layers = now.empty() ? status.trained_layers : *parse_layers(now);
  return status;
}

TEST(LayerDial, TurnsTheDilationOfRatplusElseTheChunkLengthOfRat) {
  const auto chunk = layer_dial(status_of("rat:16,attention*2"), 512);
  ASSERT_TRUE(chunk);
  EXPECT_EQ(chunk->name, "L");
  EXPECT_EQ(chunk->value, 16);
  EXPECT_EQ(chunk->most, 512);
  EXPECT_EQ(format_layers(turned_layers(status_of("rat:16,attention*2"), 64)), "rat:64,attention*2");
  const auto dilation = layer_dial(status_of("ratplus*2"), 512);
  ASSERT_TRUE(dilation);
  EXPECT_EQ(dilation->name, "D");
  EXPECT_EQ(dilation->value, 1);
  for (const LayerConfig& layer : turned_layers(status_of("ratplus*2"), 8)) {
    EXPECT_EQ(layer.dilation, 8);
    EXPECT_EQ(layer.window, 8);
  }
  EXPECT_EQ(turned_layers(status_of("ratplus*2"), 1), *parse_layers("ratplus*2"));
  for (const char* none : {"attention*2", "rnn", "swa:8,linear"})
    EXPECT_FALSE(layer_dial(status_of(none), 512)) << none;
}

TEST(LayerDial, StepsAreTheNextPowersOfTwoWithinTheTokens) {
  const auto dial = layer_dial(status_of("rat:12"), 100);
  ASSERT_TRUE(dial);
  EXPECT_EQ(turned_by(*dial, 1), 16);
  EXPECT_EQ(turned_by(*dial, -1), 8);
  EXPECT_EQ(turned_by(*dial, 9), 64);
  EXPECT_EQ(turned_by(*dial, -9), 1);
}

// The slider on the canvas sends layers; "as trained" sends none.
TEST(LayerDial, SliderAndResetSendCommands) {
  Canvas canvas;
  canvas.frame.trace = full_trace("rat:4*2", 64);
  canvas.frame.subject = Subject::stored;
  canvas.frame.inspect = std::make_shared<InspectStatus>(status_of("rat:4*2", "rat:16*2"));
  std::vector<std::vector<LayerConfig>> sent;
  canvas.commands.set_layers = [&](std::vector<LayerConfig> layers) { sent.push_back(std::move(layers)); };
  struct DialView final : View {
    void draw(Frame& frame) override {
      Box box{10, 10, 890, 100};
      draw_layer_dial(Pen::of(frame), box, frame);
    }
    ProbeRequest probes(const Selection&, const ModelConfig&) const override { return {}; }
    std::optional<Recipe> recipe(const Frame&) const override { return std::nullopt; }
  } view;
  for (float x = 60; x < 880 && sent.size() < 40; x += 6)
    for (const bool down : {false, true, false}) canvas.draw(view, 900, 110, {x, 22}, down);
  ASSERT_FALSE(sent.empty());
  bool chunk_sent = false, reset_sent = false;
  for (const std::vector<LayerConfig>& layers : sent) {
    reset_sent = reset_sent || layers.empty();
    chunk_sent = chunk_sent || (!layers.empty() && layers[0].chunk != 16 && layers[0] == layers[1]);
  }
  EXPECT_TRUE(chunk_sent);
  EXPECT_TRUE(reset_sent);
}

class TextView final : public View {
 public:
  void draw(Frame& frame) override { text.draw(Pen::of(frame), {0, 0, 600, 300}, *frame.generation, true); }
  ProbeRequest probes(const Selection&, const ModelConfig&) const override { return {}; }
  std::optional<Recipe> recipe(const Frame&) const override { return std::nullopt; }
  GenerationText text;
};

TEST(GenerationText, DragMarksAndDoubleClickTakesAWord) {
  Canvas canvas;
  auto generation = std::make_shared<GenerationStatus>();
  const std::string said = "the gate keeps\nwhat it has seen";
  for (const char c : said) generation->tokens.push_back(static_cast<unsigned char>(c));
  generation->prompt_tokens = 4;
  canvas.frame.generation = generation;
  TextView view;
  canvas.draw(view, 600, 300);
  EXPECT_EQ(view.text.selected(), "");
  // From the first line's start to far below: everything; then a part of the first line.
  canvas.draw(view, 600, 300, {9, 12}, false);
  canvas.draw(view, 600, 300, {9, 12}, true);
  canvas.draw(view, 600, 300, {400, 250}, true);
  canvas.draw(view, 600, 300, {400, 250}, false);
  EXPECT_EQ(view.text.selected(), said);
  for (int i = 0; i < 60; ++i) canvas.draw(view, 600, 300, {300, 200});  // so that it is not a double click
  canvas.draw(view, 600, 300, {9, 12}, true);
  canvas.draw(view, 600, 300, {590, 12}, true);
  canvas.draw(view, 600, 300, {590, 12}, false);
  EXPECT_EQ(view.text.selected(), "the gate keeps");
  for (int i = 0; i < 60; ++i) canvas.draw(view, 600, 300, {300, 200});
  for (const bool down : {true, false, true, false}) canvas.draw(view, 600, 300, {60, 12}, down);
  EXPECT_EQ(view.text.selected(), "gate");
  // What was marked stays marked while the text grows, and goes with another text.
  auto longer = std::make_shared<GenerationStatus>(*generation);
  longer->tokens.push_back('!');
  canvas.frame.generation = longer;
  canvas.draw(view, 600, 300);
  EXPECT_EQ(view.text.selected(), "gate");
  auto other = std::make_shared<GenerationStatus>(*generation);
  other->tokens[0] = 'T';
  canvas.frame.generation = other;
  canvas.draw(view, 600, 300);
  EXPECT_EQ(view.text.selected(), "");
}

std::unique_ptr<View> generate_view() {
  for (const ViewType& type : view_types())
    if (type.id == "generate") return type.make();
  return nullptr;
}

TEST(Generate, AsksForTheSamplesAndTheDtypeThatAreSet) {
  Canvas canvas;
  auto inspect = std::make_shared<InspectStatus>();
  inspect->run_id = "run", inspect->devices = {{"cpu", "", "", {"f32", "bf16"}}, {"cuda", "", "", {"f32", "bf16"}}};
  canvas.frame.inspect = inspect;
  std::vector<GenerationConfig> asked;
  canvas.commands.generate = [&](const std::string&, int64_t, const GenerationConfig& config) {
    asked.push_back(config);
  };
  const auto view = generate_view();
  view->set_options({{"samples", "8"}, {"dtype", "bf16"}, {"seed", "5"}, {"temperature", "0.5"}});
  canvas.draw(*view, 900, 600);
  EXPECT_TRUE(view->key_pressed(ImGuiKey_Enter, true, false, canvas.frame));
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0].samples, 8);
  EXPECT_EQ(asked[0].dtype, "bf16");
  EXPECT_EQ(asked[0].sampling.seed, 5u);
  EXPECT_EQ(asked[0].sampling.temperature, 0.5);
  EXPECT_EQ(asked[0].device, "cpu");
  view->set_options({{"device", "cuda"}, {"cache", "fp8"}});
  for (const float width : {900.0f, 200.0f, 60.0f}) canvas.draw(*view, width, 600);
  EXPECT_TRUE(view->key_pressed(ImGuiKey_Enter, true, false, canvas.frame));
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(asked[1].device, "cuda");
  EXPECT_EQ(asked[1].cache, kernels::CacheDtype::fp8);
  view->set_options({{"device", "cpu"}});
  EXPECT_TRUE(view->key_pressed(ImGuiKey_Enter, true, false, canvas.frame));
  EXPECT_EQ(asked.back().cache, std::nullopt) << "the CPU has no such cache";
  view->set_options({{"samples", "0"}, {"dtype", "f12"}, {"device", "tpu"}, {"cache", "f1"}});  // nonsense is passed over
  EXPECT_EQ(view->options().at("samples"), "8");
  EXPECT_EQ(view->options().at("dtype"), "bf16");
  EXPECT_EQ(view->options().at("device"), "cpu");
  EXPECT_EQ(view->options().at("cache"), "fp8");
}

TEST(Generate, PageKeysGoThroughTheSamplesThereAre) {
  Canvas canvas;
  auto generation = std::make_shared<GenerationStatus>();
  generation->tokens = {'a', 'b'}, generation->prompt_tokens = 1;
  generation->samples = 3, generation->sample = 1;
  generation->next_probabilities.assign(256, 1.0f / 256);
  canvas.frame.generation = generation;
  std::vector<int64_t> asked;
  canvas.commands.show_sample = [&](int64_t sample) { asked.push_back(sample); };
  const auto view = generate_view();
  for (const float width : {900.0f, 200.0f, 60.0f}) canvas.draw(*view, width, 600);
  EXPECT_TRUE(view->key_pressed(ImGuiKey_PageDown, false, false, canvas.frame));
  EXPECT_TRUE(view->key_pressed(ImGuiKey_PageUp, false, false, canvas.frame));
  EXPECT_EQ(asked, (std::vector<int64_t>{2, 0}));
  generation->sample = 2;
  EXPECT_FALSE(view->key_pressed(ImGuiKey_PageDown, false, false, canvas.frame));
  generation->sample = 0;
  EXPECT_FALSE(view->key_pressed(ImGuiKey_PageUp, false, false, canvas.frame));
  EXPECT_EQ(asked.size(), 2u);
}

// What a canvas remembers is what it is given at the next start.
TEST(Options, EveryCanvasTakesBackWhatItSaved) {
  for (const ViewType& type : view_types()) {
    const auto view = type.make();
    const auto other = type.make();
    Options options = view->options();
    for (auto& [key, value] : options) {
      if (key == "scale") value = "gamma";
      if (key == "color_map") value = "cividis";
      if (key == "values") value = "state_v";
      if (key == "sorted") value = "yes";
      if (key == "tokens") value = "17";
      if (key == "samples") value = "3";
      if (key == "dtype") value = "bf16x3";
      if (key == "temperature") value = "0.5";
      if (key == "prompt") value = "once";
    }
    other->set_options(options);
    EXPECT_EQ(other->options(), options) << type.id;
    Options broken = options;
    for (auto& [key, value] : broken)
      if (key != "prompt") value = "\x01 nonsense";
    other->set_options(broken);
    for (const auto& [key, value] : other->options()) EXPECT_EQ(value.find("nonsense"), std::string::npos) << key;
  }
}

}  // namespace
}  // namespace rat::views
