// The language model: embedding -> blocks (norm, mixer, add, norm, feed-forward, add) -> norm -> untied head.
// Shapes: tokens (B, T) int32; logits (B, T, V). One Model is used by one thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/op_times.h"
#include "core/stop.h"
#include "core/token_batch.h"
#include "core/trace/snapshot.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/dtype.h"
#include "kernels/base/status.h"

namespace rat {

// A weight with its gradient. Names are the published keys: "backbone.layers.0.seq_layer.in_proj.weight".
struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
  std::span<float> value;
  std::span<float> grad;
};

// What one pass needs from its caller. All pointers may be null.
struct PassOptions {
  const StopFlag* stop = nullptr;  // polled between layers; a stopped pass returns ErrorCode::cancelled
  OpTimes* times = nullptr;
};

class DecodeState;

class Model {
 public:
  // Published initialisation from `seed` (gate bias log U(1, L-1)); same seed, same bits.
  // `device`: a backend of kernels/backend_list.cpp, where weights lie and passes run.
  static Result<std::unique_ptr<Model>> create(const ModelConfig& config, uint64_t seed,
                                               std::string_view device = "cpu");
  ~Model();

  const ModelConfig& config() const;
  // Other settings of the layers on the same weights: RAT+ dilation, window and initial tokens, the window of swa and
  // rattention, RAT's chunk length, positions. Refused where a layer would need other weights. Decode states of before
  // cannot be continued.
  Status set_layers(std::span<const LayerConfig> layers);
  // On the host, up to date. Values may be written until the next pass: what passes keep of them is made again then. With
  // a device this copies all of them, and throws kernels::DeviceFailure when the device has failed.
  std::span<Parameter> parameters();
  std::span<const Parameter> parameters() const;
  // Where passes compute, for an optimizer that is about to change them there.
  Result<std::span<const Parameter>> parameters_to_update();
  const kernels::Exec& exec() const;
  int64_t parameter_count() const;
  // In which precision matrix products are computed from now on; weights, optimizer and everything else stay f32.
  // Refused where the device cannot. A new model computes in f32.
  Status set_dtype(kernels::Dtype dtype);
  kernels::Dtype dtype() const;
  // In which precision decode states that begin from now on keep keys and values; nothing: that in which their layers
  // compute. Where a layer cannot, prefill and decode say so.
  void set_cache_dtype(std::optional<kernels::CacheDtype> dtype);
  Status zero_gradients();

  // Mean cross-entropy in nats over the targets that are not ignored; adds `scale` times its gradient to every
  // Parameter::grad. A stopped pass leaves values untouched and gradients to be zeroed by the caller.
  Result<double> loss_and_gradients(const TokenBatch& batch, double scale, const PassOptions& options = {});
  // Sum of cross-entropies in nats, how many targets, and how many were the argmax. No gradient memory is touched.
  struct Evaluation {
    double loss_sum = 0;
    int64_t targets = 0;
    int64_t correct = 0;
  };
  Result<Evaluation> evaluate(const TokenBatch& batch, const PassOptions& options = {});
  // (B, T, V) logits of `tokens` (B, T).
  Result<std::vector<float>> logits(std::span<const int32_t> tokens, int64_t batch, const PassOptions& options = {});

  // One forward pass over one sequence, recording what `request` names. Fills model, tokens, tensors, dtype, device,
  // kernel_path and cost_ms of the snapshot; the caller fills the rest. Works with an empty request.
  Result<TraceSnapshot> trace(std::span<const int32_t> tokens, const ProbeRequest& request,
                              const PassOptions& options = {});

  // Prefill and one-token decode for B sequences in lockstep: all at the same position, every weight read once a step
  // for all. The cache holds chunk-end states plus the running state (rat), keys and values (attention), the last W+1
  // of them (swa), the running state (rnn).
  std::unique_ptr<DecodeState> start_decoding(int64_t batch = 1) const;
  // Appends `tokens` (B, T), T at least one, to the state; returns the logits (B, V) after the last ones.
  Result<std::vector<float>> prefill(DecodeState& state, std::span<const int32_t> tokens, const PassOptions& options = {});
  // Appends `tokens` (B); returns the logits (B, V) after them.
  Result<std::vector<float>> decode(DecodeState& state, std::span<const int32_t> tokens,
                                    const PassOptions& options = {});
  Result<std::vector<float>> decode(DecodeState& state, int32_t token, const PassOptions& options = {}) {
    return decode(state, std::span(&token, 1), options);
  }

 private:
  Model();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether a model of this configuration may take these layers: see Model::set_layers.
Status check_layer_change(const ModelConfig& config, std::span<const LayerConfig> layers);
// One sentence for whoever reads numbers of changed layers; empty when nothing changed.
std::string layer_change_note(const std::vector<LayerConfig>& trained, const std::vector<LayerConfig>& now);

// Everything generation must remember between tokens.
class DecodeState {
 public:
  struct Impl;
  explicit DecodeState(std::unique_ptr<Impl> impl);
  ~DecodeState();
  int64_t batch() const;        // sequences
  int64_t position() const;     // tokens seen of each
  int64_t cache_bytes() const;  // bytes in use now, all layers and sequences
  std::string cache_dtype() const;  // in which the layers keep it: "bf16", "bf16, f32"
  // Of one sequence: the state of `batch` sequences that all went as it did, to go on in different ways.
  Result<std::unique_ptr<DecodeState>> repeated(int64_t batch) const;
  // Back to before the first token; the memory stays for the next ones.
  Status restart();
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
