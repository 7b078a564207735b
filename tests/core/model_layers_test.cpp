// Other layer settings on the same weights.
#include "core/model.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat {
namespace {

constexpr int64_t tokens = 40;

std::unique_ptr<Model> model_of(const std::string& layers) {
  ModelConfig config;
  config.vocab = 61;
  config.d_model = 32;
  config.layers = *parse_layers(layers);
  auto model = Model::create(config, 5);
  RAT_CHECK(bool(model), model ? "" : model.error().message);
  return *std::move(model);
}

std::vector<float> logits_of(Model& model) {
  const auto logits = model.logits(test::tokens(tokens, 3, 61), 1);
  RAT_CHECK(bool(logits), logits ? "" : logits.error().message);
  return *logits;
}

TEST(SetLayers, EqualsAModelMadeWithThem) {
  for (const auto& [made, changed] : {std::pair{"ratplus*2", "ratplus:8/w4/s2,ratplus:3"},
                                      std::pair{"ratplus:8/w4*2", "ratplus*2"},
                                      std::pair{"swa:5,attention", "swa:9,swa:3"},
                                      std::pair{"rattention:4,linear", "rattention:17/nope,linear"},
                                      std::pair{"rat:8,rnn", "rat:3/nope,rnn"}}) {
    SCOPED_TRACE(made);
    auto model = model_of(made), other = model_of(changed);
    for (std::size_t i = 0; i < model->parameters().size(); ++i)  // a chunk length enters the gate's initial bias
      std::ranges::copy(model->parameters()[i].value, other->parameters()[i].value.begin());
    const auto before = logits_of(*model);
    ASSERT_OK(model->set_layers(*parse_layers(changed)));
    EXPECT_EQ(format_layers(model->config().layers), format_layers(*parse_layers(changed)));
    EXPECT_EQ(logits_of(*model), logits_of(*other));
    EXPECT_NE(logits_of(*model), before);
    ASSERT_OK(model->set_layers(*parse_layers(made)));
    EXPECT_EQ(logits_of(*model), before);
  }
}

TEST(SetLayers, DecodingFollowsThem) {
  auto model = model_of("ratplus,rattention:6");
  ASSERT_OK(model->set_layers(*parse_layers("ratplus:7/w3,rattention:2")));
  const auto ids = test::tokens(tokens, 3, 61);
  const auto all = logits_of(*model);
  const auto state = model->start_decoding();
  ASSERT_OK(model->prefill(*state, std::span(ids).first(20)));
  std::vector<float> last;
  for (std::size_t t = 20; t < ids.size(); ++t) {
    const auto logits = model->decode(*state, ids[t]);
    ASSERT_OK(logits);
    last = *logits;
  }
  EXPECT_LE(test::relative_error(last, std::span(all).last(61)), 1e-5);
  ASSERT_OK(model->set_layers(*parse_layers("ratplus,rattention:2")));
  const auto refused = model->decode(*state, 1);
  ASSERT_FALSE(refused) << "the cache is one of other layers";
  EXPECT_NE(refused.error().message.find("changed"), std::string::npos);
  EXPECT_OK(model->decode(*model->start_decoding(), 1));
}

TEST(SetLayers, RefusesWhatNeedsOtherWeights) {
  auto model = model_of("ratplus,rat:8,attention");
  for (const auto& [layers, reason] : {std::pair{"ratplus,rat:8", "3 layers"},
                                       std::pair{"ratplus,rat:8,rat:8", "layer 2 is attention"},
                                       std::pair{"ratplus,rnn,attention", "layer 1 is rat:8 and cannot become rnn"},
                                       std::pair{"ratplus,rat:8,rattention:4", "cannot become rattention:4"},
                                       std::pair{"ratplus,rat:8,linear", "cannot become linear"}}) {
    const Status status = model->set_layers(*parse_layers(layers));
    ASSERT_FALSE(status) << layers;
    EXPECT_NE(status.error().message.find(reason), std::string::npos) << status.error().message;
  }
  auto bad = model->config().layers;
  bad[0].dilation = 0;
  EXPECT_FALSE(model->set_layers(bad));
  EXPECT_EQ(format_layers(model->config().layers), "ratplus,rat:8,attention");
}

TEST(SetLayers, TheNoteSaysWhatTheNumbersMean) {
  const auto note = [](const char* trained, const char* now) {
    return layer_change_note(*parse_layers(trained), *parse_layers(now));
  };
  EXPECT_EQ(note("ratplus,rat:8", "ratplus,rat:8"), "");
  EXPECT_NE(note("ratplus", "ratplus:16").find("which its weights allow"), std::string::npos);
  EXPECT_EQ(note("ratplus", "ratplus:16").find("off-distribution"), std::string::npos);
  EXPECT_NE(note("rat:8", "rat:16").find("off-distribution"), std::string::npos);
  EXPECT_NE(note("swa:8", "swa:16").find("window differs"), std::string::npos);
  EXPECT_NE(note("attention", "swa:16").find("off-distribution"), std::string::npos);
  EXPECT_NE(note("ratplus", "ratplus/nope").find("off-distribution"), std::string::npos);
}

}  // namespace
}  // namespace rat
