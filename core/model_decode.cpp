#include <algorithm>

#include "core/decode_state.h"
#include "core/model_impl.h"

namespace rat {

std::unique_ptr<DecodeState> Model::start_decoding(int64_t batch) const {
  auto state = std::make_unique<DecodeState::Impl>();
  state->batch = batch;
  state->layers_version = impl_->layers_version;
  for (const Impl::Block& block : impl_->blocks)
    state->layers.push_back(block.sequence.start(std::max<int64_t>(0, batch)));
  return std::make_unique<DecodeState>(std::move(state));
}

// A fresh state is loaded from one parallel forward pass; a started one continues token by token.
Result<std::vector<float>> Model::prefill(DecodeState& state, std::span<const int32_t> tokens,
                                          const PassOptions& options) {
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "prefill needs at least one token");
  DecodeState::Impl& cache = state.impl();
  const int64_t B = cache.batch, T = static_cast<int64_t>(tokens.size()) / std::max<int64_t>(1, B);
  RAT_TRY(impl_->check_decoding(cache, tokens, T));
  if (cache.position > 0) {
    std::vector<int32_t> column(static_cast<std::size_t>(B));
    for (int64_t t = 0;; ++t) {
      for (int64_t b = 0; b < B; ++b)
        column[static_cast<std::size_t>(b)] = tokens[static_cast<std::size_t>(b * T + t)];
      if (t + 1 == T) return decode(state, column, options);
      RAT_TRY(decode(state, column, options));
    }
  }
  const auto nothing = [](std::size_t, const auto&) { return ok(); };
  RAT_ASSIGN(const RoundedWeights* const fused, impl_->fused_weights());
  const auto stream = impl_->run_blocks(tokens, B, options, nothing, nothing, fused, &cache);
  if (!stream) {  // a stopped pass leaves the state as it was: empty
    for (std::size_t i = 0; i < cache.layers.size(); ++i) cache.layers[i] = impl_->blocks[i].sequence.start(B);
    return stream.error();
  }
  cache.position = T;
  RAT_ASSIGN(const MixerPass last, impl_->decode_pass(B, options));
  const int64_t D = impl_->config.d_model;
  const kernels::Output rows(impl_->work[work_step].ensure(B * D), B, D);  // of the last tokens
  RAT_TRY(kernels::copy_rows({.x = kernels::Input(*stream + (T - 1) * D, B, D, T * D), .y = rows}, impl_->exec));
  return impl_->read_logits(rows.data, B, last);
}

Result<std::vector<float>> Model::decode(DecodeState& state, std::span<const int32_t> tokens,
                                         const PassOptions& options) {
  DecodeState::Impl& cache = state.impl();
  RAT_TRY(impl_->check_decoding(cache, tokens, 1));
  RAT_TRY(stopped(options));  // before the first layer only: a half-done step could not be undone
  RAT_ASSIGN(const MixerPass pass, impl_->decode_pass(cache.batch, options));
  float* x = impl_->work[work_stream].ensure(cache.batch * impl_->config.d_model);
  RAT_TRY(impl_->embed(tokens, x, options));
  float* const logits = impl_->work[work_logits].ensure(cache.batch * impl_->config.vocab);
  RAT_TRY(impl_->decode_blocks(cache, pass, x, logits));
  ++cache.position;
  return impl_->downloaded(logits, cache.batch);
}

// All blocks, norm and head, as a replay where every layer's step is the same work each time.
Status Model::Impl::decode_blocks(DecodeState::Impl& cache, const MixerPass& pass, float* x, float* logits) {
  bool repeats = pass.times == nullptr;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    RAT_TRY(blocks[i].sequence.prepare_step(pass, cache.position, *cache.layers[i]));
    repeats = repeats && blocks[i].sequence.repeats_steps(pass);
  }
  const auto step = [&]() -> Status {
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      RAT_TRY(blocks[i].sequence.step(pass, cache.position, x, *cache.layers[i], x, true));
      RAT_TRY(blocks[i].feed_forward.forward(pass, x, x, false));
    }
    return logits_of(x, cache.batch, logits, pass);
  };
  return repeats ? cache.step.run(cache.key_of(pass, x, logits), pass.exec, step) : step();
}

Status Model::Impl::check_decoding(const DecodeState::Impl& state, std::span<const int32_t> ids, int64_t each) const {
  RAT_CHECK(state.layers.size() == blocks.size(), "a decode state belongs to the model that started it");
  RAT_TRY(state.check_rows(ids.size(), each));
  RAT_TRY(check_tokens(ids));
  if (state.layers_version == layers_version) return ok();
  return fail(ErrorCode::invalid_argument,
              "the model's layers were changed after this decode state was started; start another");
}

}  // namespace rat
