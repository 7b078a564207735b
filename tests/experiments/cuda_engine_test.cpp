// The whole engine on a GPU: every golden case of every mixer, and a training run. Skipped without one.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "core/model.h"
#include "core/mixer_list.h"
#include "core/optimizer.h"
#include "experiments/verify/verify.h"
#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat {
namespace {

class CudaEngine : public testing::TestWithParam<std::string> {};

TEST_P(CudaEngine, PassesEveryGoldenCase) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const char* elsewhere = std::getenv("RAT_TEST_DATA");  // where only the program was brought to the GPU
  const std::filesystem::path folder = elsewhere != nullptr ? elsewhere : RAT_TEST_DATA;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  ASSERT_GE(files.size(), 3u);
  VerifyOptions options;
  options.device = "cuda";
  options.dtype = GetParam();
  const auto report = verify(files, options);
  ASSERT_TRUE(report) << report.error().message;
  EXPECT_GE(report->cases.size(), 60u);
  for (const CaseResult& one : report->cases) EXPECT_TRUE(one.pass) << one.name << ": " << one.reason;
}
INSTANTIATE_TEST_SUITE_P(Dtypes, CudaEngine, testing::Values("f32", "tf32", "bf16x3", "bf16"));

TokenBatch batch_of(int64_t batch, int64_t tokens, int32_t vocab, uint64_t seed) {
  const auto ids = test::tokens(static_cast<std::size_t>(batch * tokens + 1), seed, vocab);
  return {batch, tokens, {ids.begin(), ids.end() - 1}, {ids.begin() + 1, ids.end()}};
}

// Losses of `steps` steps, then all weights.
std::vector<float> trained(const ModelConfig& config, const char* device, int steps) {
  auto model = Model::create(config, 7, device);
  EXPECT_TRUE(model) << model.error().message;
  if (!model) return {};
  AdamW optimizer(std::as_const(**model).parameters(), {}, (*model)->exec());
  std::vector<float> record;
  for (int step = 0; step < steps; ++step) {
    EXPECT_OK((*model)->zero_gradients());
    const auto loss = (*model)->loss_and_gradients(batch_of(3, 70, 61, static_cast<uint64_t>(step)), 1.0);
    EXPECT_OK(loss);
    record.push_back(static_cast<float>(*loss));
    EXPECT_OK(optimizer.step(**model, 1e-3));
  }
  for (const Parameter& p : std::as_const(**model).parameters())
    record.insert(record.end(), p.value.begin(), p.value.end());
  return record;
}

TEST(CudaTraining, FollowsTheCpuAndRepeatsItselfToTheBit) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const MixerType& type : mixer_types()) {
    ModelConfig config;
    config.vocab = 61, config.d_model = 32, config.heads = 4;
    LayerConfig layer;
    layer.kind = type.name;
    if (type.uses_chunk) layer.chunk = 8;
    if (type.uses_window) layer.window = 9;
    if (type.uses_dilation) layer.dilation = 4;
    config.layers = {layer, layer};
    const auto cpu = trained(config, "cpu", 5), first = trained(config, "cuda", 5), second = trained(config, "cuda", 5);
    EXPECT_EQ(first, second) << type.name;
    EXPECT_LT(test::relative_error(first, cpu), 2e-3) << type.name;  // AdamW amplifies rounding where gradients vanish
    for (std::size_t step = 0; step < 5; ++step) EXPECT_NEAR(first[step], cpu[step], 1e-4) << type.name << " " << step;
  }
}

// Gradients of one batch in the named dtype, on the GPU.
std::vector<std::vector<float>> gradients(const ModelConfig& config, kernels::Dtype dtype, double& loss) {
  auto model = Model::create(config, 7, "cuda");
  EXPECT_TRUE(model) << model.error().message;
  std::vector<std::vector<float>> all;
  if (!model) return all;
  EXPECT_OK((*model)->set_dtype(dtype));
  const auto batch = batch_of(2, 150, 61, 3);
  EXPECT_OK((*model)->zero_gradients());
  for (int part = 0; part < 2; ++part) {  // the second is added to the first
    const auto mean = (*model)->loss_and_gradients(batch, 0.5);
    EXPECT_OK(mean);
    loss = *mean;
  }
  const auto evaluated = (*model)->evaluate(batch);  // by the kernels that train
  EXPECT_OK(evaluated);
  EXPECT_NEAR(evaluated->loss_sum / static_cast<double>(evaluated->targets), loss, 1e-6);
  for (const Parameter& p : std::as_const(**model).parameters()) all.emplace_back(p.grad.begin(), p.grad.end());
  return all;
}

// Steps that are replayed as a whole are those that are started op by op, to the bit: every mixer in f32, and fused blocks.
TEST(CudaTraining, ReplayedStepsAreThoseStartedOpByOp) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const auto losses = [](const ModelConfig& config, kernels::Dtype dtype, bool op_by_op) {
    auto model = *Model::create(config, 7, "cuda");
    EXPECT_OK(model->set_dtype(dtype));
    AdamW optimizer(std::as_const(*model).parameters(), {}, model->exec());
    std::vector<float> record;
    for (int step = 0; step < 6; ++step) {
      OpTimes times;
      EXPECT_OK(model->zero_gradients());
      for (const int64_t tokens : {70, 70, step == 3 ? 50 : 70}) {  // one step in between is of another shape
        const auto batch = batch_of(3, tokens, 61, static_cast<uint64_t>(step));
        const auto loss = model->loss_and_gradients(batch, 0.3, {.stop = nullptr, .times = op_by_op ? &times : nullptr});
        EXPECT_OK(loss);
        record.push_back(static_cast<float>(*loss));
      }
      EXPECT_OK(optimizer.step(*model, 1e-3));
    }
    for (const Parameter& p : std::as_const(*model).parameters())
      record.insert(record.end(), p.value.begin(), p.value.end());
    return record;
  };
  const auto compare = [&](const ModelConfig& config, kernels::Dtype dtype) {
    EXPECT_EQ(losses(config, dtype, false), losses(config, dtype, true)) << config.layers[0].kind;
  };
  ModelConfig config;
  config.vocab = 61, config.d_model = 32, config.heads = 4;
  for (const MixerType& type : mixer_types()) {
    LayerConfig layer;
    layer.kind = type.name;
    if (type.uses_chunk) layer.chunk = 8;
    if (type.uses_window) layer.window = 9;
    if (type.uses_dilation) layer.dilation = 4;
    config.layers = {layer, layer};
    compare(config, kernels::Dtype::f32);
  }
  config.d_model = 256;
  for (const char* const layers : {"rat:16*2", "attention*2", "ratplus*2", "ratplus:4/w9*2", "rattention:20,linear", "rnn*2"}) {
    config.layers = *parse_layers(layers);
    compare(config, kernels::Dtype::bf16);
  }
}

// Training that takes dilations in turn is replayed as well, each with a recording of its own.
TEST(CudaTraining, ReplayedStepsOfDilationsInTurnAreThoseStartedOpByOp) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  ModelConfig config;
  config.vocab = 61, config.d_model = 256, config.heads = 4;
  config.layers = *parse_layers("ratplus*2");
  for (const kernels::Dtype dtype : {kernels::Dtype::f32, kernels::Dtype::bf16}) {
    const auto losses = [&](bool op_by_op) {
      auto model = *Model::create(config, 7, "cuda");
      EXPECT_OK(model->set_dtype(dtype));
      AdamW optimizer(std::as_const(*model).parameters(), {}, model->exec());
      std::vector<float> record;
      for (int step = 0; step < 9; ++step) {
        OpTimes times;
        EXPECT_OK(model->set_layers(*parse_layers(step % 3 == 0 ? "ratplus*2" : step % 3 == 1 ? "ratplus:4*2" : "ratplus:64/w9*2")));
        EXPECT_OK(model->zero_gradients());
        const auto loss = model->loss_and_gradients(batch_of(3, 150, 61, static_cast<uint64_t>(step)), 1.0,
                                                    {.stop = nullptr, .times = op_by_op ? &times : nullptr});
        EXPECT_OK(loss);
        record.push_back(static_cast<float>(*loss));
        EXPECT_OK(optimizer.step(*model, 1e-3));
      }
      for (const Parameter& p : std::as_const(*model).parameters())
        record.insert(record.end(), p.value.begin(), p.value.end());
      return record;
    };
    EXPECT_EQ(losses(false), losses(true)) << kernels::dtype_name(dtype);
  }
}

// Head sizes and widths that the GPU fuses, beside the same model in f32: bf16 keeps 8 significant bits.
TEST(CudaTraining, FusedBlocksAgreeWithF32) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const int64_t heads : {2, 4})
    for (const int64_t chunk : {1, 16, 40, 200})
      for (const Positions positions : {Positions::rope, Positions::none}) {
        ModelConfig config;
        config.vocab = 61, config.d_model = 256, config.heads = heads, config.groups = 2, config.positions = positions;
        LayerConfig layer;
        layer.kind = "rat", layer.chunk = chunk;
        config.layers = {layer, layer};
        double loss = 0, expected_loss = 0;
        const auto expected = gradients(config, kernels::Dtype::f32, expected_loss);
        const auto fused = gradients(config, kernels::Dtype::bf16, loss);
        EXPECT_NEAR(loss, expected_loss, 5e-3) << heads << " " << chunk;
        ASSERT_EQ(fused.size(), expected.size());
        for (std::size_t i = 0; i < fused.size(); ++i)
          EXPECT_LT(test::relative_error(fused[i], expected[i]), 4e-2) << "heads " << heads << ", L " << chunk << ", " << i;
      }
}

// The same of attention, sliding windows and RAT+: alone, with each other, and beside layers that run op by op.
TEST(CudaTraining, FusedAttentionAgreesWithF32) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const auto& [heads, kv_heads] : {std::pair{2, 0}, {4, 0}, {4, 2}, {2, 1}})
    for (const char* const layers : {"attention*2", "swa:0,swa:40", "swa:64,swa:1000", "rat:16,swa:20,attention", "ratplus*2",
                                     "ratplus,ratplus:4/w2,rat:16,ratplus", "ratplus:64,ratplus:2/w20/s7", "rattention:20*2", "rattention:0,rattention:1000", "linear*2",
                                     "linear,rattention:64,attention", "rnn*2", "rat:16,rnn,attention"})
      for (const Positions positions : {Positions::rope, Positions::none}) {
        ModelConfig config;
        config.vocab = 61, config.d_model = 256, config.heads = heads, config.groups = 2, config.positions = positions;
        config.layers = *parse_layers(layers);
        config.kv_heads = kv_heads;
        const std::string what = fmt::format("heads {}, {} of keys, {}, {}", heads, kv_heads, layers,
                                             positions == Positions::rope ? "rope" : "none");
        double loss = 0, expected_loss = 0, again_loss = 0;
        const auto expected = gradients(config, kernels::Dtype::f32, expected_loss);
        const auto fused = gradients(config, kernels::Dtype::bf16, loss);
        EXPECT_NEAR(loss, expected_loss, 5e-3) << what;
        ASSERT_EQ(fused.size(), expected.size());
        for (std::size_t i = 0; i < fused.size(); ++i)
          EXPECT_LT(test::relative_error(fused[i], expected[i]), 4e-2) << what << ", " << i;
        EXPECT_EQ(gradients(config, kernels::Dtype::bf16, again_loss), fused) << what << ": repeated";
      }
}

}  // namespace
}  // namespace rat
