// One generation: the decode state of a prompt and what has been sampled after it. Used by InspectSession's thread.
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
                                                   const SamplingConfig& sampling, const StopFlag* stop);
  // Samples one token and feeds it back.
  Status next(Model& model);
  const std::vector<int32_t>& tokens() const { return tokens_; }
  // Tokens, speeds, cache and next probabilities; leaves run, running and message alone.
  void fill(GenerationStatus& status) const;

 private:
  explicit Generation(const SamplingConfig& sampling) : sampling_(sampling), sampler_(sampling) {}

  SamplingConfig sampling_;
  Sampler sampler_;
  std::unique_ptr<DecodeState> state_;
  std::vector<int32_t> tokens_;
  int64_t prompt_tokens_ = 0;
  std::vector<float> logits_;
  double prefill_ms_ = 0;
  std::vector<double> decode_ms_;  // decode alone: neither sampling nor publishing nor traces
};

}  // namespace rat
