// rat generate: prompt in, text out as it is drawn.
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/layer_override.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "core/sampler.h"
#include "kernels/base/dtype.h"

namespace rat::cli {
namespace {

struct GenerateOptions {
  std::string run, prompt, layers, device = "cpu", dtype = "f32";
  std::optional<kernels::CacheDtype> cache;
  int64_t tokens = 200, samples = 1;
  SamplingConfig sampling;
};

constexpr const char* examples =
    "Examples:\n"
    "  rat generate first --prompt \"int main(\"\n"
    "  rat generate first --prompt \"The \" --tokens 500 --temperature 0.6 --seed 7\n"
    "  rat generate first --prompt \"The \" --temperature 0      greedy: always the most likely token\n"
    "  rat generate first --prompt \"The \" --samples 8          eight continuations, drawn at once\n"
    "\n"
    "The text goes to stdout as it is drawn (the prompt is not repeated); speeds to stderr. The same seed gives\n"
    "the same text. Of several samples the first has the seed itself and each further one the next number; they are\n"
    "printed when all are drawn, each under a line with its number and seed.";

// One continuation of the prompt.
struct Sample {
  Sampler sampler;
  uint64_t seed;
  std::string text;
  std::vector<int32_t> tokens;

  explicit Sample(const SamplingConfig& sampling) : sampler(sampling), seed(sampling.seed) {}
};

struct Generated {
  std::vector<Sample> samples;
  std::size_t prompt_tokens = 0;
  int64_t without_text = 0;  // control symbols and ids outside the tokenizer
  double prefill_s = 0, decode_s = 0;
  int64_t cache_bytes = 0;
  std::string cache_dtype;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The next token of every sample from its row of `logits` (samples, V).
std::vector<int32_t> draw(Generated& out, std::span<const float> logits, const Tokenizer& tokenizer) {
  const std::size_t vocab = logits.size() / out.samples.size();
  std::vector<int32_t> tokens;
  for (Sample& sample : out.samples) {
    tokens.push_back(sample.sampler.sample(logits.subspan(tokens.size() * vocab, vocab)));
    const std::string text = tokenizer.bytes_of(tokens.back());
    out.without_text += text.empty();
    sample.tokens.push_back(tokens.back());
    sample.text += text;
  }
  return tokens;
}

// With `stream`, the first sample's text is printed as it is drawn.
Result<Generated> generate(const GenerateOptions& options, const LoadedRun& loaded, bool stream) {
  RAT_ASSIGN(const std::shared_ptr<const Tokenizer> tokenizer, text_tokenizer(loaded));
  RAT_ASSIGN(const std::vector<int32_t> prompt, text_tokens(loaded, *tokenizer, options.prompt));
  Generated out;
  out.prompt_tokens = prompt.size();
  for (int64_t i = 0; i < options.samples; ++i) {
    SamplingConfig sampling = options.sampling;
    sampling.seed += static_cast<uint64_t>(i);
    out.samples.emplace_back(sampling);
  }
  auto state = loaded.model->start_decoding();
  auto start = std::chrono::steady_clock::now();
  RAT_ASSIGN(std::vector<float> logits, loaded.model->prefill(*state, prompt));
  out.prefill_s = seconds_since(start);
  if (options.samples > 1) {  // all go on from the one prompt
    RAT_ASSIGN(state, state->repeated(options.samples));
    const std::vector<float> one = logits;
    for (int64_t i = 1; i < options.samples; ++i) logits.insert(logits.end(), one.begin(), one.end());
  }
  start = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < options.tokens; ++i) {
    const std::size_t printed = out.samples.front().text.size();
    const std::vector<int32_t> tokens = draw(out, logits, *tokenizer);
    const std::string_view text = std::string_view(out.samples.front().text).substr(printed);
    if (stream && !text.empty()) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    RAT_ASSIGN(logits, loaded.model->decode(*state, tokens));
  }
  out.decode_s = seconds_since(start);
  out.cache_bytes = state->cache_bytes();
  out.cache_dtype = state->cache_dtype();
  return out;
}

void print_samples(const std::vector<Sample>& samples) {
  for (std::size_t i = 0; i < samples.size(); ++i)
    fmt::print("--- sample {} of {}, seed {} ---\n{}\n", i + 1, samples.size(), samples[i].seed, samples[i].text);
}

Json json_of(const GenerateOptions& options, const LoadedRun& loaded, const Generated& out, double prefill_speed,
             double decode_speed) {
  Json json{{"run", loaded.run.id},
            {"step", loaded.step},
            {"layers", format_layers(loaded.model->config().layers)},
            {"prompt", options.prompt}};
  if (options.samples == 1) {
    json["text"] = out.samples.front().text;
    json["tokens"] = out.samples.front().tokens;
  } else {
    for (const Sample& sample : out.samples)
      json["samples"].push_back({{"seed", sample.seed}, {"text", sample.text}, {"tokens", sample.tokens}});
  }
  json["temperature"] = options.sampling.temperature;
  json["top_k"] = options.sampling.top_k;
  json["seed"] = options.sampling.seed;
  json["prefill_tokens_per_s"] = prefill_speed;
  json["decode_tokens_per_s"] = decode_speed;
  json["cache_bytes"] = out.cache_bytes;
  json["cache_dtype"] = out.cache_dtype;
  json["device"] = options.device;
  json["dtype"] = options.dtype;
  return json;
}

Result<int> run_generate(const GenerateOptions& options, const Context& context) {
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run, options.device));
  RAT_TRY(override_layers(loaded, options.layers));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(options.dtype));
  RAT_TRY(loaded.model->set_dtype(dtype));
  loaded.model->set_cache_dtype(options.cache);
  const bool one = options.samples == 1;
  RAT_ASSIGN(const Generated out, generate(options, loaded, !context.json && one));
  const double prefill_speed = static_cast<double>(out.prompt_tokens) / out.prefill_s;
  const double decode_speed = static_cast<double>(options.samples * options.tokens) / out.decode_s;
  if (context.json) {
    print_json(json_of(options, loaded, out, prefill_speed, decode_speed));
  } else {
    if (!one) print_samples(out.samples);
    if (one) fmt::print("\n");
    std::fflush(stdout);
  }
  if (out.without_text > 0)
    print_note(fmt::format("{} tokens have no text (control symbols, or ids the tokenizer does not have); --json lists "
                           "them",
                           out.without_text));
  print_note(fmt::format("run {} step {}: prefill {} tok/s, decode {} tok/s (batch {}, {} on the {}), cache {} in {}",
                         loaded.run.id, loaded.step, format_count(prefill_speed), format_count(decode_speed),
                         options.samples, options.dtype, options.device == "cpu" ? "CPU" : "GPU",
                         format_bytes(static_cast<double>(out.cache_bytes)), out.cache_dtype));
  return exit_done;
}

}  // namespace

void add_generate(CLI::App& command, Context& context) {
  const auto options = std::make_shared<GenerateOptions>();
  command.add_option("RUN", options->run, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("--prompt", options->prompt, "Text to continue")->required()->type_name("TEXT");
  command.add_option("--tokens", options->tokens, "How many tokens to draw")
      ->check(at_least(1))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--samples", options->samples, "Continuations of the prompt, drawn at once, with a seed each")
      ->check(between(1, 65535))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--temperature", options->sampling.temperature, "0 is greedy; higher is wilder")
      ->check(between(0.0, 100.0))
      ->capture_default_str()
      ->type_name("X");
  command.add_option("--top-k", options->sampling.top_k, "Draw from the K most likely tokens; 0: from all")
      ->check(at_least(0))
      ->capture_default_str()
      ->type_name("K");
  command.add_option("--seed", options->sampling.seed, "Same seed, same text")->capture_default_str()->type_name("N");
  add_layers_option(command, options->layers);
  add_device_option(command, options->device);
  command.add_option("--dtype", options->dtype, "In which precision")
      ->check(CLI::IsMember(kernels::dtype_names()))
      ->capture_default_str()
      ->type_name("");
  add_cache_option(command, options->cache);
  command.footer(examples);
  finish_command(command, context, [options, &context] { return run_generate(*options, context); });
}

}  // namespace rat::cli
