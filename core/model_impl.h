// The inside of Model. model.cpp trains and evaluates; model_decode.cpp generates; model_trace.cpp records.
#pragma once

#include <deque>
#include <vector>

#include "core/decode_state.h"
#include "core/feed_forward.h"
#include "core/model.h"
#include "core/sequence_layer.h"
#include "core/weights.h"

namespace rat {

struct Model::Impl {
  Impl(const ModelConfig& config_, uint64_t seed, const kernels::Backend& backend);

  struct Block {
    SequenceLayer sequence;
    FeedForward feed_forward;
    Activations saved;  // training only
  };

  ModelConfig config;
  kernels::Exec exec;
  ParameterStore store;
  std::deque<Block> blocks;
  Parameter *embedding, *norm, *head;
  Activations shared;  // of whichever layer runs now, in passes without backward
  Workspace work;
  kernels::Dtype dtype = kernels::Dtype::f32;
  std::optional<kernels::CacheDtype> cache_dtype;
  RoundedWeights rounded;
  RoundedGradient rounded_gradient;
  uint64_t layers_version = 0;  // counts set_layers: a decode state belongs to one

  MixerPass pass_for(int64_t batch, int64_t tokens, Activations& saved, const PassOptions& options);
  Status check_tokens(std::span<const int32_t> tokens) const;
  Status check_batch(const TokenBatch& batch) const;
  // That `ids` are `each` tokens for every sequence of a state of this model's layers.
  Status check_decoding(const DecodeState::Impl& state, std::span<const int32_t> ids, int64_t each) const;

  Status embed(std::span<const int32_t> tokens, float* x, const PassOptions& options);
  // Rounded weights for passes whose halves of blocks the backend fuses: those that train and those that evaluate, which
  // must not differ. Null where nothing is fused.
  Result<const RoundedWeights*> fused_weights();
  // Forward through all blocks without keeping activations; the stream ends in the returned buffer (B*T, D).
  // `after_layer(i, pass)` runs when layer i's mixer has run and its activations are still there; `after_block(i, x)`
  // when the block is done. With `cache`, fresh, the layers' states are loaded too.
  template <class AfterLayer, class AfterBlock>
  Result<float*> run_blocks(std::span<const int32_t> tokens, int64_t batch, const PassOptions& options,
                            const AfterLayer& after_layer, const AfterBlock& after_block,
                            const RoundedWeights* fused = nullptr, DecodeState::Impl* cache = nullptr);
  // What a step of decoding runs with: in bf16, rounds the weights if they may have changed.
  Result<MixerPass> decode_pass(int64_t batch, const PassOptions& options);
  // Final norm and head of `count` rows of the stream: logits (count, V) in the backend's memory.
  Status logits_of(const float* stream, int64_t count, float* logits, const MixerPass& pass);
  // Norm, head and loss over the stream; with grad_scale also the gradient of the stream, in `grad`.
  Status head_and_loss(const float* stream, const TokenBatch& batch, double scale, float* grad, Model::Evaluation& sums,
                       const PassOptions& options);
  // The same, read back to the host.
  Result<std::vector<float>> read_logits(const float* stream, int64_t count, const MixerPass& pass);
  int64_t head_rows(int64_t rows) const;  // rows of logits held at a time
};

Status stopped(const PassOptions& options);

template <class AfterLayer, class AfterBlock>
Result<float*> Model::Impl::run_blocks(std::span<const int32_t> tokens, int64_t batch, const PassOptions& options,
                                       const AfterLayer& after_layer, const AfterBlock& after_block,
                                       const RoundedWeights* fused, DecodeState::Impl* cache) {
  const auto rows = static_cast<int64_t>(tokens.size());
  RAT_TRY(store.prepare());
  float* x = work[work_stream].ensure(rows * config.d_model);
  RAT_TRY(embed(tokens, x, options));
  MixerPass pass = pass_for(batch, rows / batch, shared, options);
  pass.fused_weights = fused;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    RAT_TRY(stopped(options));
    RAT_TRY(cache != nullptr ? blocks[i].sequence.prefill(pass, x, *cache->layers[i], x, true)
                             : blocks[i].sequence.forward(pass, x, x, true));
    RAT_TRY(after_layer(i, pass));
    RAT_TRY(stopped(options));
    RAT_TRY(blocks[i].feed_forward.forward(pass, x, x, false));
    RAT_TRY(after_block(i, x));
  }
  return x;
}

}  // namespace rat
