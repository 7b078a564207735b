// What core does around a backend's fused steps of a layer: the cache that grows, wraps around, repeats and refuses.
// On the backend of fusing_backend.h, without a GPU; tests/experiments/cuda_decode_test.cpp runs the real one.
#include "core/model.h"
#include "core/rounded_weights.h"
#include "kernels/base/dilation.h"
#include "tests/core/fusing_backend.h"
#include "tests/support/mixer_layers.h"

namespace rat {
namespace {

using test::fusing_backend;

// A mixer on that backend with the weights of a layer on the CPU, which are bf16 values.
class FusedLayer {
 public:
  explicit FusedLayer(const ModelConfig& config)
      : reference(test::layer_of(config)),
        rounded_(fusing_backend()),
        saved_(fusing_backend()),
        work_(fusing_backend()) {
    for (Parameter& p : reference->parameters()) {
      for (float& value : p.value) value = test::widen(test::narrow(value));
      all_.insert(all_.end(), p.value.begin(), p.value.end());
    }
    auto* at = all_.data();
    for (const Parameter& p : reference->parameters()) {
      parameters_.push_back({p.name, p.shape, {at, p.value.size()}, {}});
      at += p.value.size();
    }
    EXPECT_OK(rounded_.ensure(all_));
    for (const Parameter& extra : std::span(parameters_).subspan(3)) weights_.value.push_back(extra.value);
    mixer = (*find_mixer_type(config.layers[0].kind))->create(config, config.layers[0], fusing_backend());
  }

  MixerPass pass(int64_t batch, int64_t tokens) {
    MixerPass pass;
    pass.batch = batch, pass.tokens = tokens;
    pass.saved = &saved_, pass.work = &work_;
    pass.exec = {.backend = &fusing_backend()};
    pass.dtype = kernels::Dtype::bf16;
    pass.rounded = pass.fused_weights = &rounded_;
    pass.cache_dtype = cache_dtype;
    return pass;
  }
  LayerWeights layer() const { return {&parameters_[0], &parameters_[1], &parameters_[2]}; }
  const MixerWeights& weights() const { return weights_; }

  // Outputs (B, T, D) of x, the first `split` tokens prefilled, from a state at `first`.
  std::vector<float> outputs(MixerState& state, const std::vector<float>& x, int64_t batch, int64_t first,
                             int64_t split) {
    const int64_t D = 24, T = static_cast<int64_t>(x.size()) / batch / D;
    std::vector<float> y(x.size());
    const auto part = [&](const float* from, float* to, int64_t from_T, int64_t to_T, int64_t count) {
      for (int64_t b = 0; b < batch; ++b) std::copy_n(from + b * from_T * D, count * D, to + b * to_T * D);
    };
    std::vector<float> in(static_cast<std::size_t>(batch * std::max<int64_t>(split, 1) * D)), out(in.size());
    if (split > 0) {
      part(x.data(), in.data(), T, split, split);
      EXPECT_OK(mixer->prefill_fused(pass(batch, split), layer(), weights_, in.data(), state, out.data(), false));
      part(out.data(), y.data(), split, T, split);
    }
    for (int64_t t = split; t < T; ++t) {
      part(x.data() + t * D, in.data(), T, 1, 1);
      EXPECT_OK(mixer->prepare_step(pass(batch, 1), first + t, state));
      EXPECT_OK(mixer->step_fused(pass(batch, 1), layer(), weights_, in.data(), state, out.data(), false));
      part(out.data(), y.data() + t * D, 1, T, 1);
    }
    return y;
  }

  std::unique_ptr<SingleLayer> reference;
  std::unique_ptr<Mixer> mixer;
  std::optional<kernels::CacheDtype> cache_dtype;

 private:
  std::vector<float> all_;
  std::vector<Parameter> parameters_;
  MixerWeights weights_;
  RoundedWeights rounded_;
  Activations saved_;
  Workspace work_;
};

// Chunk ends are kept in bf16, or in e4m3 whose errors are up to 2^-4 of each value, and their bytes.
struct Kept {
  std::optional<kernels::CacheDtype> dtype;
  double bound;
  int64_t bytes(const ModelConfig& config) const {  // of one chunk end
    const int64_t KV = config.kv_width();
    return dtype == kernels::CacheDtype::fp8 ? 2 * KV + 4 * KV / config.head_size() : 4 * KV;
  }
};
// Chunk ends after T tokens, or the tokens of the window and those that are kept beyond it.
int64_t rows_after(const LayerConfig& layer, int64_t T) {
  if (layer.kind == "rat") return T / layer.chunk;
  if (layer.kind == "ratplus" && layer.dilation > 1)
    return std::min(T, layer.window + 1) + kernels::kept_tokens(T, layer.dilation, layer.initial);
  if (layer.kind == "linear" || layer.kind == "rnn") return 0;
  return layer.kind == "swa" || layer.kind == "rattention" ? std::min(T, layer.window + 1) : T;
}
// Running states, or sums.
int64_t running_bytes(const ModelConfig& config) {
  const std::string& kind = config.layers[0].kind;
  if (kind == "linear" || kind == "rattention") return 4 * 2 * config.kv_width() * config.head_size();
  return kind.starts_with("rat") ? 2 * 4 * config.d_model : kind == "rnn" ? 4 * config.d_model : 0;
}

const Kept all_kept[] = {{{}, 5e-3}, {kernels::CacheDtype::bf16, 5e-3}, {kernels::CacheDtype::fp8, 6e-2}};

TEST(FusedGeneration, GrowsItsCacheAndFollowsTheLayer) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  for (const auto& [name, kv_heads] : {std::pair{"rat:1", 0},
                                       {"rat:3", 0},
                                       {"rat:1000", 0},
                                       {"attention", 0},
                                       {"swa:0", 0},
                                       {"swa:1", 0},
                                       {"swa:9", 0},
                                       {"swa:70", 0},
                                       {"swa:1000", 0},
                                       {"attention", 2},
                                       {"swa:9", 3},
                                       {"ratplus", 0},
                                       {"ratplus:4", 0},
                                       {"ratplus:3/w2/s5", 0},
                                       {"ratplus:5/w1000", 0},
                                       {"ratplus:2/w0/s1000/nope", 0},
                                       {"rattention:0", 0},
                                       {"rattention:9", 2},
                                       {"rattention:1000", 0},
                                       {"rattention:20/nope", 3},
                                       {"linear", 0},
                                       {"linear", 2},
                                       {"rnn", 0}})
    for (const int64_t batch : {1, 3}) {
      ModelConfig config = test::config_of(name);
      config.kv_heads = kv_heads;
      FusedLayer fused(config);
      const int64_t T = 150, D = 24;
      ASSERT_TRUE(fused.mixer->fuses_generation(fused.pass(batch, 1)));
      const auto x = test::uniform(static_cast<std::size_t>(batch * T * D), 5, -2, 2);
      const auto want = test::forward(*fused.reference, x, batch, T);
      for (const Kept& kept : all_kept) {
        fused.cache_dtype = kept.dtype;
        if (!fused.mixer->fuses_generation(fused.pass(batch, 1))) {
          EXPECT_TRUE(kept.dtype == kernels::CacheDtype::fp8 && running_bytes(config) > 0) << name;
          continue;
        }
        for (const int64_t split : {0, 1, 63, 64, 140}) {
          SCOPED_TRACE(fmt::format("{} B {} split {}", name, batch, split));
          const auto state = fused.mixer->start(batch);
          EXPECT_LE(test::relative_error(fused.outputs(*state, x, batch, 0, split), want), kept.bound);
          EXPECT_EQ(state->bytes(),
                    batch * (kept.bytes(config) * rows_after(config.layers[0], T) + running_bytes(config)));
          EXPECT_EQ(state->cache_dtype(), kept.dtype.value_or(kernels::CacheDtype::bf16));
          ASSERT_OK(state->clear());
          EXPECT_LE(test::relative_error(fused.outputs(*state, x, batch, 0, split), want), kept.bound)
              << "a second time";
        }
      }
    }
}

void expect_another_cache_needs_another_state(const char* layer) {
  SCOPED_TRACE(layer);
  FusedLayer fused(test::config_of(layer));
  std::vector<float> x(24, 0.5f), y(24);
  const auto state = fused.mixer->start(1);
  const auto step = [&](int64_t position, std::optional<kernels::CacheDtype> dtype) {
    fused.cache_dtype = dtype;
    const MixerPass pass = fused.pass(1, 1);
    const Status prepared = fused.mixer->prepare_step(pass, position, *state);
    return !prepared ? prepared
                     : fused.mixer->step_fused(pass, fused.layer(), fused.weights(), x.data(), *state, y.data(), true);
  };
  ASSERT_OK(step(0, kernels::CacheDtype::fp8));
  const Status refused = step(1, {});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("another precision"), std::string::npos) << refused.error().message;
  ASSERT_OK(step(1, kernels::CacheDtype::fp8));
  ASSERT_OK(state->clear());
  ASSERT_OK(step(0, kernels::CacheDtype::bf16));
  EXPECT_EQ(state->cache_dtype(), kernels::CacheDtype::bf16);
  ASSERT_OK(state->clear());
  const Status f32 = step(0, kernels::CacheDtype::f32);
  ASSERT_FALSE(f32);
  EXPECT_NE(f32.error().message.find("not in f32"), std::string::npos) << f32.error().message;
}

TEST(FusedGeneration, AnotherCacheDtypeNeedsAnotherState) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  for (const char* layer : {"rat:3", "attention", "swa:5", "ratplus", "ratplus:4"})
    expect_another_cache_needs_another_state(layer);
}

TEST(FusedGeneration, RepeatedStatesGoOnByThemselves) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  for (const auto& [name, kept] : {std::pair{"rat:1", all_kept[0]},
                                   {"rat:3", all_kept[0]},
                                   {"rat:1", all_kept[2]},
                                   {"attention", all_kept[0]},
                                   {"swa:20", all_kept[0]},
                                   {"swa:80", all_kept[2]},
                                   {"ratplus", all_kept[0]},
                                   {"ratplus:4/w3/s2", all_kept[2]},
                                   {"rattention:20", all_kept[0]},
                                   {"linear", all_kept[1]},
                                   {"rnn", all_kept[0]}})
    for (const int64_t prompt : {0, 10, 64}) {
      FusedLayer fused(test::config_of(name));
      fused.cache_dtype = kept.dtype;
      const int64_t B = 3, T = 100, D = 24;
      auto x = test::uniform(static_cast<std::size_t>(B * T * D), 5, -2, 2);
      for (int64_t b = 1; b < B; ++b)
        std::copy_n(x.begin(), prompt * D, x.begin() + static_cast<std::ptrdiff_t>(b * T * D));
      const auto want = test::forward(*fused.reference, x, B, T);
      const auto one = fused.mixer->start(1);
      fused.outputs(*one, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(prompt * D)}, 1, 0, prompt);
      auto all = one->repeated(B);
      ASSERT_OK(all);
      EXPECT_EQ((*all)->bytes(), B * one->bytes());
      std::vector<float> rest, want_rest;
      for (int64_t b = 0; b < B; ++b)
        for (const auto& [from, to] :
             {std::pair{&x, &rest}, std::pair{const_cast<std::vector<float>*>(&want), &want_rest}})
          to->insert(to->end(), from->begin() + static_cast<std::ptrdiff_t>((b * T + prompt) * D),
                     from->begin() + static_cast<std::ptrdiff_t>((b + 1) * T * D));
      EXPECT_LE(test::relative_error(fused.outputs(**all, rest, B, prompt, 0), want_rest), kept.bound)
          << name << " " << prompt;
    }
}

TEST(FusedGeneration, AStateOfAnotherFormIsRefused) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  FusedLayer fused(test::config_of("rat:3"));
  const auto state = fused.mixer->start(1);
  fused.outputs(*state, test::uniform(5 * 24, 5), 1, 0, 5);
  std::vector<float> projected(3 * 24 + 2 * 12), mixed(24);
  const MixerWeights weights{{fused.reference->parameters()[3].value}, {}};
  MixerPass single_ops = fused.pass(1, 1);
  single_ops.fused_weights = nullptr;
  EXPECT_FALSE(fused.mixer->prepare_step(single_ops, 5, *state));
  const auto plain = fused.mixer->start(1);
  EXPECT_OK(fused.mixer->prepare_step(single_ops, 0, *plain));
  EXPECT_OK(fused.mixer->step(single_ops, weights, 0, projected.data(), *plain, mixed.data()));
  EXPECT_FALSE(fused.mixer->prepare_step(fused.pass(1, 1), 1, *plain));
}

}  // namespace
}  // namespace rat
