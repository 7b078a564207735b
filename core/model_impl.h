// The inside of Model. model.cpp trains and evaluates; model_decode.cpp generates; model_trace.cpp records.
#pragma once

#include <deque>
#include <vector>

#include "core/decode_state.h"
#include "core/feed_forward.h"
#include "core/model.h"
#include "core/sequence_layer.h"
#include "core/weights.h"
#include "kernels/recording/repeated_work.h"

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
  kernels::RepeatedWork forward_work, backward_work;  // the blocks, training
  uint64_t layers_version = 0;  // counts set_layers: a decode state belongs to one
  int64_t settings = 0;         // number of the layers' settings among those that the model had
  std::vector<std::vector<LayerConfig>> known_settings;  // none: it never had others

  int64_t number_of_settings();
  MixerPass pass_for(int64_t batch, int64_t tokens, Activations& saved, const PassOptions& options);
  Status check_tokens(std::span<const int32_t> tokens) const;
  Status check_batch(const TokenBatch& batch) const;
  // That `ids` are `each` tokens for every sequence of a state of this model's layers.
  Status check_decoding(const DecodeState::Impl& state, std::span<const int32_t> ids, int64_t each) const;

  // What a training step runs the blocks with.
  struct TrainingPass {
    MixerPass pass;
    const PassOptions& options;
    MixerPass of(Block& block) const {
      MixerPass own = pass;
      own.saved = &block.saved;
      return own;
    }
  };
  // The stream that block i reads, or, after the last, that the head reads.
  float* input_of(std::size_t i, int64_t rows) {
    Buffer& buffer = i < blocks.size() ? blocks[i].saved[saved_x] : work[work_stream];
    return buffer.ensure(rows * config.d_model);
  }
  // All blocks, from input_of(0) to the stream that the head reads; and back, from its gradient to that of input_of(0),
  // in place.
  Status train_forward(const TrainingPass& training);
  Status train_backward(const TrainingPass& training, float* grad);
  // Whether the gradient that train_backward ends with is in rounded_gradient and not in `grad`.
  bool leaves_bf16(const TrainingPass& training);

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
  // One token of every sequence, in x (B, D), through all blocks, norm and head: logits (B, V).
  Status decode_blocks(DecodeState::Impl& cache, const MixerPass& pass, float* x, float* logits);
  // Final norm and head of `count` rows of the stream: logits (count, V) in the backend's memory.
  Status logits_of(const float* stream, int64_t count, float* logits, const MixerPass& pass);
  struct LossPass {
    const TokenBatch& batch;
    double scale;  // of the gradient
    const RoundedWeights* fused_weights;
    const PassOptions& options;
  };
  // Norm, head and loss over the stream; with `grad` also the gradient of the stream, there.
  Status head_and_loss(const LossPass& loss, const float* stream, float* grad, Model::Evaluation& sums);
  Status loss_head_unfused(const kernels::LossHeadArgs& args, const PassOptions& options);
  // Norm and head, read back to the host.
  Result<std::vector<float>> read_logits(const float* stream, int64_t count, const MixerPass& pass);
  Result<std::vector<float>> downloaded(const float* logits, int64_t count);
  int64_t head_rows() const;  // rows of logits held at a time, at most
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
