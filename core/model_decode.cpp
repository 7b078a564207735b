#include <algorithm>

#include "core/decode_state.h"
#include "core/model_impl.h"

namespace rat {
namespace {

Status same_layers(const DecodeState::Impl& state, uint64_t version) {
  if (state.layers_version == version) return ok();
  return fail(ErrorCode::invalid_argument,
              "the model's layers were changed after this decode state was started; start another");
}

}  // namespace

std::unique_ptr<DecodeState> Model::start_decoding() const {
  auto state = std::make_unique<DecodeState::Impl>();
  state->layers_version = impl_->layers_version;
  for (const Impl::Block& block : impl_->blocks) state->layers.push_back(block.sequence.start());
  return std::make_unique<DecodeState>(std::move(state));
}

// A fresh state is loaded from one parallel forward pass; a started one continues token by token.
Result<std::vector<float>> Model::prefill(DecodeState& state, std::span<const int32_t> tokens,
                                          const PassOptions& options) {
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "prefill needs at least one token");
  RAT_TRY(impl_->check_tokens(tokens));
  DecodeState::Impl& cache = state.impl();
  RAT_CHECK(cache.layers.size() == impl_->blocks.size(), "a decode state belongs to the model that started it");
  RAT_TRY(same_layers(cache, impl_->layers_version));
  if (cache.position > 0) {
    for (const int32_t token : tokens.first(tokens.size() - 1)) RAT_TRY(decode(state, token, options));
    return decode(state, tokens.back(), options);
  }
  const auto fill = [&](std::size_t i, const MixerPass& pass) {
    return impl_->blocks[i].sequence.fill(pass, *cache.layers[i]);
  };
  const auto nothing = [](std::size_t, const float*) { return ok(); };
  const auto stream = impl_->run_blocks(tokens, 1, options, fill, nothing);
  if (!stream) {  // a stopped pass leaves the state as it was: empty
    for (std::size_t i = 0; i < cache.layers.size(); ++i) cache.layers[i] = impl_->blocks[i].sequence.start();
    return stream.error();
  }
  cache.position = static_cast<int64_t>(tokens.size());
  RAT_ASSIGN(const MixerPass last, impl_->decode_pass(options));
  return impl_->read_logits(*stream + (cache.position - 1) * impl_->config.d_model, 1, last);
}

Result<std::vector<float>> Model::decode(DecodeState& state, int32_t token, const PassOptions& options) {
  RAT_TRY(impl_->check_tokens({&token, 1}));
  RAT_TRY(stopped(options));  // before the first layer only: a half-done step could not be undone
  DecodeState::Impl& cache = state.impl();
  RAT_CHECK(cache.layers.size() == impl_->blocks.size(), "a decode state belongs to the model that started it");
  RAT_TRY(same_layers(cache, impl_->layers_version));
  RAT_ASSIGN(const MixerPass pass, impl_->decode_pass(options));
  float* x = impl_->work[work_stream].ensure(impl_->config.d_model);
  RAT_TRY(impl_->embed({&token, 1}, x, options));
  for (std::size_t i = 0; i < impl_->blocks.size(); ++i) {
    RAT_TRY(impl_->blocks[i].sequence.step(pass, cache.position, x, *cache.layers[i], x, true));
    RAT_TRY(impl_->blocks[i].feed_forward.forward(pass, x, x, false));
  }
  ++cache.position;
  return impl_->read_logits(x, 1, pass);
}

}  // namespace rat
