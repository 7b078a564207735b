// What core does around a backend's fused steps of a rat layer: the cache that grows, repeats and refuses. The backend
// here is the CPU's with the layer written out in plain loops, so that this runs without a GPU; tests/experiments/
// cuda_decode_test.cpp runs the real one.
#include <cmath>
#include <cstring>

#include "core/model.h"
#include "core/rounded_weights.h"
#include "kernels/rat_layer/rat_layer.h"
#include "tests/support/mixer_layers.h"

namespace rat {
namespace {

using kernels::Input;
using kernels::Output;

float widen(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// e4m3: sign, 4 bits of exponent above -7, 3 of significand; all ones is NaN.
double widen_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, significand = code & 7;
  if ((code & 0x7f) == 0x7f) return std::nan("");
  const double size = exponent == 0 ? std::ldexp(significand, -9) : std::ldexp(8 + significand, exponent - 10);
  return code & 0x80 ? -size : size;
}

// The nearest of all values.
uint8_t narrow_e4m3(double value) {
  static const std::vector<double> values = [] {
    std::vector<double> all;
    for (int code = 0; code < 127; ++code) all.push_back(widen_e4m3(static_cast<uint8_t>(code)));
    return all;
  }();
  const auto above = std::lower_bound(values.begin(), values.end(), std::abs(value));
  auto code = static_cast<uint8_t>(std::min<std::ptrdiff_t>(above - values.begin(), 126));
  if (code > 0 && std::abs(value) - values[code - 1u] < values[code] - std::abs(value)) --code;
  return value < 0 ? code | 0x80 : code;
}

// Row j of head h of sequence b of a cache's keys, or of its values.
class CacheRow {
 public:
  CacheRow(const kernels::RatLayerCache& cache, const kernels::RatLayerShape& s, bool of_keys, int64_t b, int64_t h,
           int64_t j)
      : data_(of_keys ? cache.keys : cache.values), size_(s.head_size) {
    const int64_t row = (b * s.heads + h) * cache.capacity + j;
    first_ = row * s.head_size;
    if (cache.dtype == kernels::CacheDtype::fp8) scale_ = cache.scales + 2 * row + (of_keys ? 0 : 1);
  }
  double get(int64_t i) const {
    if (scale_ == nullptr) return static_cast<double>(widen(static_cast<uint16_t*>(data_)[first_ + i]));
    return widen_e4m3(static_cast<uint8_t*>(data_)[first_ + i]) * static_cast<double>(widen(*scale_));
  }
  void set(const std::vector<double>& values) {
    double top = 0, scale = std::ldexp(1.0, -126);
    for (const double value : values) top = std::max(top, std::abs(value));
    while (top > 448 * scale) scale *= 2;
    if (scale_ != nullptr) *scale_ = narrow(static_cast<float>(scale));
    for (int64_t i = 0; i < size_; ++i) {
      const double value = values[static_cast<std::size_t>(i)];
      if (scale_ != nullptr)
        static_cast<uint8_t*>(data_)[first_ + i] = narrow_e4m3(value / scale);
      else
        static_cast<uint16_t*>(data_)[first_ + i] = narrow(static_cast<float>(value));
    }
  }

 private:
  void* data_;
  int64_t size_, first_ = 0;
  uint16_t* scale_ = nullptr;
};

// out (rows) = matrix (rows, x.size()) x
std::vector<double> times(const uint16_t* matrix, int64_t rows, const std::vector<double>& x) {
  std::vector<double> out(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < out.size(); ++i)
    for (std::size_t j = 0; j < x.size(); ++j) out[i] += static_cast<double>(widen(matrix[i * x.size() + j])) * x[j];
  return out;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Channel i of a head turned by chunk c: halves, not neighbouring pairs.
double rotated(const double* head, int64_t i, int64_t c, const kernels::RatLayerShape& s) {
  if (s.rope_base == 0) return head[i];
  const int64_t half = s.head_size / 2, j = i % half;
  const double angle =
      static_cast<double>(c) * std::pow(s.rope_base, -2.0 * static_cast<double>(j) / static_cast<double>(s.head_size));
  return i < half ? head[i] * std::cos(angle) - head[i + half] * std::sin(angle)
                  : head[i] * std::cos(angle) + head[i - half] * std::sin(angle);
}

// One head of one sequence; `proj` is z, v, g, q, k.
void step_head(const kernels::RatLayerStepArgs& a, const std::vector<double>& proj, int64_t b, int64_t h, double* y) {
  const kernels::RatLayerShape& s = a.shape;
  const int64_t P = s.head_size, D = s.channels(), position = *a.cache.position, c = position / s.chunk_len;
  const double* q = proj.data() + 3 * D + h % s.groups * P;
  const double* k = q + s.groups * P;
  std::vector<double> key(static_cast<std::size_t>(P)), value(key.size());
  double own = 0;
  for (int64_t i = 0; i < P; ++i) {
    const int64_t at = h * P + i;
    const double gate = sigmoid(proj[static_cast<std::size_t>(2 * D + at)] +
                                static_cast<double>(a.gate_bias[static_cast<std::size_t>(at)]));
    const auto next = [&](float& state, double input) {
      const double before = position % s.chunk_len == 0 ? 0 : static_cast<double>(state);
      return static_cast<double>(state = static_cast<float>(gate * before + (1 - gate) * input));
    };
    key[static_cast<std::size_t>(i)] = next(a.cache.state_k[b * D + at], k[i]);
    value[static_cast<std::size_t>(i)] = next(a.cache.state_v[b * D + at], proj[static_cast<std::size_t>(D + at)]);
    own += q[i] * key[static_cast<std::size_t>(i)];
  }
  const auto row = [&](bool of_keys, int64_t j) { return CacheRow(a.cache, s, of_keys, b, h, j); };
  std::vector<double> weights{std::exp(own / std::sqrt(static_cast<double>(P)))};
  double sum = weights[0];
  for (int64_t j = 0; j < c; ++j) {
    double score = 0;
    for (int64_t i = 0; i < P; ++i) score += rotated(q, i, c, s) * row(true, j).get(i);
    weights.push_back(std::exp(score / std::sqrt(static_cast<double>(P))));
    sum += weights.back();
  }
  for (int64_t i = 0; i < P; ++i) {
    y[i] = weights[0] * value[static_cast<std::size_t>(i)];
    for (int64_t j = 0; j < c; ++j) y[i] += weights[static_cast<std::size_t>(j + 1)] * row(false, j).get(i);
    y[i] *= sigmoid(proj[static_cast<std::size_t>(h * P + i)]) / sum;
  }
  if (position % s.chunk_len != s.chunk_len - 1) return;
  std::vector<double> turned(key.size());
  for (int64_t i = 0; i < P; ++i) turned[static_cast<std::size_t>(i)] = rotated(key.data(), i, c, s);
  row(true, c).set(turned);
  row(false, c).set(value);
}

Status step(const kernels::RatLayerStepArgs& a) {
  const kernels::RatLayerShape& s = a.shape;
  const int64_t D = s.channels();
  EXPECT_LT(*a.cache.position / s.chunk_len, a.cache.capacity) << "no room";
  EXPECT_EQ(*static_cast<const int32_t*>(a.cache.workspace), 0);
  for (int64_t b = 0; b < s.batch; ++b) {
    double squares = 0;
    for (int64_t d = 0; d < D; ++d) squares += std::pow(static_cast<double>(a.x.row(b)[d]), 2);
    std::vector<double> normed, y(static_cast<std::size_t>(D));
    for (int64_t d = 0; d < D; ++d)
      normed.push_back(static_cast<double>(a.x.row(b)[d]) * static_cast<double>(a.norm[static_cast<std::size_t>(d)]) /
                       std::sqrt(squares / static_cast<double>(D) + 1e-6));
    const auto proj = times(a.in_proj, 3 * D + 2 * s.groups * s.head_size, normed);
    for (int64_t h = 0; h < s.heads; ++h) step_head(a, proj, b, h, y.data() + h * s.head_size);
    const auto out = times(a.out_proj, D, y);
    for (int64_t d = 0; d < D; ++d)
      a.y.row(b)[d] =
          static_cast<float>(out[static_cast<std::size_t>(d)] + (a.residual ? static_cast<double>(a.x.row(b)[d]) : 0));
  }
  ++*a.cache.position;
  return ok();
}

// Prefill is the steps of its tokens.
Status whole(const kernels::RatLayerArgs& a) {
  const int64_t T = a.shape.tokens, D = a.shape.channels();
  EXPECT_EQ(*a.cache.position, 0);
  for (int64_t t = 0; t < T; ++t) {
    kernels::RatLayerStepArgs one{.shape = a.shape,
                                  .norm = a.norm,
                                  .gate_bias = a.gate_bias,
                                  .in_proj = a.in_proj,
                                  .out_proj = a.out_proj,
                                  .x = {},
                                  .y = {},
                                  .residual = a.residual,
                                  .cache = a.cache};
    one.x = {a.x.row(t), a.shape.batch, D, T * D};
    one.y = {a.y.row(t), a.shape.batch, D, T * D};
    RAT_TRY(step(one));
  }
  return ok();
}

const kernels::Backend& fusing_backend() {
  static const kernels::Backend backend = [] {
    kernels::Backend fusing = kernels::cpu_backend();
    fusing.fuses_rat_layer = [](const kernels::RatLayerShape&) { return true; };
    fusing.rat_layer_saved = [](const kernels::RatLayerShape&) { return std::size_t{64}; };
    fusing.rat_layer_step_workspace = [](const kernels::RatLayerShape&, int64_t) { return std::size_t{64}; };
    fusing.rat_layer = whole;
    fusing.rat_layer_step = step;
    return fusing;
  }();
  return backend;
}

// A rat mixer on that backend with the weights of a layer on the CPU, which are bf16 values.
class FusedRat {
 public:
  explicit FusedRat(const ModelConfig& config)
      : reference(test::layer_of(config)),
        rounded_(fusing_backend()),
        saved_(fusing_backend()),
        work_(fusing_backend()) {
    for (Parameter& p : reference->parameters()) {
      for (float& value : p.value) value = widen(narrow(value));
      all_.insert(all_.end(), p.value.begin(), p.value.end());
    }
    auto* at = all_.data();
    for (const Parameter& p : reference->parameters()) {
      parameters_.push_back({p.name, p.shape, {at, p.value.size()}, {}});
      at += p.value.size();
    }
    EXPECT_OK(rounded_.ensure(all_));
    weights_.value = {parameters_[3].value};
    mixer = (*find_mixer_type("rat"))->create(config, config.layers[0], fusing_backend());
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
    return dtype == kernels::CacheDtype::fp8 ? 2 * config.d_model + 4 * config.heads : 4 * config.d_model;
  }
};
const Kept all_kept[] = {{{}, 5e-3}, {kernels::CacheDtype::bf16, 5e-3}, {kernels::CacheDtype::fp8, 6e-2}};

TEST(FusedGeneration, GrowsItsCacheAndFollowsTheLayer) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  for (const char* name : {"rat:1", "rat:3", "rat:1000"})
    for (const int64_t batch : {1, 3}) {
      const ModelConfig config = test::config_of(name);
      FusedRat rat(config);
      const int64_t T = 150, D = 24, L = config.layers[0].chunk;
      ASSERT_TRUE(rat.mixer->fuses_generation(rat.pass(batch, 1)));
      const auto x = test::uniform(static_cast<std::size_t>(batch * T * D), 5, -2, 2);
      const auto want = test::forward(*rat.reference, x, batch, T);
      for (const Kept& kept : all_kept) {
        rat.cache_dtype = kept.dtype;
        for (const int64_t split : {0, 1, 63, 64, 140}) {
          SCOPED_TRACE(fmt::format("{} B {} split {}", name, batch, split));
          const auto state = rat.mixer->start(batch);
          EXPECT_LE(test::relative_error(rat.outputs(*state, x, batch, 0, split), want), kept.bound);
          EXPECT_EQ(state->bytes(), batch * (kept.bytes(config) * (T / L) + 2 * 4 * D));
          EXPECT_EQ(state->cache_dtype(), kept.dtype.value_or(kernels::CacheDtype::bf16));
          ASSERT_OK(state->clear());
          EXPECT_LE(test::relative_error(rat.outputs(*state, x, batch, 0, split), want), kept.bound) << "a second time";
        }
      }
    }
}

TEST(FusedGeneration, AnotherCacheDtypeNeedsAnotherState) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  FusedRat rat(test::config_of("rat:3"));
  std::vector<float> x(24, 0.5f), y(24);
  const auto state = rat.mixer->start(1);
  const auto step = [&](int64_t position, std::optional<kernels::CacheDtype> dtype) {
    rat.cache_dtype = dtype;
    const MixerPass pass = rat.pass(1, 1);
    const Status prepared = rat.mixer->prepare_step(pass, position, *state);
    return !prepared ? prepared
                     : rat.mixer->step_fused(pass, rat.layer(), rat.weights(), x.data(), *state, y.data(), true);
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

TEST(FusedGeneration, RepeatedStatesGoOnByThemselves) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  for (const auto& [name, kept] : {std::pair{"rat:1", all_kept[0]}, {"rat:3", all_kept[0]}, {"rat:1", all_kept[2]}})
    for (const int64_t prompt : {0, 10, 64}) {
      FusedRat rat(test::config_of(name));
      rat.cache_dtype = kept.dtype;
      const int64_t B = 3, T = 100, D = 24;
      auto x = test::uniform(static_cast<std::size_t>(B * T * D), 5, -2, 2);
      for (int64_t b = 1; b < B; ++b)
        std::copy_n(x.begin(), prompt * D, x.begin() + static_cast<std::ptrdiff_t>(b * T * D));
      const auto want = test::forward(*rat.reference, x, B, T);
      const auto one = rat.mixer->start(1);
      rat.outputs(*one, {x.begin(), x.begin() + static_cast<std::ptrdiff_t>(prompt * D)}, 1, 0, prompt);
      auto all = one->repeated(B);
      ASSERT_OK(all);
      EXPECT_EQ((*all)->bytes(), B * one->bytes());
      std::vector<float> rest, want_rest;
      for (int64_t b = 0; b < B; ++b)
        for (const auto& [from, to] :
             {std::pair{&x, &rest}, std::pair{const_cast<std::vector<float>*>(&want), &want_rest}})
          to->insert(to->end(), from->begin() + static_cast<std::ptrdiff_t>((b * T + prompt) * D),
                     from->begin() + static_cast<std::ptrdiff_t>((b + 1) * T * D));
      EXPECT_LE(test::relative_error(rat.outputs(**all, rest, B, prompt, 0), want_rest), kept.bound)
          << name << " " << prompt;
    }
}

TEST(FusedGeneration, AStateOfAnotherFormIsRefused) {
  if (const Status status = kernels::cpu_supports(kernels::Dtype::bf16); !status)
    GTEST_SKIP() << status.error().message;
  FusedRat rat(test::config_of("rat:3"));
  const auto state = rat.mixer->start(1);
  rat.outputs(*state, test::uniform(5 * 24, 5), 1, 0, 5);
  std::vector<float> projected(3 * 24 + 2 * 12), mixed(24);
  const MixerWeights weights{{rat.reference->parameters()[3].value}, {}};
  MixerPass single_ops = rat.pass(1, 1);
  single_ops.fused_weights = nullptr;
  EXPECT_FALSE(rat.mixer->prepare_step(single_ops, 5, *state));
  const auto plain = rat.mixer->start(1);
  EXPECT_OK(rat.mixer->prepare_step(single_ops, 0, *plain));
  EXPECT_OK(rat.mixer->step(single_ops, weights, 0, projected.data(), *plain, mixed.data()));
  EXPECT_FALSE(rat.mixer->prepare_step(rat.pass(1, 1), 1, *plain));
}

}  // namespace
}  // namespace rat
