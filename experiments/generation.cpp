#include "experiments/generation.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "experiments/statistics.h"
#include "experiments/trainer_impl.h"

namespace rat {
namespace {

constexpr int64_t most_samples = 65535;  // what a decode step takes on every device

// Softmax after temperature; temperature 0 puts everything on the largest.
std::vector<float> probabilities(std::span<const float> logits, double temperature) {
  std::vector<float> result(logits.size());
  const auto largest = std::ranges::max_element(logits);
  if (temperature <= 0) {
    result[static_cast<std::size_t>(largest - logits.begin())] = 1;
    return result;
  }
  double sum = 0;
  for (const float logit : logits) sum += std::exp((logit - *largest) / temperature);
  for (std::size_t i = 0; i < logits.size(); ++i)
    result[i] = static_cast<float>(std::exp((logits[i] - *largest) / temperature) / sum);
  return result;
}

}  // namespace

Result<std::vector<int32_t>> tokens_from_text(const std::string& text, const Tokenizer* tokenizer, int64_t vocab) {
  std::vector<int32_t> tokens;
  const auto add = [&](int64_t id) -> Status {
    if (id < 0 || id >= vocab)
      return fail(ErrorCode::invalid_argument, "Token {} is outside the model's vocabulary of {}.", id, vocab);
    tokens.push_back(static_cast<int32_t>(id));
    return ok();
  };
  if (tokenizer) {
    RAT_ASSIGN(const std::vector<int32_t> ids, tokenizer->encode(text));
    for (const int32_t id : ids) RAT_TRY(add(id));
    return tokens;
  }
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (std::string_view(" \t\r\n,").find(*at) != std::string_view::npos) {
      ++at;
      continue;
    }
    int64_t id = 0;
    const auto [rest, error] = std::from_chars(at, end, id);
    if (error != std::errc())
      return fail(ErrorCode::invalid_argument, "This run's tokens are numbers, not text; type ids such as '12 7 3'.");
    at = rest;
    RAT_TRY(add(id));
  }
  return tokens;
}

Generation::Generation(const GenerationConfig& config, kernels::Dtype dtype) : config_(config), dtype_(dtype) {
  for (int64_t i = 0; i < config.samples; ++i) {
    SamplingConfig sampling = config.sampling;
    sampling.seed += static_cast<uint64_t>(i);
    samplers_.emplace_back(sampling);
  }
}

Result<std::unique_ptr<Generation>> Generation::start(Model& model, std::vector<int32_t> prompt,
                                                      const GenerationConfig& config, const StopFlag* stop) {
  if (prompt.empty())
    return fail(ErrorCode::invalid_argument, "The prompt is empty; type at least one character to start from.");
  if (config.samples < 1 || config.samples > most_samples)
    return fail(ErrorCode::invalid_argument, "{} samples cannot be drawn at once; ask for 1 to {}.", config.samples,
                most_samples);
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(config.dtype));
  RAT_TRY(model.set_dtype(dtype));
  model.set_cache_dtype(config.cache);
  std::unique_ptr<Generation> generation(new Generation(config, dtype));
  generation->state_ = model.start_decoding();
  const Stopwatch watch;
  RAT_ASSIGN(const std::vector<float> logits, model.prefill(*generation->state_, prompt, {stop, nullptr}));
  generation->prefill_ms_ = watch.ms();
  if (config.samples > 1) {  // all go on from the one prompt
    RAT_ASSIGN(generation->state_, generation->state_->repeated(config.samples));
  }
  for (int64_t i = 0; i < config.samples; ++i)
    generation->logits_.insert(generation->logits_.end(), logits.begin(), logits.end());
  generation->prompt_tokens_ = static_cast<int64_t>(prompt.size());
  generation->tokens_.assign(static_cast<std::size_t>(config.samples), prompt);
  return generation;
}

// A token is decoded to its end, or there is none after it: half a token in the cache would spoil every later one.
Status Generation::next(Model& model) {
  if (halfway_)
    return fail(ErrorCode::invalid_argument, "The last token could not be decoded; generate again from the prompt.");
  if (!std::ranges::all_of(logits_, [](float x) { return std::isfinite(x); }))
    return fail(ErrorCode::invalid_argument,
                "The model's logits are not finite; its weights are damaged, choose an earlier checkpoint.");
  RAT_TRY(model.set_dtype(dtype_));  // a trace in between may have had another
  const std::size_t vocab = logits_.size() / samplers_.size();
  std::vector<int32_t> drawn;
  for (Sampler& sampler : samplers_)
    drawn.push_back(sampler.sample(std::span(logits_).subspan(drawn.size() * vocab, vocab)));
  const Stopwatch watch;
  halfway_ = true;
  RAT_ASSIGN(logits_, model.decode(*state_, drawn));
  halfway_ = false;
  decode_ms_.push_back(watch.ms());
  for (std::size_t i = 0; i < drawn.size(); ++i) tokens_[i].push_back(drawn[i]);
  return ok();
}

void Generation::fill(GenerationStatus& status, int64_t sample) const {
  const std::size_t vocab = logits_.size() / samplers_.size();
  status.samples = config_.samples;
  status.sample = sample;
  status.seed = config_.sampling.seed + static_cast<uint64_t>(sample);
  status.dtype = config_.dtype;
  status.device = config_.device;
  status.tokens = tokens(sample);
  status.prompt_tokens = prompt_tokens_;
  status.next_probabilities = probabilities(
      std::span(logits_).subspan(static_cast<std::size_t>(sample) * vocab, vocab), config_.sampling.temperature);
  status.cache_bytes = state_->cache_bytes();
  status.cache_dtype = state_->cache_dtype();
  status.position = state_->position();
  status.prefill_ms = prefill_ms_;
  status.prefill_tokens_per_s = prefill_ms_ > 0 ? 1000.0 * static_cast<double>(prompt_tokens_) / prefill_ms_ : 0;
  status.decode_tokens_per_s =
      decode_ms_.empty() ? 0 : 1000.0 * static_cast<double>(config_.samples) / median(decode_ms_);
}

}  // namespace rat
