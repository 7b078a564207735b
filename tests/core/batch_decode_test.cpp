// Several sequences at a time: together they give what each gives alone, whatever the mixer.
#include <gmock/gmock.h>

#include "core/cost_model.h"
#include "core/model.h"
#include "tests/support/mixer_layers.h"

namespace rat {
namespace {

using test::config_of;
using test::layer_of;
using testing::HasSubstr;

std::size_t size(int64_t count) { return static_cast<std::size_t>(count); }

// Tokens [first, first + count) of every sequence of `x` (B, T, D).
std::vector<float> tokens_of(const std::vector<float>& x, int64_t batch, int64_t dim, int64_t first, int64_t count) {
  const int64_t all = static_cast<int64_t>(x.size()) / batch;
  std::vector<float> part;
  for (int64_t b = 0; b < batch; ++b) {
    const auto begin = x.begin() + static_cast<std::ptrdiff_t>(b * all + first * dim);
    part.insert(part.end(), begin, begin + static_cast<std::ptrdiff_t>(count * dim));
  }
  return part;
}

// Outputs (B, count, D) of tokens [first, first + count) one by one.
std::vector<float> decode(SingleLayer& layer, DecodeState& state, const std::vector<float>& x, int64_t dim,
                          int64_t first, int64_t count) {
  const int64_t batch = state.batch();
  std::vector<float> all(size(batch * count * dim));
  for (int64_t t = 0; t < count; ++t) {
    const auto x_t = tokens_of(x, batch, dim, first + t, 1);
    auto y_t = test::poison(x_t.size());
    EXPECT_OK(layer.decode(state, x_t, y_t));
    for (int64_t b = 0; b < batch; ++b)
      std::copy_n(y_t.begin() + static_cast<std::ptrdiff_t>(b * dim), dim,
                  all.begin() + static_cast<std::ptrdiff_t>((b * count + t) * dim));
  }
  return all;
}

// Outputs (B, T, D) with the first `split` tokens prefilled.
std::vector<float> generate(SingleLayer& layer, DecodeState& state, const std::vector<float>& x, int64_t dim,
                            int64_t split) {
  const int64_t batch = state.batch(), T = static_cast<int64_t>(x.size()) / batch / dim;
  const auto begin = tokens_of(x, batch, dim, 0, split);
  auto prefilled = test::poison(begin.size());
  if (split > 0) EXPECT_OK(layer.prefill(state, begin, split, prefilled));
  const auto decoded = decode(layer, state, x, dim, split, T - split);
  std::vector<float> all;
  for (int64_t b = 0; b < batch; ++b)
    for (const auto& [part, tokens] :
         {std::pair{std::span<const float>(prefilled), split}, std::pair{std::span<const float>(decoded), T - split}}) {
      const auto own = part.subspan(size(b * tokens * dim), size(tokens * dim));
      all.insert(all.end(), own.begin(), own.end());
    }
  return all;
}

TEST(EveryMixer, DecodesSequencesTogetherAsEachAlone) {
  for (const std::string& name : test::all_layers())
    for (const auto& [positions, kv_heads] : {std::pair{Positions::rope, 2}, std::pair{Positions::none, 0}}) {
      ModelConfig config = config_of(name);
      config.positions = positions;
      config.kv_heads = kv_heads;
      auto layer = layer_of(config);
      const int64_t T = 24, D = config.d_model;
      for (const int64_t batch : {1, 2, 5})
        for (const int64_t split : {0, 1, 7, 16}) {
          SCOPED_TRACE(fmt::format("{} B {} split {}", name, batch, split));
          const auto x = test::uniform(size(batch * T * D), 5, -2, 2);
          auto state = layer->start_decoding(batch);
          const auto together = generate(*layer, *state, x, D, split);
          EXPECT_EQ(state->position(), T);
          EXPECT_EQ(state->batch(), batch);
          EXPECT_EQ(state->cache_bytes(), batch * estimate_cost(config, T, 1).decode_cache_bytes);
          std::vector<float> alone;
          for (int64_t b = 0; b < batch; ++b) {
            const std::vector<float> one(x.begin() + static_cast<std::ptrdiff_t>(b * T * D),
                                         x.begin() + static_cast<std::ptrdiff_t>((b + 1) * T * D));
            const auto y = generate(*layer, *layer->start_decoding(), one, D, split);
            alone.insert(alone.end(), y.begin(), y.end());
          }
          EXPECT_LE(test::relative_error(together, alone), batch == 1 ? 0 : 1e-6);
          EXPECT_LE(test::relative_error(together, test::forward(*layer, x, batch, T)), 1e-5);
        }
    }
}

TEST(EveryMixer, PrefillContinuesAStartedStateOfSeveralSequences) {
  for (const std::string& name : test::all_layers()) {
    auto layer = layer_of(config_of(name));
    const auto x = test::uniform(3 * 20 * 24, 5);
    const auto want = test::forward(*layer, x, 3, 20);
    auto state = layer->start_decoding(3);
    for (const auto& [first, count] : {std::pair{0, 9}, std::pair{9, 11}}) {
      const auto part = tokens_of(x, 3, 24, first, count);
      auto y = test::poison(part.size());
      ASSERT_OK(layer->prefill(*state, part, count, y));
      EXPECT_LE(test::relative_error(y, tokens_of(want, 3, 24, first, count)), 1e-5) << name << " from " << first;
    }
  }
}

// A common beginning, once for all, and then each its own way.
TEST(EveryMixer, RepeatedStatesGoOnByThemselves) {
  for (const std::string& name : test::all_layers())
    for (const int64_t prompt : {0, 5, 13}) {
      SCOPED_TRACE(fmt::format("{} prompt {}", name, prompt));
      const ModelConfig config = config_of(name);
      auto layer = layer_of(config);
      const int64_t B = 3, T = 24, D = 24;
      auto x = test::uniform(size(B * T * D), 5);
      for (int64_t b = 1; b < B; ++b)
        std::copy_n(x.begin(), prompt * D, x.begin() + static_cast<std::ptrdiff_t>(b * T * D));
      auto one = layer->start_decoding();
      const auto begin = tokens_of({x.begin(), x.begin() + static_cast<std::ptrdiff_t>(T * D)}, 1, D, 0, prompt);
      auto y = test::poison(begin.size());
      if (prompt > 0) ASSERT_OK(layer->prefill(*one, begin, prompt, y));
      auto all = one->repeated(B);
      ASSERT_OK(all);
      EXPECT_EQ((*all)->position(), prompt);
      EXPECT_EQ((*all)->cache_bytes(), B * one->cache_bytes());
      const auto together = decode(*layer, **all, x, D, prompt, T - prompt);
      EXPECT_LE(test::relative_error(together, tokens_of(test::forward(*layer, x, B, T), B, D, prompt, T - prompt)),
                1e-5);
      EXPECT_EQ(one->position(), prompt);  // and is as it was
      EXPECT_EQ(one->batch(), 1);
      EXPECT_FALSE((*all)->repeated(2));
      EXPECT_FALSE(one->repeated(0));
    }
}

TEST(EveryMixer, ARestartedStateIsAsNew) {
  for (const std::string& name : test::all_layers())
    for (const int64_t split : {0, 7}) {
      auto layer = layer_of(config_of(name));
      const auto x = test::uniform(2 * 24 * 24, 5), other = test::uniform(2 * 24 * 24, 6);
      auto state = layer->start_decoding(2);
      const int64_t fresh = state->cache_bytes();
      generate(*layer, *state, other, 24, 7);
      ASSERT_OK(state->restart());
      EXPECT_EQ(state->position(), 0);
      EXPECT_EQ(state->cache_bytes(), fresh) << name;
      EXPECT_EQ(generate(*layer, *state, x, 24, split), generate(*layer, *layer->start_decoding(2), x, 24, split))
          << name;
    }
}

TEST(BatchDecoding, RefusesWhatIsNotATokenForEachSequence) {
  auto layer = layer_of(config_of("rat:8"));
  std::vector<float> x(4 * 24), y(4 * 24);
  auto state = layer->start_decoding(3);
  const auto refused = layer->decode(*state, std::span(x).first(2 * 24), std::span(y).first(2 * 24));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::shape_mismatch);
  EXPECT_THAT(refused.error().message, HasSubstr("2 tokens are not 1 for each of the 3 sequences"));
  EXPECT_FALSE(layer->prefill(*state, x, 2, y));
  EXPECT_EQ(state->position(), 0);
  EXPECT_OK(layer->decode(*state, std::span(x).first(3 * 24), std::span(y).first(3 * 24)));
  for (const int64_t none : {0, -2}) {
    auto empty = layer->start_decoding(none);
    const auto answer = layer->decode(*empty, {}, {});
    ASSERT_FALSE(answer);
    EXPECT_THAT(answer.error().message, HasSubstr(fmt::format("of {} sequences", none)));
    EXPECT_FALSE(layer->prefill(*empty, x, 4, y));
  }
}

TEST(BatchDecoding, LoadedInputsOnlyFitStatesOfAsManySequences) {
  auto layer = layer_of(config_of("rat:8"));
  const auto x = test::uniform(2 * 10 * 24, 5);
  auto state = layer->start_decoding(2);
  EXPECT_FALSE(layer->prefill_loaded(*state, {}));
  EXPECT_FALSE(layer->decode_loaded(*state, {}));
  ASSERT_OK(layer->load(x, 2, 10));
  EXPECT_FALSE(layer->decode_loaded(*state, {}));  // ten tokens each
  EXPECT_FALSE(layer->prefill_loaded(*layer->start_decoding(3), {}));
  EXPECT_OK(layer->prefill_loaded(*state, {}));
  EXPECT_EQ(state->position(), 10);
  EXPECT_FALSE(layer->prefill_loaded(*state, {}));  // not fresh any more
  ASSERT_OK(layer->load(std::span(x).first(2 * 24), 2, 1));
  EXPECT_OK(layer->decode_loaded(*state, {}));
  EXPECT_EQ(state->position(), 11);
}

std::unique_ptr<Model> model_of() {
  ModelConfig config = config_of("rat:8,attention,swa:5,rnn,ratplus:3/w2,rattention:4,linear", 32, 4, 2);
  config.vocab = 61;
  auto model = *Model::create(config, 1);
  for (Parameter& p : model->parameters())
    if (p.shape.size() == 2)
      for (float& value : p.value) value *= 8;  // initial weights barely use the context
  return model;
}

TEST(BatchDecoding, AModelsLogitsAreThoseOfEachSequenceAlone) {
  auto model = model_of();
  const int64_t T = 30;
  for (const int64_t batch : {1, 2, 5, 20}) {
    const auto ids = test::tokens(size(batch * T), 5, 61);
    const auto want = model->logits(ids, batch);
    ASSERT_OK(want);
    const auto at = [&](int64_t t) {  // of every sequence
      std::vector<float> logits;
      for (int64_t b = 0; b < batch; ++b) {
        const auto from = want->begin() + static_cast<std::ptrdiff_t>((b * T + t) * 61);
        logits.insert(logits.end(), from, from + 61);
      }
      return logits;
    };
    std::vector<int32_t> prompts;
    for (int64_t b = 0; b < batch; ++b) prompts.insert(prompts.end(), ids.begin() + b * T, ids.begin() + b * T + 17);
    auto state = model->start_decoding(batch);
    auto logits = model->prefill(*state, prompts);
    for (int64_t t = 17;; ++t) {
      ASSERT_OK(logits);
      EXPECT_LE(test::relative_error(*logits, at(t - 1)), 2e-5) << batch << " " << t;
      if (t == T) break;
      std::vector<int32_t> column;
      for (int64_t b = 0; b < batch; ++b) column.push_back(ids[size(b * T + t)]);
      logits = model->decode(*state, column);
    }
    EXPECT_EQ(state->cache_bytes(), batch * estimate_cost(model->config(), T, 1).decode_cache_bytes);
  }
}

TEST(BatchDecoding, ACacheThatLayersCannotKeepIsRefused) {
  auto model = model_of();
  const auto ids = test::tokens(12, 5, 61);
  for (const auto dtype : {kernels::CacheDtype::fp8, kernels::CacheDtype::bf16}) {
    model->set_cache_dtype(dtype);
    auto state = model->start_decoding(2);
    const auto prefill = model->prefill(*state, ids), step = model->decode(*state, std::span(ids).first(2));
    for (const auto* answer : {&prefill, &step}) {
      ASSERT_FALSE(*answer);
      EXPECT_EQ(answer->error().code, ErrorCode::unsupported);
      EXPECT_THAT(answer->error().message,
                  testing::AllOf(HasSubstr(fmt::format("a cache in {}", kernels::cache_dtype_name(dtype))),
                                 HasSubstr("'rat' in f32 on the cpu device, with heads of 8")));
    }
    EXPECT_EQ(state->position(), 0);
  }
  for (const std::optional<kernels::CacheDtype> own : {std::optional(kernels::CacheDtype::f32), {}}) {
    model->set_cache_dtype(own);
    auto state = model->start_decoding(2);
    ASSERT_OK(model->prefill(*state, ids));
    EXPECT_EQ(state->cache_dtype(), "f32");
  }
  auto layer = layer_of(config_of("rat:8"));
  layer->set_cache_dtype(kernels::CacheDtype::fp8);
  std::vector<float> x(24, 0.5f), y(24);
  EXPECT_FALSE(layer->prefill(*layer->start_decoding(), x, 1, y));
  EXPECT_FALSE(layer->decode(*layer->start_decoding(), x, y));
  EXPECT_THAT(kernels::parse_cache_dtype("f8").error().message, HasSubstr("f32, bf16, fp8"));
}

TEST(BatchDecoding, AModelRefusesAndStops) {
  auto model = model_of();
  const auto ids = test::tokens(20, 5, 61);
  auto state = model->start_decoding(3);
  EXPECT_THAT(model->prefill(*state, ids).error().message, HasSubstr("each of the 3 sequences"));
  EXPECT_FALSE(model->decode(*state, std::span(ids).first(2)));
  EXPECT_FALSE(model->decode(*state, 1));
  EXPECT_FALSE(model->prefill(*state, {}));
  EXPECT_FALSE(model->prefill(*model->start_decoding(0), ids));
  EXPECT_FALSE(model->decode(*model->start_decoding(0), {}));
  EXPECT_THAT(model->decode(*state, std::vector<int32_t>{1, 61, 2}).error().message, HasSubstr("token 61"));
  StopFlag stop;
  stop.request();
  const PassOptions options{.stop = &stop, .times = nullptr};
  EXPECT_EQ(model->prefill(*state, std::span(ids).first(18), options).error().code, ErrorCode::cancelled);
  EXPECT_EQ(model->decode(*state, std::span(ids).first(3), options).error().code, ErrorCode::cancelled);
  EXPECT_EQ(state->position(), 0);
  stop.reset();
  ASSERT_OK(model->prefill(*state, std::span(ids).first(18), options));
  EXPECT_EQ(state->position(), 6);
  EXPECT_EQ(model->decode(*state, std::span(ids).first(3), options)->size(), 3u * 61);
}

}  // namespace
}  // namespace rat
