// Whole models: determinism, threads, stopping, decoding, traces, optimizer, schedule, sampler, cost.
#include "core/model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <thread>

#include "core/cost_model.h"
#include "core/optimizer.h"
#include "core/sampler.h"
#include "kernels/base/parallel.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat {
namespace {

ModelConfig small(const std::string& layers = "rat:8,attention,swa:5,rnn") {
  ModelConfig config;
  config.vocab = 61;
  config.d_model = 32;
  config.layers = *parse_layers(layers);
  return config;
}

std::unique_ptr<Model> model_of(const ModelConfig& config, uint64_t seed = 1) {
  auto model = Model::create(config, seed);
  RAT_CHECK(bool(model), model ? "" : model.error().message);
  return *std::move(model);
}

TokenBatch random_batch(int64_t B, int64_t T, int32_t vocab, uint64_t seed) {
  const auto n = static_cast<std::size_t>(B * T);
  return {B, T, test::tokens(n, seed, vocab), test::tokens(n, seed + 1, vocab)};
}

// Losses and final weights of a short training run.
std::vector<float> train(uint64_t seed, int steps = 4) {
  auto model = model_of(small(), seed);
  AdamW optimizer(model->parameters(), {});
  std::vector<float> record;
  for (int step = 0; step < steps; ++step) {
    EXPECT_TRUE(bool(model->zero_gradients()));
    record.push_back(static_cast<float>(*model->loss_and_gradients(random_batch(3, 21, 61, 10), 1.0)));
    record.push_back(static_cast<float>(optimizer.step(*model, 1e-2)->grad_norm));
  }
  for (const Parameter& p : model->parameters()) record.insert(record.end(), p.value.begin(), p.value.end());
  return record;
}

TEST(Model, TrainingLowersTheLossAndIsTheSameForAnyThreadCount) {
  kernels::set_thread_count(1);
  const auto one = train(7);
  kernels::set_thread_count(3);
  const auto three = train(7), again = train(7);
  kernels::set_thread_count(2);
  EXPECT_EQ(three, again);
  EXPECT_EQ(one, three);
  EXPECT_NE(one, train(8));
  EXPECT_LT(one[6], one[0]);
}

TEST(Model, TwoModelsOnTwoThreadsDoNotDisturbEachOther) {
  kernels::set_thread_count(2);
  const auto want = train(7);
  std::vector<float> a, b;
  std::thread first([&] { a = train(7); }), second([&] { b = train(7); });
  first.join(), second.join();
  EXPECT_EQ(a, want);
  EXPECT_EQ(b, want);
}

TEST(Model, GradientsAccumulateAndScale) {
  auto model = model_of(small());
  const TokenBatch batch = random_batch(2, 17, 61, 3);
  ASSERT_OK(model->loss_and_gradients(batch, 1.0));
  std::vector<std::vector<float>> once;
  for (const Parameter& p : model->parameters()) once.emplace_back(p.grad.begin(), p.grad.end());
  ASSERT_OK(model->loss_and_gradients(batch, 0.5));
  for (std::size_t i = 0; i < once.size(); ++i) {
    for (float& g : once[i]) g *= 1.5f;
    EXPECT_LE(test::relative_error(model->parameters()[i].grad, once[i]), 1e-5) << model->parameters()[i].name;
  }
}

TEST(Model, IgnoredTargetsDoNotCount) {
  auto model = model_of(small());
  TokenBatch batch = random_batch(2, 10, 61, 3);
  const auto all = model->evaluate(batch);
  ASSERT_OK(all);
  EXPECT_EQ(all->targets, 20);
  for (std::size_t i = 10; i < 20; ++i) batch.targets[i] = ignore_target;
  const auto half = model->evaluate(batch);
  ASSERT_OK(half);
  EXPECT_EQ(half->targets, 10);
  EXPECT_NEAR(*model->loss_and_gradients(batch, 1.0), half->loss_sum / 10, 1e-5);
  for (int32_t& target : batch.targets) target = ignore_target;
  EXPECT_FALSE(model->loss_and_gradients(batch, 1.0));
  EXPECT_EQ(model->evaluate(batch)->targets, 0);
}

// Passes of fewer rows than a block of the feed-forward keep what backward needs, too.
TEST(Model, AFewTokensTrainAsAmongMany) {
  auto model = model_of(small());
  TokenBatch many = random_batch(4, 5, 61, 3);
  const TokenBatch few{1, 5, {many.inputs.begin(), many.inputs.begin() + 5}, {many.targets.begin(), many.targets.begin() + 5}};
  for (std::size_t i = 5; i < 20; ++i) many.targets[i] = ignore_target;
  const auto gradients = [&](const TokenBatch& batch) {
    std::vector<float> all;
    EXPECT_OK(model->zero_gradients());
    EXPECT_OK(model->loss_and_gradients(batch, 1.0));
    for (const Parameter& p : model->parameters()) all.insert(all.end(), p.grad.begin(), p.grad.end());
    return all;
  };
  EXPECT_LE(test::relative_error(gradients(few), gradients(many)), 1e-5);
}

TEST(Model, RefusesWhatItCannotCompute) {
  auto model = model_of(small());
  TokenBatch batch = random_batch(2, 10, 61, 3);
  batch.inputs[5] = 61;
  EXPECT_FALSE(model->evaluate(batch));
  batch.inputs[5] = -1;
  EXPECT_FALSE(model->loss_and_gradients(batch, 1.0));
  batch = random_batch(2, 10, 61, 3);
  batch.targets[0] = 99;
  EXPECT_FALSE(model->loss_and_gradients(batch, 1.0));
  batch.tokens = 11;
  EXPECT_FALSE(model->evaluate(batch));
  EXPECT_FALSE(model->logits({}, 1));
  EXPECT_FALSE(model->trace({}, {}));
  EXPECT_FALSE(model->prefill(*model->start_decoding(), {}));
}

TEST(Model, AStoppedPassSaysSo) {
  auto model = model_of(small());
  StopFlag stop;
  stop.request();
  const PassOptions options{.stop = &stop, .times = nullptr};
  const TokenBatch batch = random_batch(1, 10, 61, 3);
  const auto loss = model->loss_and_gradients(batch, 1.0, options);
  ASSERT_FALSE(loss);
  EXPECT_EQ(loss.error().code, ErrorCode::cancelled);
  EXPECT_EQ(model->evaluate(batch, options).error().code, ErrorCode::cancelled);
  EXPECT_EQ(model->logits(batch.inputs, 1, options).error().code, ErrorCode::cancelled);
  EXPECT_EQ(model->trace(batch.inputs, {}, options).error().code, ErrorCode::cancelled);
  auto state = model->start_decoding();
  EXPECT_EQ(model->prefill(*state, batch.inputs, options).error().code, ErrorCode::cancelled);
  EXPECT_EQ(state->position(), 0);
  stop.reset();
  EXPECT_OK(model->prefill(*state, batch.inputs, options));
}

TEST(Model, DecodingEqualsTheParallelPass) {
  auto model = model_of(small());
  for (Parameter& p : model->parameters())
    if (p.shape.size() == 2)
      for (float& value : p.value) value *= 8;  // initial weights barely use the context
  const auto tokens = test::tokens(40, 5, 61);
  const auto want = model->logits(tokens, 1);
  ASSERT_OK(want);
  auto state = model->start_decoding();
  auto logits = model->prefill(*state, std::span(tokens).first(19));
  for (std::size_t t = 19;; ++t) {
    ASSERT_OK(logits);
    EXPECT_LE(test::relative_error(*logits, std::span(*want).subspan((t - 1) * 61, 61)), 2e-5) << t;
    if (t == tokens.size()) break;
    logits = model->decode(*state, tokens[t]);
  }
  EXPECT_EQ(state->position(), 40);
  EXPECT_EQ(state->cache_bytes(), estimate_cost(model->config(), 40, 1).decode_cache_bytes);
}

TEST(Model, InitialGatesKeepStatesForTheChunk) {
  for (const auto& [layers, longest] :
       std::vector<std::pair<std::string, double>>{{"rat:64", 64}, {"rat:1", 2}, {"rnn", 256}}) {
    ModelConfig config = small(layers);
    config.d_model = 512;
    const auto model = model_of(config);
    for (const Parameter& p : model->parameters())
      if (p.name.ends_with("gate_bias")) {
        // sigmoid(log u) = u / (1 + u): 1 / (1 - gate) = 1 + u tokens, u in [1, L-1].
        const auto [low, high] = std::minmax_element(p.value.begin(), p.value.end());
        EXPECT_GE(*low, 0.0f);
        EXPECT_LE(1 + std::exp(*high), longest * 1.0001);
        if (longest > 2) {
          EXPECT_GT(1 + std::exp(*high), longest * 0.9);
        }
      }
  }
}

TEST(Trace, RecordsWhatIsAskedAndOnlyThat) {
  auto model = model_of(small());
  const auto tokens = test::tokens(21, 5, 61);
  EXPECT_TRUE(model->trace(tokens, {})->tensors.empty());
  ProbeRequest request;
  for (int probe = 0; probe < static_cast<int>(Probe::count); ++probe)
    request.items.push_back({static_cast<Probe>(probe), -1});
  const auto trace = model->trace(tokens, request);
  ASSERT_OK(trace);
  for (std::size_t layer = 0; layer < 4; ++layer)
    for (const Probe probe : probes_of(model->config().layers[layer]))
      EXPECT_NE(trace->find(probe, static_cast<int>(layer)), nullptr) << layer << " " << probe_name(probe);
  const ProbeTensor* rat = trace->find(Probe::attention, 0);
  EXPECT_EQ(rat->shape, (std::vector<int64_t>{4, 21, 3}));  // chunks of 8: two past ends and the own state
  for (int64_t t = 0; t < 21; ++t) {
    double sum = 0;
    for (int64_t c = 0; c < 3; ++c) {
      const float weight = rat->row(1, t)[static_cast<std::size_t>(c)];
      EXPECT_EQ(std::isnan(weight), c < 2 && c >= t / 8) << t << " " << c;
      if (!std::isnan(weight)) sum += weight;
    }
    EXPECT_NEAR(sum, 1, 1e-5);
  }
  const ProbeTensor* window = trace->find(Probe::attention, 2);
  EXPECT_TRUE(std::isnan(window->row(0, 20)[14]));
  EXPECT_FALSE(std::isnan(window->row(0, 20)[15]));
  EXPECT_TRUE(std::isnan(window->row(0, 3)[4]));
  EXPECT_LE(test::relative_error(trace->find(Probe::logits, -1)->values, *model->logits(tokens, 1)), 1e-6);
  for (const float gate : trace->find(Probe::gate, 3)->values) EXPECT_TRUE(gate >= 0 && gate <= 1);
  EXPECT_FALSE(model->trace(tokens, {{{Probe::gate, 1}}}));  // attention has no gate
  EXPECT_FALSE(model->trace(tokens, {{{Probe::residual, 4}}}));
}

TEST(Trace, StatesFollowTheGates) {
  auto model = model_of(small("rat:8"));
  const auto trace = model->trace(
      test::tokens(21, 5, 61),
      {{{Probe::gate, 0}, {Probe::state_v, 0}, {Probe::attention_entropy, 0}, {Probe::attention_overview, 0}}});
  ASSERT_OK(trace);
  const auto half_lives = channel_half_lives(*trace->find(Probe::gate, 0));
  EXPECT_EQ(half_lives.size(), 32u);
  EXPECT_NEAR(half_life_tokens(0.5), 1, 1e-12);
  EXPECT_TRUE(std::isinf(half_life_tokens(1)));
  EXPECT_EQ(half_life_tokens(0), 0);
  for (const float entropy : trace->find(Probe::attention_entropy, 0)->values)
    EXPECT_TRUE(entropy >= 0 && entropy < std::log(3));
  EXPECT_EQ(trace->find(Probe::attention_overview, 0)->shape, (std::vector<int64_t>{4, 21, 3}));
  EXPECT_FALSE(parse_probe("gat"));
  EXPECT_EQ(*parse_probe("state_k"), Probe::state_k);
}

TEST(Optimizer, ClipsAndSkipsWhatIsNotFinite) {
  std::vector<float> value{1, 2}, grad{30, 40};
  Parameter p{"p", {2}, value, grad};
  AdamW optimizer(std::span<const Parameter>(&p, 1), {.weight_decay = 0, .clip = 1});
  const auto result = *optimizer.step({&p, 1}, 0.1);
  EXPECT_NEAR(result.grad_norm, 50, 1e-9);
  EXPECT_FALSE(result.skipped);
  EXPECT_NEAR(optimizer.first_moment(0)[0], 0.1 * 0.6, 1e-6);  // the clipped gradient is (0.6, 0.8)
  const std::vector<float> before = value;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    grad[1] = bad;
    EXPECT_TRUE(optimizer.step({&p, 1}, 0.1)->skipped);
    EXPECT_EQ(value, before);
    EXPECT_EQ(optimizer.step_count(), 1);
  }
}

TEST(Schedule, WarmsUpThenFallsToTheFraction) {
  EXPECT_NEAR(learning_rate(Schedule::cosine, 1, 0, 100, 10), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(Schedule::cosine, 1, 9, 100, 10), 1, 1e-12);
  EXPECT_NEAR(learning_rate(Schedule::cosine, 1, 10, 100, 10), 1, 1e-12);
  EXPECT_NEAR(learning_rate(Schedule::cosine, 1, 99, 100, 10, 0.1), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(Schedule::constant, 1, 99, 100, 10), 1, 1e-12);
  EXPECT_NEAR(learning_rate(Schedule::cosine, 1, 0, 1, 0), 1, 1e-12);
  for (int step = 10; step < 99; ++step)
    EXPECT_GE(learning_rate(Schedule::cosine, 1, step, 100, 10), learning_rate(Schedule::cosine, 1, step + 1, 100, 10));
}

TEST(Sampler, GreedyTopKAndFrequencies) {
  const std::vector<float> logits{0, 2, 1, 2};
  EXPECT_EQ(Sampler({.temperature = 0}).sample(logits), 1);
  Sampler top({.temperature = 1, .top_k = 2, .seed = 3});
  std::array<int, 4> counts{};
  for (int i = 0; i < 2000; ++i) ++counts[static_cast<std::size_t>(top.sample(logits))];
  EXPECT_EQ(counts[0] + counts[2], 0);
  EXPECT_NEAR(counts[1], 1000, 120);
  Sampler all({.temperature = 1, .top_k = 0, .seed = 3}), same({.temperature = 1, .top_k = 0, .seed = 3});
  counts = {};
  for (int i = 0; i < 4000; ++i) {
    const int32_t token = all.sample(logits);
    EXPECT_EQ(token, same.sample(logits));
    ++counts[static_cast<std::size_t>(token)];
  }
  const double total = 1 + 2 * std::exp(2) + std::exp(1);
  EXPECT_NEAR(counts[2] / 4000.0, std::exp(1) / total, 0.03);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Sampler({.temperature = 1}).sample(std::vector<float>{nan, 1, nan}), 1);
}

TEST(Cost, CountsTheRealParametersAndGrowsWithLength) {
  for (const std::string layers : {"rat:8,attention,swa:5,rnn", "rat:16*4"})
    EXPECT_EQ(estimate_cost(small(layers), 512, 4).parameters, model_of(small(layers))->parameter_count());
  const auto cost = [](const std::string& layers, int64_t T) { return estimate_cost(small(layers), T, 1); };
  EXPECT_GT(cost("attention", 4096).prefill_flops_per_token, cost("rat:16", 4096).prefill_flops_per_token);
  EXPECT_EQ(cost("rnn", 10).decode_cache_bytes, cost("rnn", 10000).decode_cache_bytes);
  // One token of attention: 4 D flops, beside two flops per weight of every matrix.
  const auto one = cost("attention", 1);
  EXPECT_NEAR(one.prefill_flops_per_token, 2.0 * (4 * 32 * 32 + 2 * 4 * 32 * 32 + 61 * 32) + 4 * 32, 1e-6);
}

}  // namespace
}  // namespace rat
