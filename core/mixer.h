// A sequence mixer: what a block does between tokens. One file in core/mixers/ plus one line in core/mixer_list.cpp
// adds a mixer; validation, weights, cost, probes, prefill, decode and the generic tests follow from its MixerType.
//
// Every mixer sits between two projections that core/sequence_layer.cpp owns:
//   y = out_proj( mix( in_proj( rms_norm(x) ) ) )
// so a mixer sees `projected` (B, T, N), whose column blocks it defines, and writes `mixed` (B, T, D).
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/config.h"
#include "core/rounded_weights.h"
#include "core/tensor.h"
#include "core/trace/snapshot.h"
#include "kernels/backend.h"
#include "kernels/base/cache_dtype.h"
#include "kernels/base/dtype.h"
#include "kernels/base/rows.h"
#include "kernels/base/stream_gradient.h"

namespace rat {

struct OpTimes;
struct Parameter;

enum class Init : uint8_t {
  normal,  // N(0, 0.02)
  ones,
  gate_bias,  // log U(1, L-1): sigmoid of it keeps a state for 2 .. L tokens; see init_weights in core/weights.cpp
};

// One row of a weight table. `name` is the short name ("gate_bias"), `key` the published one below its layer.
struct WeightSpec {
  std::string name;
  std::string key;
  std::vector<int64_t> shape;
  Init init = Init::normal;
  int64_t gate_span = 0;  // L of Init::gate_bias
};

// What one mixer costs for sequences of T tokens, projections not included.
struct MixerCost {
  double flops_per_token = 0;          // forward, mean over the T tokens
  double decode_flops = 0;             // one step at position T
  int64_t cache_bytes = 0;             // one sequence after T tokens
  int64_t saved_floats_per_token = 0;  // kept for backward besides `projected` and `mixed`
};

// The gradient of the residual stream in bf16, which fused halves of blocks hand to one another: a copy of the f32 one, or,
// on a backend that hands_on_bf16, the one that counts.
struct RoundedGradient {
  Buffer memory;
  bool current = false;  // it is that of the stream as it is now

  uint16_t* data() { return reinterpret_cast<uint16_t*>(memory.data()); }
  // With `grad` (N, D), for a fused half, which leaves it current.
  kernels::StreamGradient of(const kernels::Output& grad) {
    memory.ensure((grad.rows * grad.cols + 1) / 2);
    return {grad, data(), std::exchange(current, true)};
  }
  // For whoever reads and changes `grad` (N, D) itself.
  Status leave_to(const kernels::Output& grad, const kernels::Exec& exec) {
    if (!std::exchange(current, false) || !exec.backend->hands_on_bf16) return ok();
    return kernels::widen({.x = data(), .y = grad}, exec);
  }
};

// What a pass over (B, T) gives a mixer. `saved` belongs to one layer when training and is shared otherwise.
struct MixerPass {
  int64_t batch = 0;
  int64_t tokens = 0;
  Activations* saved = nullptr;
  Workspace* work = nullptr;
  OpTimes* times = nullptr;
  kernels::Exec exec;
  kernels::Dtype dtype = kernels::Dtype::f32;  // of the projections' products
  const RoundedWeights* rounded = nullptr;     // decoding in bf16
  const RoundedWeights* fused_weights = nullptr;  // in bf16 on a backend that fuses what it can
  RoundedGradient* rounded_gradient = nullptr;    // then also, in backward
  std::optional<kernels::CacheDtype> cache_dtype = {};  // of generation; nothing: that of the layer's computation

  int64_t rows() const { return batch * tokens; }
  // For a half that is not fused.
  Status take_gradient(const kernels::Output& grad) const {
    return rounded_gradient == nullptr ? ok() : rounded_gradient->leave_to(grad, exec);
  }
};

// A mixer's own weights beside the projections, in the order of MixerType::extra_weights.
struct MixerWeights {
  std::vector<std::span<const float>> value;
  std::vector<std::span<float>> grad;
};

// What generation remembers of one layer, for B sequences at the same position.
class MixerState {
 public:
  virtual ~MixerState() = default;
  virtual int64_t bytes() const = 0;  // of all sequences
  virtual kernels::CacheDtype cache_dtype() const { return kernels::CacheDtype::f32; }
  // The state of B sequences that all went as the one sequence of this state did.
  virtual Result<std::unique_ptr<MixerState>> repeated(int64_t batch) const = 0;
  // Back to before the first token; the memory stays for the next ones.
  virtual Status clear() = 0;
};

// The weights of a sequence layer, for mixers whose whole layer a backend may fuse.
struct LayerWeights {
  const Parameter *in_proj, *out_proj, *norm;
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  // Whether this pass's backend computes the whole layer, projections included, in one call: then the two below are
  // called instead of forward and backward, with x and y (or the gradient, in place) the residual stream.
  virtual bool fuses(const MixerPass&) const { return false; }
  virtual Status forward_fused(const MixerPass&, const LayerWeights&, const MixerWeights&, const float*, float*) {
    return fail(ErrorCode::unsupported, "this mixer has no fused layer");
  }
  virtual Status backward_fused(const MixerPass&, const LayerWeights&, const MixerWeights&, const float*, float*) {
    return fail(ErrorCode::unsupported, "this mixer has no fused layer");
  }
  // Writes `mixed`. May activate columns of `projected` in place; what backward needs goes to pass.saved.
  virtual Status forward(const MixerPass& pass, const MixerWeights& weights, float* projected, float* mixed) = 0;
  // `projected`, `mixed` and pass.saved are those of forward. Writes all of grad_projected; adds to weights.grad.
  virtual Status backward(const MixerPass& pass, const MixerWeights& weights, const float* projected,
                          const float* mixed, const float* grad_mixed, float* grad_projected) = 0;
  // What a (T, D) probe of the forward pass just done (B = 1) shows: rows of `projected` or of pass.saved.
  virtual kernels::Input rows_of(const MixerPass& pass, Probe probe, const float* projected) const = 0;
  // Takes over the layer's chunk, window, dilation, initial tokens and positions; the weights stay.
  virtual void set_layer(const ModelConfig& config, const LayerConfig& layer) = 0;
  // Columns K of the attention probe for T tokens, and the weights of one head of that pass: (T, K), NaN where masked.
  virtual int64_t attention_columns(int64_t tokens) const = 0;
  virtual Status attention_of_head(const MixerPass& pass, const float* projected, int64_t head, float* weights) = 0;

  virtual std::unique_ptr<MixerState> start(int64_t batch) const = 0;
  // Loads the state that a forward pass over B fresh sequences ends in.
  virtual Status fill(const MixerPass& pass, const float* projected, MixerState& state) = 0;
  // One token of every sequence (pass.tokens is 1), all at 0-based `position`: projected (B, N) -> mixed (B, D).
  virtual Status step(const MixerPass& pass, const MixerWeights& weights, int64_t position, float* projected,
                      MixerState& state, float* mixed) = 0;
  // Whether the backend computes the whole layer when it generates: then the two below are called instead of forward
  // with fill, and of step. x, y (B*T, D) or (B, D); with `residual`, y = x + layer(x).
  virtual bool fuses_generation(const MixerPass&) const { return false; }
  // Before each step, the host's part of it: room in the state. Then the step of a fused layer is the same launches with
  // the same addresses for as long as no room had to be taken, and may be a replay of those.
  virtual Status prepare_step(const MixerPass&, int64_t, MixerState&) { return ok(); }
  virtual Status prefill_fused(const MixerPass&, const LayerWeights&, const MixerWeights&, const float*, MixerState&,
                               float*, bool) {
    return fail(ErrorCode::unsupported, "this mixer has no fused layer");
  }
  virtual Status step_fused(const MixerPass&, const LayerWeights&, const MixerWeights&, const float*, MixerState&, float*,
                            bool) {
    return fail(ErrorCode::unsupported, "this mixer has no fused layer");
  }
};

struct MixerType {
  std::string_view name;
  std::string_view description;  // one line for pickers and help
  bool uses_chunk = false;       // which LayerConfig fields matter; the first of chunk, dilation and window that does
  bool uses_dilation = false;    // is the number after the colon of the shorthand
  bool uses_window = false;
  bool uses_initial = false;
  bool uses_positions = true;    // RoPE or none
  bool uses_groups = false;      // which of ModelConfig's
  bool uses_kv_heads = false;
  bool uses_heads = true;
  int64_t default_window = 128;
  std::vector<Probe> probes;
  int64_t (*projected_width)(const ModelConfig& config) = nullptr;  // N
  std::vector<WeightSpec> (*extra_weights)(const ModelConfig& config, const LayerConfig& layer) = nullptr;
  // How many columns of the attention probe token t sees; null without that probe.
  int64_t (*columns_seen)(const LayerConfig& layer, int64_t t) = nullptr;
  MixerCost (*cost)(const ModelConfig& config, const LayerConfig& layer, int64_t tokens) = nullptr;
  // `backend`: where its tables and states lie.
  std::unique_ptr<Mixer> (*create)(const ModelConfig& config, const LayerConfig& layer,
                                   const kernels::Backend& backend) = nullptr;
};

}  // namespace rat
