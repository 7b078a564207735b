// Laws that every mixer of the list must obey, and RAT's two limits. A new mixer is tested by being in the list.
#include <algorithm>
#include <cmath>

#include "core/cost_model.h"
#include "core/mixer_list.h"
#include "core/model.h"
#include "core/single_layer.h"
#include "tests/support/compare.h"
#include "tests/support/mixer_layers.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"

namespace rat {
namespace {

using test::all_layers;
using test::config_of;
using test::forward;
using test::layer_of;

TEST(EveryMixer, PrefillAndDecodeEqualForward) {
  for (const std::string& name : all_layers())
    for (const auto& [positions, kv_heads] :
         {std::pair{Positions::rope, 0}, std::pair{Positions::none, 0}, std::pair{Positions::rope, 2}})
      for (const int64_t split : {0, 1, 7, 16, 23}) {
        SCOPED_TRACE(name + " split " + std::to_string(split));
        ModelConfig config = config_of(name);
        config.positions = positions;
        config.kv_heads = kv_heads;
        auto layer = layer_of(config);
        const int64_t T = 24, D = config.d_model;
        const auto x = test::uniform(static_cast<std::size_t>(T * D), 5, -2, 2);
        const auto want = forward(*layer, x, 1, T);
        auto y = test::poison(x.size());
        auto state = layer->start_decoding();
        const auto at = [&](int64_t t) { return static_cast<std::size_t>(t * D); };
        if (split > 0)
          ASSERT_OK(layer->prefill(*state, std::span(x).first(at(split)), split, std::span(y).first(at(split))));
        for (int64_t t = split; t < T; ++t)
          ASSERT_OK(layer->decode(*state, std::span(x).subspan(at(t), at(1)), std::span(y).subspan(at(t), at(1))));
        EXPECT_LE(test::relative_error(y, want), 1e-5);
        EXPECT_EQ(state->position(), T);
        EXPECT_EQ(state->cache_bytes(), estimate_cost(config, T, 1).decode_cache_bytes);
      }
}

TEST(EveryMixer, PrefillContinuesAStartedState) {
  for (const std::string& name : all_layers()) {
    auto layer = layer_of(config_of(name));
    const auto x = test::uniform(20 * 24, 5);
    const auto want = forward(*layer, x, 1, 20);
    auto y = test::poison(x.size());
    auto state = layer->start_decoding();
    ASSERT_OK(layer->prefill(*state, std::span(x).first(9 * 24), 9, std::span(y).first(9 * 24)));
    ASSERT_OK(layer->prefill(*state, std::span(x).subspan(9 * 24), 11, std::span(y).subspan(9 * 24)));
    EXPECT_LE(test::relative_error(y, want), 1e-5) << name;
  }
}

TEST(EveryMixer, LaterTokensChangeNothingEarlierBitForBit) {
  for (const std::string& name : all_layers()) {
    auto layer = layer_of(config_of(name));
    const int64_t T = 150, D = 24;
    auto x = test::uniform(static_cast<std::size_t>(T * D), 5);
    const auto before = forward(*layer, x, 1, T);
    for (const int64_t changed : {149, 77, 1}) {
      for (int64_t i = changed * D; i < T * D; ++i) x[static_cast<std::size_t>(i)] += 1.0f;
      const auto after = forward(*layer, x, 1, T);
      EXPECT_TRUE(std::equal(before.begin(), before.begin() + changed * D, after.begin()))
          << name << " from " << changed;
      EXPECT_FALSE(
          std::equal(before.begin() + changed * D, before.begin() + (changed + 1) * D, after.begin() + changed * D))
          << name;
    }
  }
}

TEST(EveryMixer, SequencesOfABatchDoNotMix) {
  for (const std::string& name : all_layers()) {
    auto layer = layer_of(config_of(name));
    const auto x = test::uniform(3 * 11 * 24, 5);
    const auto together = forward(*layer, x, 3, 11);
    for (std::size_t b = 0; b < 3; ++b) {
      const auto one = std::span(x).subspan(b * 264, 264);
      const auto alone = forward(*layer, {one.begin(), one.end()}, 1, 11);
      EXPECT_LE(test::relative_error(alone, std::span(together).subspan(b * 264, 264)), 1e-6) << name;
    }
  }
}

// Central differences of our own float32 forward: a looser bound than the per-op tests, for the assembly of the parts.
TEST(EveryMixer, BackwardIsTheDerivativeOfForward) {
  std::vector<std::string> names = all_layers();
  for (const std::string& name : all_layers()) names.push_back(name + " shared");  // keys and values
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    ModelConfig config = config_of(name.substr(0, name.find(' ')), 12, 6, 3);
    if (name.ends_with(" shared")) config.kv_heads = 3;
    auto layer = layer_of(config);
    const int64_t B = 2, T = 10;
    auto x = test::uniform(static_cast<std::size_t>(B * T * 12), 5);
    const auto grad_out = test::uniform(x.size(), 6);
    forward(*layer, x, B, T);
    auto grad_x = test::poison(x.size());
    ASSERT_OK(layer->backward(grad_out, grad_x));
    auto again = grad_x;
    EXPECT_FALSE(layer->backward(grad_out, again));  // once per forward
    const auto slope = [&](float& value) {
      const float at = value, step = 1e-2f;
      const auto central = [&](float h) {
        value = at + h;
        const double above = test::dot(test::widen(forward(*layer, x, B, T)), test::widen(grad_out));
        value = at - h;
        const double below = test::dot(test::widen(forward(*layer, x, B, T)), test::widen(grad_out));
        value = at;
        return (above - below) / (2.0 * static_cast<double>(h));
      };
      return (4.0 * central(step / 2) - central(step)) / 3.0;  // the error of the step's square cancels
    };
    std::vector<float> ours;
    std::vector<double> numeric;
    for (std::size_t i = 0; i < x.size(); i += 17) ours.push_back(grad_x[i]), numeric.push_back(slope(x[i]));
    EXPECT_LE(test::relative_error(ours, numeric), 5e-3);
    for (Parameter& p : layer->parameters()) {
      ours.clear(), numeric.clear();
      for (std::size_t i = 0; i < p.value.size(); i += p.value.size() / 7 + 1)
        ours.push_back(p.grad[i]), numeric.push_back(slope(p.value[i]));
      EXPECT_LE(test::relative_error(ours, numeric), 5e-3) << p.name;
    }
  }
}

// What benchmarks time on a device is forward and backward: the same gradients of the weights.
TEST(EveryMixer, TrainsOnLoadedValuesAsOnGivenOnes) {
  for (const std::string& name : test::all_layers()) {
    const int64_t batch = 2, tokens = 19;
    const ModelConfig config = test::config_of(name);
    const auto given = test::layer_of(config), loaded = test::layer_of(config);
    const auto x = test::uniform(static_cast<std::size_t>(batch * tokens * config.d_model), 5, -2, 2);
    auto y = test::poison(x.size()), grad_x = test::poison(x.size());
    ASSERT_OK(given->forward(x, batch, tokens, y));
    ASSERT_OK(given->backward(x, grad_x));
    EXPECT_FALSE(loaded->train_loaded({})) << "nothing is loaded";
    ASSERT_OK(loaded->load(x, batch, tokens));
    EXPECT_FALSE(loaded->train_loaded({})) << "no gradient is loaded";
    ASSERT_OK(loaded->load_gradient());
    ASSERT_OK(loaded->train_loaded({}));
    EXPECT_FALSE(loaded->train_loaded({})) << "the gradient was that of one pass";
    ASSERT_OK(loaded->load_gradient());
    ASSERT_OK(loaded->set_dtype(kernels::Dtype::f32));
    EXPECT_FALSE(loaded->train_loaded({})) << "the gradient was loaded for another dtype";
    const auto want = given->parameters(), got = loaded->parameters();
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_TRUE(std::ranges::equal(got[i].grad, want[i].grad)) << name << " " << want[i].name;
  }
}

// RAT with one-token chunks, written out in float64 from the equations. No shared queries (G = H); in_proj rows: z, v,
// g, q, k. No RoPE here: the golden files cover it.
TEST(RatLimits, OneTokenChunksAreAttentionOverGatedKeysAndValues) {
  const int64_t D = 12, H = 3, T = 9;
  ModelConfig config = config_of("rat:1", D, H, H);
  config.positions = Positions::none;
  auto layer = layer_of(config);
  const auto x = test::uniform(static_cast<std::size_t>(T * D), 5);
  const auto weights = [&](std::size_t i) {
    const auto value = layer->parameters()[i].value;
    return test::Values(value.begin(), value.end());
  };
  const test::Values in_proj = weights(0), out_proj = weights(1), bias = weights(3);
  const auto times = [&](const test::Values& rows, const test::Values& matrix, int64_t first) {  // rows W^T, D columns
    test::Values out;
    for (int64_t t = 0; t < T; ++t)
      for (int64_t o = first; o < first + D; ++o) {
        double sum = 0;
        for (int64_t d = 0; d < D; ++d)
          sum += rows[static_cast<std::size_t>(t * D + d)] * matrix[static_cast<std::size_t>(o * D + d)];
        out.push_back(sum);
      }
    return out;
  };
  const auto h = test::rms_norm(test::widen(x), weights(2));
  const auto z = times(h, in_proj, 0), g = times(h, in_proj, 2 * D);
  test::AttentionInputs in;
  in.v = times(h, in_proj, D);
  in.q = times(h, in_proj, 3 * D);
  in.k = times(h, in_proj, 4 * D);
  for (std::size_t i = 0; i < in.v.size(); ++i) {
    const double fresh = 1 / (1 + std::exp(g[i] + bias[i % static_cast<std::size_t>(D)]));  // 1 - gate
    in.v[i] *= fresh;
    in.k[i] *= fresh;
  }
  test::Values mixed = test::attention({1, T, H, D / H, D, T}, in);
  for (std::size_t i = 0; i < mixed.size(); ++i) mixed[i] /= 1 + std::exp(-z[i]);
  EXPECT_LE(test::relative_error(forward(*layer, x, 1, T), times(mixed, out_proj, 0)), 1e-5);
}

TEST(RatLimits, OneChunkIsTheRnnWithTheSameWeights) {
  const int64_t D = 24, T = 20;
  auto rat = layer_of(config_of("rat:1000"));
  auto rnn = layer_of(config_of("rnn"));
  for (std::size_t i = 0; i < 4; ++i)  // the first 3 D rows of in_proj are z, v, g in both
    std::copy_n(rat->parameters()[i].value.begin(), rnn->parameters()[i].value.size(),
                rnn->parameters()[i].value.begin());
  const auto x = test::uniform(static_cast<std::size_t>(T * D), 5);
  EXPECT_LE(test::relative_error(forward(*rat, x, 1, T), forward(*rnn, x, 1, T)), 1e-6);
}

TEST(EveryMixer, AttentionProbeShowsWhatIsSeen) {
  for (const std::string& name : all_layers()) {
    SCOPED_TRACE(name);
    ModelConfig config = config_of(name);
    const MixerType& type = **find_mixer_type(config.layers[0].kind);
    const bool shown = std::ranges::find(type.probes, Probe::attention) != type.probes.end();
    EXPECT_EQ(shown, type.columns_seen != nullptr);
    if (!shown) continue;
    config.vocab = 50;
    auto model = Model::create(config, 3);
    ASSERT_OK(model);
    std::vector<int32_t> tokens(41);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7 % 50);
    const auto trace = (*model)->trace(tokens, {{{Probe::attention, 0}}});
    ASSERT_OK(trace);
    const ProbeTensor* weights = trace->find(Probe::attention, 0);
    ASSERT_NE(weights, nullptr);
    for (int64_t t = 0; t < 41; ++t) {
      double sum = 0;
      int64_t seen = 0;
      for (const float weight : weights->row(1, t))
        if (!std::isnan(weight)) sum += static_cast<double>(weight), ++seen;
      EXPECT_EQ(seen, type.columns_seen(config.layers[0], t)) << "token " << t;
      EXPECT_NEAR(sum, 1.0, 1e-5) << "token " << t;
    }
  }
}

std::vector<float> output_of(const std::string& pattern, const std::vector<float>& x) {
  return forward(*layer_of(config_of(pattern)), x, 1, static_cast<int64_t>(x.size()) / 24);
}

TEST(RatplusLimits, WhatSeesEverythingIsDense) {
  const auto x = test::uniform(45 * 24, 5);
  const auto dense = output_of("ratplus", x);
  for (const char* same : {"ratplus:1/w7/s3", "ratplus:9/w45", "ratplus:9/w1000", "ratplus:9/s45", "ratplus:7/s1000"})
    EXPECT_LE(test::relative_error(output_of(same, x), dense), 1e-6) << same;
  EXPECT_GT(test::relative_error(output_of("ratplus:9", x), dense), 1e-3);
  EXPECT_GT(test::relative_error(output_of("ratplus:9/w4", x), output_of("ratplus:9", x)), 1e-3);
  EXPECT_GT(test::relative_error(output_of("ratplus:9/s4", x), output_of("ratplus:9", x)), 1e-3);
}

// With every token in the window the linear part is zero, and a norm with weights of 1 scales each head of attention's
// result to a root mean square of 1.
TEST(RattentionLimits, AWindowAsLongAsTheTextLeavesNormalisedAttention) {
  const int64_t T = 30, D = 24, P = 4;
  auto rattention = layer_of(config_of("rattention:29")), attention = layer_of(config_of("attention"));
  for (Parameter& p : rattention->parameters()) {
    if (p.name == "swa_norm") std::ranges::fill(p.value, 1.0f);
    if (p.name == "rla_norm") std::ranges::fill(p.value, 1000.0f);  // of zeros
    for (Parameter& q : attention->parameters())
      if (p.name == q.name) std::ranges::copy(p.value, q.value.begin());
  }
  const auto identity = [&](SingleLayer& layer) {
    for (Parameter& p : layer.parameters())
      if (p.name == "out_proj")
        for (int64_t i = 0; i < D * D; ++i) p.value[static_cast<std::size_t>(i)] = i % (D + 1) == 0 ? 1.0f : 0.0f;
  };
  identity(*rattention), identity(*attention);
  const auto x = test::uniform(static_cast<std::size_t>(T * D), 5);
  const auto ours = forward(*rattention, x, 1, T);
  const test::Values raw = test::widen(forward(*attention, x, 1, T));
  test::Values want;
  for (std::size_t at = 0; at < raw.size(); at += static_cast<std::size_t>(P)) {
    const test::Values head(raw.begin() + static_cast<std::ptrdiff_t>(at),
                            raw.begin() + static_cast<std::ptrdiff_t>(at) + P);
    for (const double y : test::rms_norm(head, test::Values(P, 1.0), 1e-8)) want.push_back(y);
  }
  EXPECT_LE(test::relative_error(ours, want), 1e-5);
}

TEST(RattentionState, HasAConstantSize) {
  for (const char* name : {"rattention:7", "linear"}) {
    auto layer = layer_of(config_of(name));
    auto state = layer->start_decoding();
    const auto x = test::uniform(60 * 24, 5);
    std::vector<float> y(60 * 24);
    ASSERT_OK(layer->prefill(*state, std::span(x).first(20 * 24), 20, std::span(y).first(20 * 24)));
    const int64_t bytes = state->cache_bytes();
    ASSERT_OK(layer->prefill(*state, std::span(x).subspan(20 * 24), 40, std::span(y).subspan(20 * 24)));
    EXPECT_EQ(state->cache_bytes(), bytes) << name;
  }
}

// Shared keys and values, against attention with every head's own copies of them.
TEST(SharedKeys, EqualAttentionWithCopies) {
  ModelConfig shared = config_of("attention"), own = shared;
  shared.kv_heads = 2;  // of 6 heads of size 4: head h uses h % 2
  auto a = layer_of(shared), b = layer_of(own);
  const int64_t D = 24, KV = 8;
  for (std::size_t i = 1; i < 3; ++i)  // out_proj, norm
    std::ranges::copy(a->parameters()[i].value, b->parameters()[i].value.begin());
  const auto from = a->parameters()[0].value, to = b->parameters()[0].value;
  for (int64_t row = 0; row < 3 * D; ++row) {  // v, q, k
    const int64_t source = row < D ? row % KV : row < 2 * D ? KV + row - D : KV + D + row % D % KV;
    std::copy_n(from.begin() + source * D, D, to.begin() + row * D);
  }
  const auto x = test::uniform(40 * 24, 5);
  EXPECT_LE(test::relative_error(forward(*a, x, 1, 40), forward(*b, x, 1, 40)), 1e-6);
}

TEST(Windows, AWindowAsLongAsTheTextIsAttention) {
  auto swa = layer_of(config_of("swa:1000"));
  auto attention = layer_of(config_of("attention"));
  const auto x = test::uniform(40 * 24, 5);
  EXPECT_EQ(forward(*swa, x, 1, 40), forward(*attention, x, 1, 40));
}

}  // namespace
}  // namespace rat
