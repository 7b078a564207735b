#include "core/single_layer.h"

#include <algorithm>
#include <utility>

#include "core/decode_state.h"
#include "core/sequence_layer.h"
#include "core/weights.h"

namespace rat {

struct SingleLayer::Impl {
  Impl(const ModelConfig& config, uint64_t seed, const kernels::Backend& backend)
      : d_model(config.d_model),
        exec{.backend = &backend},
        store(sequence_layer_weights(config, config.layers[0]), seed, backend),
        layer(config, config.layers[0], store.on_device(), backend),
        saved(backend),
        work(backend),
        x(backend),
        y(backend),
        grad(backend),
        rounded(backend),
        rounded_gradient{Buffer(backend)} {}

  int64_t d_model;
  kernels::Exec exec;
  ParameterStore store;
  SequenceLayer layer;
  Activations saved;
  Workspace work;
  kernels::Dtype dtype = kernels::Dtype::f32;
  std::optional<kernels::CacheDtype> cache_dtype;
  Buffer x, y, grad;  // x of the last forward
  RoundedWeights rounded;
  RoundedGradient rounded_gradient;
  int64_t loaded_batch = 0, loaded_tokens = 0;  // 0: x is another's
  bool gradient_loaded = false;                 // of the sum with the residual, in `grad` or `rounded_gradient`
  int64_t batch = 0, tokens = 0;                // 0: no forward to go back from

  MixerPass pass(int64_t b, int64_t t, const PassOptions& options) {
    MixerPass pass;
    pass.batch = b;
    pass.tokens = t;
    pass.saved = &saved;
    pass.work = &work;
    pass.times = options.times;
    if (options.times != nullptr) options.times->device = exec.backend->host ? nullptr : exec.backend;
    pass.exec = exec;
    pass.dtype = dtype;
    pass.cache_dtype = cache_dtype;
    return pass;
  }

  // What a pass runs with in bf16 where the backend computes whole layers; null elsewhere.
  Result<const RoundedWeights*> fused_weights() {
    if (dtype != kernels::Dtype::bf16 || exec.backend->rat_layer == nullptr) return nullptr;
    RAT_TRY(rounded.ensure(store.values()));
    return &rounded;
  }

  // Of what was loaded.
  Result<MixerPass> training_pass(const PassOptions& options) {
    MixerPass training = pass(loaded_batch, loaded_tokens, options);
    RAT_ASSIGN(training.fused_weights, fused_weights());
    training.rounded_gradient = &rounded_gradient;
    return training;
  }

  // Whether the half above would hand the gradient on in bf16 alone.
  bool gradient_in_bf16(const MixerPass& pass) const { return exec.backend->hands_on_bf16 && layer.fuses(pass); }

  Status prefill(DecodeState::Impl& cache, const float* in, int64_t t, float* out, bool residual,
                 const PassOptions& options) {
    MixerPass prefilling = pass(cache.batch, t, options);
    RAT_ASSIGN(prefilling.fused_weights, fused_weights());
    RAT_TRY(layer.prefill(prefilling, in, *cache.layers[0], out, residual));
    cache.position = t;
    return ok();
  }

  Status step(DecodeState::Impl& cache, const float* in, float* out, bool residual, const PassOptions& options) {
    MixerPass stepping = pass(cache.batch, 1, options);
    if (dtype == kernels::Dtype::bf16) {
      RAT_TRY(rounded.ensure(store.values()));
      stepping.rounded = &rounded;
    }
    RAT_ASSIGN(stepping.fused_weights, fused_weights());
    RAT_TRY(layer.prepare_step(stepping, cache.position, *cache.layers[0]));
    const auto work = [&] { return layer.step(stepping, cache.position, in, *cache.layers[0], out, residual); };
    const bool repeats = options.times == nullptr && layer.repeats_steps(stepping);
    RAT_TRY(repeats ? cache.step.run(cache.key_of(stepping, in, out), exec, work) : work());
    ++cache.position;
    return ok();
  }

  Result<float*> upload(std::span<const float> values, Buffer& to) const {
    float* data = to.ensure(static_cast<int64_t>(values.size()));
    RAT_TRY(kernels::upload({.host = values, .device = data}, exec));
    return data;
  }
  Status download(const float* from, std::span<float> to) const {
    return kernels::download({.rows = kernels::Input(from, 1, static_cast<int64_t>(to.size())), .host = to.data()},
                             exec);
  }

  Status check(std::span<const float> in, std::span<const float> out, int64_t b, int64_t t) const {
    const auto cells = static_cast<std::size_t>(b * t * d_model);
    if (b >= 1 && t >= 1 && in.size() == cells && out.size() == cells) return ok();
    return fail(ErrorCode::shape_mismatch, "({}, {}, {}) needs {} values; the input has {} and the output {}", b, t,
                d_model, cells, in.size(), out.size());
  }
};

SingleLayer::SingleLayer() = default;
SingleLayer::~SingleLayer() = default;

Result<std::unique_ptr<SingleLayer>> SingleLayer::create(const ModelConfig& config, uint64_t seed,
                                                         std::string_view device) {
  RAT_TRY(validate(config));
  RAT_ASSIGN(const kernels::Backend* const backend, kernels::find_backend(device));
  RAT_TRY(backend->supports(kernels::Dtype::f32));
  if (config.layers.size() != 1)
    return fail(ErrorCode::invalid_argument, "a single layer needs exactly one layer, but model.layers has {}",
                config.layers.size());
  std::unique_ptr<SingleLayer> layer(new SingleLayer);
  layer->impl_ = std::make_unique<Impl>(config, seed, *backend);
  return layer;
}

std::span<Parameter> SingleLayer::parameters() {
  impl_->rounded.invalidate();
  return impl_->store.parameters();
}

Status SingleLayer::set_dtype(kernels::Dtype dtype) {
  RAT_TRY(impl_->exec.backend->supports(dtype));
  impl_->dtype = dtype;
  impl_->gradient_loaded = false;  // the dtype decides in which form it is loaded
  return ok();
}

void SingleLayer::set_cache_dtype(std::optional<kernels::CacheDtype> dtype) { impl_->cache_dtype = dtype; }

Status SingleLayer::forward(std::span<const float> x, int64_t batch, int64_t tokens, std::span<float> y,
                            const PassOptions& options) {
  Impl& m = *impl_;
  RAT_TRY(m.check(x, y, batch, tokens));
  m.batch = m.loaded_batch = 0;
  RAT_TRY(m.store.prepare());
  RAT_ASSIGN(const float* const in, m.upload(x, m.x));
  float* const out = m.y.ensure(static_cast<int64_t>(y.size()));
  RAT_TRY(m.layer.forward(m.pass(batch, tokens, options), in, out, false));
  RAT_TRY(m.download(out, y));
  m.batch = batch;
  m.tokens = tokens;
  return ok();
}

Status SingleLayer::backward(std::span<const float> grad_out, std::span<float> grad_x, const PassOptions& options) {
  Impl& m = *impl_;
  if (m.batch == 0) return fail(ErrorCode::invalid_argument, "backward needs a forward pass before it, once each");
  RAT_TRY(m.check(grad_out, grad_x, m.batch, m.tokens));
  const MixerPass pass = m.pass(m.batch, m.tokens, options);
  m.batch = 0;
  RAT_TRY(m.store.prepare());
  m.store.device_writes_gradients();
  RAT_ASSIGN(const float* const grad, m.upload(grad_out, m.y));
  m.gradient_loaded = false;
  float* const to = m.grad.ensure(static_cast<int64_t>(grad_x.size()));
  RAT_TRY(m.layer.backward(pass, m.x.data(), grad, to, false));
  return m.download(to, grad_x);
}

Status SingleLayer::load(std::span<const float> x, int64_t batch, int64_t tokens) {
  Impl& m = *impl_;
  RAT_TRY(m.check(x, x, batch, tokens));
  RAT_TRY(m.store.prepare());
  RAT_TRY(m.upload(x, m.x));
  m.batch = 0;  // a forward pass waiting for its backward has lost its x
  m.gradient_loaded = false;
  m.loaded_batch = batch;
  m.loaded_tokens = tokens;
  return ok();
}

Status SingleLayer::load_gradient() {
  Impl& m = *impl_;
  if (m.loaded_batch == 0) return fail(ErrorCode::invalid_argument, "training needs an x that was loaded before");
  RAT_ASSIGN(const MixerPass pass, m.training_pass({}));
  const kernels::Input x(m.x.data(), pass.rows(), m.d_model);
  const int64_t values = x.rows * x.cols;
  m.rounded_gradient.current = false;
  if (m.gradient_in_bf16(pass)) {
    uint16_t* const rounded = m.rounded_gradient.of({nullptr, x.rows, x.cols}).rounded;
    const auto count = static_cast<std::size_t>(values);
    RAT_TRY(kernels::round_weights({.x = {x.data, count}, .out = {rounded, count}}, m.exec));
  } else {
    RAT_TRY(kernels::copy_rows({.x = x, .y = {m.grad.ensure(values), x.rows, x.cols}}, m.exec));
  }
  m.gradient_loaded = true;
  return ok();
}

Status SingleLayer::train_loaded(const PassOptions& options) {
  Impl& m = *impl_;
  if (m.loaded_batch == 0 || !std::exchange(m.gradient_loaded, false))
    return fail(ErrorCode::invalid_argument, "training needs an x and a gradient that were loaded before");
  RAT_ASSIGN(const MixerPass pass, m.training_pass(options));
  m.store.device_writes_gradients();
  const int64_t rows = pass.rows();
  float* const y = m.y.ensure(rows * m.d_model);
  RAT_TRY(m.layer.forward(pass, m.x.data(), y, true));
  float* const grad = m.gradient_in_bf16(pass) ? nullptr : m.grad.data();
  return m.layer.backward(pass, m.x.data(), grad, grad, true);
}

std::unique_ptr<DecodeState> SingleLayer::start_decoding(int64_t batch) const {
  auto state = std::make_unique<DecodeState::Impl>();
  state->batch = batch;
  state->layers.push_back(impl_->layer.start(std::max<int64_t>(0, batch)));
  return std::make_unique<DecodeState>(std::move(state));
}

Status SingleLayer::prefill(DecodeState& state, std::span<const float> x, int64_t tokens, std::span<float> y) {
  Impl& m = *impl_;
  DecodeState::Impl& cache = state.impl();
  RAT_TRY(cache.check_rows(x.size() / static_cast<std::size_t>(m.d_model), tokens));
  const int64_t B = cache.batch;
  RAT_TRY(m.check(x, y, B, tokens));
  if (cache.position > 0) {
    const auto D = static_cast<std::size_t>(m.d_model), T = static_cast<std::size_t>(tokens);
    std::vector<float> x_t(static_cast<std::size_t>(B) * D), y_t(x_t.size());
    for (std::size_t t = 0; t < T; ++t) {
      for (std::size_t b = 0; b < static_cast<std::size_t>(B); ++b)
        std::copy_n(x.begin() + static_cast<std::ptrdiff_t>((b * T + t) * D), D,
                    x_t.begin() + static_cast<std::ptrdiff_t>(b * D));
      RAT_TRY(decode(state, x_t, y_t));
      for (std::size_t b = 0; b < static_cast<std::size_t>(B); ++b)
        std::copy_n(y_t.begin() + static_cast<std::ptrdiff_t>(b * D), D,
                    y.begin() + static_cast<std::ptrdiff_t>((b * T + t) * D));
    }
    return ok();
  }
  m.batch = m.loaded_batch = 0;  // a forward pass waiting for its backward is overwritten
  RAT_TRY(m.store.prepare());
  RAT_ASSIGN(const float* const in, m.upload(x, m.x));
  float* const out = m.y.ensure(static_cast<int64_t>(y.size()));
  RAT_TRY(m.prefill(cache, in, tokens, out, false, {}));
  return m.download(out, y);
}

Status SingleLayer::decode(DecodeState& state, std::span<const float> x_t, std::span<float> y_t) {
  Impl& m = *impl_;
  DecodeState::Impl& cache = state.impl();
  RAT_TRY(cache.check_rows(x_t.size() / static_cast<std::size_t>(m.d_model), 1));
  RAT_TRY(m.check(x_t, y_t, cache.batch, 1));
  RAT_TRY(m.store.prepare());
  m.gradient_loaded = false;
  RAT_ASSIGN(const float* const in, m.upload(x_t, m.grad));
  float* const out = m.y.ensure(cache.batch * m.d_model);
  RAT_TRY(m.step(cache, in, out, false, {}));
  return m.download(out, y_t);
}

Status SingleLayer::prefill_loaded(DecodeState& state, const PassOptions& options) {
  Impl& m = *impl_;
  DecodeState::Impl& cache = state.impl();
  if (m.loaded_batch == 0 || m.loaded_batch != cache.batch || cache.position > 0)
    return fail(ErrorCode::invalid_argument,
                "{} loaded sequences cannot be prefilled into a state of {} at position {}; start one of as many",
                m.loaded_batch, cache.batch, cache.position);
  float* const out = m.y.ensure(m.loaded_batch * m.loaded_tokens * m.d_model);
  return m.prefill(cache, m.x.data(), m.loaded_tokens, out, true, options);
}

Status SingleLayer::decode_loaded(DecodeState& state, const PassOptions& options) {
  Impl& m = *impl_;
  DecodeState::Impl& cache = state.impl();
  if (m.loaded_tokens != 1 || m.loaded_batch != cache.batch)
    return fail(ErrorCode::invalid_argument,
                "{} loaded sequences of {} tokens are not one token for each of {} sequences", m.loaded_batch,
                m.loaded_tokens, cache.batch);
  return m.step(cache, m.x.data(), m.y.ensure(cache.batch * m.d_model), true, options);
}

}  // namespace rat
