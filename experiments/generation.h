// One generation: the decode states of a prompt's samples and what has been drawn after it. Used by InspectSession's
// thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model.h"
#include "core/sampler.h"
#include "experiments/session.h"

namespace rat {

// Typed text in the tokenizer's ids; without a tokenizer, numbers separated by blanks.
Result<std::vector<int32_t>> tokens_from_text(const std::string& text, const Tokenizer* tokenizer, int64_t vocab);

class Generation {
 public:
  // Reads the prompt. `stop` cancels that.
  static Result<std::unique_ptr<Generation>> start(Model& model, std::vector<int32_t> prompt,
                                                   const GenerationConfig& config, const StopFlag* stop);
  // Draws one token of each sample and feeds it back.
  Status next(Model& model);
  int64_t samples() const { return config_.samples; }
  kernels::Dtype dtype() const { return dtype_; }
  const std::vector<int32_t>& tokens(int64_t sample) const { return tokens_[static_cast<std::size_t>(sample)]; }
  // Tokens, speeds, cache and next probabilities; leaves run, running and message alone.
  void fill(GenerationStatus& status, int64_t sample) const;

 private:
  Generation(const GenerationConfig& config, kernels::Dtype dtype);

  GenerationConfig config_;
  kernels::Dtype dtype_;
  std::vector<Sampler> samplers_;
  std::unique_ptr<DecodeState> state_;
  bool halfway_ = false;  // a token was not decoded to its end: some layers have it, others have not
  std::vector<std::vector<int32_t>> tokens_;  // of each sample: the prompt and what follows
  int64_t prompt_tokens_ = 0;
  std::vector<float> logits_;  // (samples, V)
  double prefill_ms_ = 0;
  std::vector<double> decode_ms_;  // decode alone: neither sampling nor publishing nor traces
};

}  // namespace rat
