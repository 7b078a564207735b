// The engine against float64 results of the published equations: every mixer and whole models, forward, backward and
// 20 training steps. Bounds are those of the golden files' own description: 1e-5 for outputs, 5e-5 for gradients
// (relative norm), 1e-4 for every training loss.
#include "tests/support/golden.h"

#include "core/model.h"
#include "core/optimizer.h"
#include "core/single_layer.h"
#include "tests/support/compare.h"

namespace rat {
namespace {

using test::GoldenFile;

void load(std::span<Parameter> parameters, const GoldenFile& golden, const std::string& prefix) {
  for (Parameter& parameter : parameters) {
    const std::vector<float> values = golden.floats(prefix + parameter.name);
    ASSERT_EQ(values.size(), parameter.value.size()) << parameter.name;
    std::copy(values.begin(), values.end(), parameter.value.begin());
  }
}

TEST(GoldenMixers, ForwardAndBackwardAgree) {
  const GoldenFile golden = GoldenFile::open("mixers.safetensors");
  int checked = 0;
  for (const auto& [name, settings] : golden.cases.items()) {
    SCOPED_TRACE(name);
    auto layer = SingleLayer::create(test::config_from(settings), 1);
    ASSERT_OK(layer);
    load((*layer)->parameters(), golden, name + "/param/");
    const std::vector<float> x = golden.floats(name + "/x");
    std::vector<float> y(x.size(), NAN), grad_x(x.size(), NAN);
    ASSERT_OK((*layer)->forward(x, settings.at("batch"), settings.at("seq_len"), y));
    EXPECT_LE(test::relative_error(y, golden.floats(name + "/y")), 1e-5);
    ASSERT_OK((*layer)->backward(golden.floats(name + "/grad_out"), grad_x));
    EXPECT_LE(test::relative_error(grad_x, golden.floats(name + "/grad_x")), 5e-5);
    for (const Parameter& p : (*layer)->parameters())
      EXPECT_LE(test::relative_error(p.grad, golden.floats(name + "/grad/" + p.name)), 5e-5) << p.name;
    ++checked;
  }
  EXPECT_EQ(checked, 10);
}

TokenBatch batch_of(std::span<const int32_t> tokens, int64_t batch, int64_t length) {
  TokenBatch out{batch, length, {}, {}};
  for (int64_t b = 0; b < batch; ++b) {
    const auto row = tokens.subspan(static_cast<std::size_t>(b * (length + 1)), static_cast<std::size_t>(length + 1));
    out.inputs.insert(out.inputs.end(), row.begin(), row.end() - 1);
    out.targets.insert(out.targets.end(), row.begin() + 1, row.end());
  }
  return out;
}

TEST(GoldenModels, LogitsLossAndGradientsAgree) {
  const GoldenFile golden = GoldenFile::open("models.safetensors");
  for (const auto& [name, settings] : golden.cases.items()) {
    SCOPED_TRACE(name);
    auto model = Model::create(test::config_from(settings), 1);
    ASSERT_OK(model);
    load((*model)->parameters(), golden, name + "/param/");
    const TokenBatch batch = batch_of(golden.ints(name + "/tokens"), settings.at("batch"), settings.at("seq_len"));
    const auto logits = (*model)->logits(batch.inputs, batch.batch);
    ASSERT_OK(logits);
    EXPECT_LE(test::relative_error(*logits, golden.floats(name + "/logits")), 1e-5);
    const auto loss = (*model)->loss_and_gradients(batch, 1.0);
    ASSERT_OK(loss);
    EXPECT_NEAR(*loss, golden.floats(name + "/loss")[0], 1e-5);
    const auto evaluation = (*model)->evaluate(batch);
    ASSERT_OK(evaluation);
    EXPECT_NEAR(evaluation->loss_sum / static_cast<double>(evaluation->targets), *loss, 1e-6);
    for (const Parameter& p : (*model)->parameters())
      EXPECT_LE(test::relative_error(p.grad, golden.floats(name + "/grad/" + p.name)), 5e-5) << p.name;
  }
}

TEST(GoldenModels, TwentyTrainingStepsAgree) {
  const GoldenFile golden = GoldenFile::open("models.safetensors");
  const auto& settings = golden.cases.at("rat");
  const auto& opt = settings.at("optimizer");
  auto model = Model::create(test::config_from(settings), 1);
  ASSERT_OK(model);
  load((*model)->parameters(), golden, "rat/param/");
  OptimizerConfig config;
  config.lr = opt.at("lr");
  config.beta1 = opt.at("betas")[0];
  config.beta2 = opt.at("betas")[1];
  config.eps = opt.at("eps");
  config.weight_decay = opt.at("weight_decay");
  config.clip = opt.at("clip");
  AdamW optimizer((*model)->parameters(), config);
  const std::vector<float> losses = golden.floats("rat/train_loss");
  const std::vector<int32_t> tokens = golden.ints("rat/train_tokens");
  const auto step_size = tokens.size() / losses.size();
  ASSERT_EQ(losses.size(), 20u);
  for (std::size_t step = 0; step < losses.size(); ++step) {
    EXPECT_TRUE(bool((*model)->zero_gradients()));
    const auto loss = (*model)->loss_and_gradients(
        batch_of(std::span(tokens).subspan(step * step_size, step_size), settings.at("batch"), settings.at("seq_len")),
        1.0);
    ASSERT_OK(loss);
    EXPECT_NEAR(*loss, losses[step], 1e-4) << "step " << step;
    EXPECT_TRUE(bool(optimizer.step(**model, config.lr)));
  }
  for (const Parameter& p : (*model)->parameters())
    EXPECT_LE(test::relative_error(p.value, golden.floats("rat/trained/" + p.name)), 1e-4) << p.name;
}

}  // namespace
}  // namespace rat
