// One mixer alone, without residual: x (B, T, D) -> y (B, T, D). Golden verification, layer benchmarks and the generic
// mixer tests (prefill equals decode, causality, limits) run through this door, so a new mixer gets them for free.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "core/model.h"

namespace rat {

class SingleLayer {
 public:
  // `config` must have exactly one layer. Parameter names are the short ones: "in_proj", "out_proj", "norm", "gate_bias".
  static Result<std::unique_ptr<SingleLayer>> create(const ModelConfig& config, uint64_t seed,
                                                     std::string_view device = "cpu");
  ~SingleLayer();

  std::span<Parameter> parameters();
  Status set_dtype(kernels::Dtype dtype);  // these two as Model's
  void set_cache_dtype(std::optional<kernels::CacheDtype> dtype);
  // Keeps what backward needs. x and y are (B, T, D).
  Status forward(std::span<const float> x, int64_t batch, int64_t tokens, std::span<float> y, const PassOptions& options = {});
  // After forward, once: gradient of sum(y * grad_out). Adds to Parameter::grad, writes grad_x (B, T, D).
  Status backward(std::span<const float> grad_out, std::span<float> grad_x, const PassOptions& options = {});
  // For timing on a device: brings x there; then, as often as wanted, makes x the gradient of the sum with the residual,
  // and goes forward and backward, in place, without copies. Fused where training would be.
  Status load(std::span<const float> x, int64_t batch, int64_t tokens);
  Status load_gradient();
  Status train_loaded(const PassOptions& options);
  // B sequences in lockstep: prefill x (B, T, D) -> y (B, T, D), then token by token x_t (B, D) -> y_t (B, D).
  std::unique_ptr<DecodeState> start_decoding(int64_t batch = 1) const;
  Status prefill(DecodeState& state, std::span<const float> x, int64_t tokens, std::span<float> y);
  Status decode(DecodeState& state, std::span<const float> x_t, std::span<float> y_t);
  // For timing: the loaded x (B, T, D) into an empty state of B sequences; the loaded x (B, 1, D) as their next token.
  // With the residual, without copies to or from the host.
  Status prefill_loaded(DecodeState& state, const PassOptions& options);
  Status decode_loaded(DecodeState& state, const PassOptions& options);

 private:
  SingleLayer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
