#include "core/single_layer.h"

#include "core/decode_state.h"
#include "core/sequence_layer.h"
#include "core/weights.h"

namespace rat {

struct SingleLayer::Impl {
  Impl(const ModelConfig& config, uint64_t seed)
      : d_model(config.d_model),
        store(sequence_layer_weights(config, config.layers[0]), seed),
        layer(config, config.layers[0], store.parameters()) {}

  int64_t d_model;
  ParameterStore store;
  SequenceLayer layer;
  Activations saved;
  Workspace work;
  kernels::Dtype dtype = kernels::Dtype::f32;
  RoundedWeights rounded;
  std::vector<float> x;           // of the last forward
  int64_t batch = 0, tokens = 0;  // 0: no forward to go back from

  MixerPass pass(int64_t b, int64_t t, const PassOptions& options) {
    MixerPass pass;
    pass.batch = b;
    pass.tokens = t;
    pass.saved = &saved;
    pass.work = &work;
    pass.times = options.times;
    pass.dtype = dtype;
    return pass;
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

Result<std::unique_ptr<SingleLayer>> SingleLayer::create(const ModelConfig& config, uint64_t seed) {
  RAT_TRY(validate(config));
  if (config.layers.size() != 1)
    return fail(ErrorCode::invalid_argument, "a single layer needs exactly one layer, but model.layers has {}",
                config.layers.size());
  std::unique_ptr<SingleLayer> layer(new SingleLayer);
  layer->impl_ = std::make_unique<Impl>(config, seed);
  return layer;
}

std::span<Parameter> SingleLayer::parameters() {
  impl_->rounded.invalidate();
  return impl_->store.parameters();
}

Status SingleLayer::set_dtype(kernels::Dtype dtype) {
  RAT_TRY(kernels::cpu_supports(dtype));
  impl_->dtype = dtype;
  return ok();
}

Status SingleLayer::forward(std::span<const float> x, int64_t batch, int64_t tokens, std::span<float> y,
                            const PassOptions& options) {
  RAT_TRY(impl_->check(x, y, batch, tokens));
  impl_->batch = 0;
  impl_->x.assign(x.begin(), x.end());
  RAT_TRY(impl_->layer.forward(impl_->pass(batch, tokens, options), impl_->x.data(), y.data(), false));
  impl_->batch = batch;
  impl_->tokens = tokens;
  return ok();
}

Status SingleLayer::backward(std::span<const float> grad_out, std::span<float> grad_x, const PassOptions& options) {
  if (impl_->batch == 0) return fail(ErrorCode::invalid_argument, "backward needs a forward pass before it, once each");
  RAT_TRY(impl_->check(grad_out, grad_x, impl_->batch, impl_->tokens));
  const MixerPass pass = impl_->pass(impl_->batch, impl_->tokens, options);
  impl_->batch = 0;
  return impl_->layer.backward(pass, impl_->x.data(), grad_out.data(), grad_x.data(), false);
}

std::unique_ptr<DecodeState> SingleLayer::start_decoding() const {
  auto state = std::make_unique<DecodeState::Impl>();
  state->layers.push_back(impl_->layer.start());
  return std::make_unique<DecodeState>(std::move(state));
}

Status SingleLayer::prefill(DecodeState& state, std::span<const float> x, int64_t tokens, std::span<float> y) {
  RAT_TRY(impl_->check(x, y, 1, tokens));
  DecodeState::Impl& cache = state.impl();
  const auto D = static_cast<std::size_t>(impl_->d_model);
  if (cache.position > 0) {
    for (std::size_t t = 0; t < static_cast<std::size_t>(tokens); ++t)
      RAT_TRY(decode(state, x.subspan(t * D, D), y.subspan(t * D, D)));
    return ok();
  }
  impl_->batch = 0;  // a forward pass waiting for its backward is overwritten
  const MixerPass pass = impl_->pass(1, tokens, {});
  RAT_TRY(impl_->layer.forward(pass, x.data(), y.data(), false));
  RAT_TRY(impl_->layer.fill(pass, *cache.layers[0]));
  cache.position = tokens;
  return ok();
}

Status SingleLayer::decode(DecodeState& state, std::span<const float> x_t, std::span<float> y_t) {
  RAT_TRY(impl_->check(x_t, y_t, 1, 1));
  DecodeState::Impl& cache = state.impl();
  MixerPass pass = impl_->pass(1, 1, {});
  if (impl_->dtype == kernels::Dtype::bf16) {
    RAT_TRY(impl_->rounded.ensure(impl_->store.values()));
    pass.rounded = &impl_->rounded;
  }
  RAT_TRY(impl_->layer.step(pass, cache.position, x_t.data(), *cache.layers[0], y_t.data(), false));
  ++cache.position;
  return ok();
}

}  // namespace rat
