// rat generate: prompt in, text out as it is drawn.
#include <chrono>
#include <cstdio>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/layer_override.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "core/sampler.h"

namespace rat::cli {
namespace {

struct GenerateOptions {
  std::string run, prompt, layers, device = "cpu";
  int64_t tokens = 200;
  SamplingConfig sampling;
};

constexpr const char* examples =
    "Examples:\n"
    "  rat generate first --prompt \"int main(\"\n"
    "  rat generate first --prompt \"The \" --tokens 500 --temperature 0.6 --seed 7\n"
    "  rat generate first --prompt \"The \" --temperature 0      greedy: always the most likely token\n"
    "\n"
    "The text goes to stdout as it is drawn (the prompt is not repeated); speeds to stderr. The same seed gives\n"
    "the same text.";

struct Generated {
  std::string text;
  std::vector<int32_t> tokens;
  std::size_t prompt_tokens = 0;
  int64_t without_text = 0;  // control symbols and ids outside the tokenizer
  double prefill_s = 0, decode_s = 0;
  int64_t cache_bytes = 0;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Result<Generated> generate(const GenerateOptions& options, const LoadedRun& loaded, bool stream) {
  RAT_ASSIGN(const std::shared_ptr<const Tokenizer> tokenizer, text_tokenizer(loaded));
  RAT_ASSIGN(const std::vector<int32_t> prompt, text_tokens(loaded, *tokenizer, options.prompt));
  Generated out;
  out.prompt_tokens = prompt.size();
  const auto state = loaded.model->start_decoding();
  auto start = std::chrono::steady_clock::now();
  RAT_ASSIGN(std::vector<float> logits, loaded.model->prefill(*state, prompt));
  out.prefill_s = seconds_since(start);
  Sampler sampler(options.sampling);
  start = std::chrono::steady_clock::now();
  while (static_cast<int64_t>(out.tokens.size()) < options.tokens) {
    const int32_t token = sampler.sample(logits);
    out.tokens.push_back(token);
    const std::string text = tokenizer->bytes_of(token);
    out.without_text += text.empty();
    out.text += text;
    if (stream && !text.empty()) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      std::fflush(stdout);
    }
    RAT_ASSIGN(logits, loaded.model->decode(*state, token));
  }
  out.decode_s = seconds_since(start);
  out.cache_bytes = state->cache_bytes();
  return out;
}

Result<int> run_generate(const GenerateOptions& options, const Context& context) {
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run, options.device));
  RAT_TRY(override_layers(loaded, options.layers));
  RAT_ASSIGN(const Generated out, generate(options, loaded, !context.json));
  const double prefill_speed = static_cast<double>(out.prompt_tokens) / out.prefill_s;
  const double decode_speed = static_cast<double>(out.tokens.size()) / out.decode_s;
  if (context.json) {
    print_json({{"run", loaded.run.id},
                {"step", loaded.step},
                {"layers", format_layers(loaded.model->config().layers)},
                {"prompt", options.prompt},
                {"text", out.text},
                {"tokens", out.tokens},
                {"temperature", options.sampling.temperature},
                {"top_k", options.sampling.top_k},
                {"seed", options.sampling.seed},
                {"prefill_tokens_per_s", prefill_speed},
                {"decode_tokens_per_s", decode_speed},
                {"cache_bytes", out.cache_bytes},
                {"device", options.device},
                {"dtype", "f32"}});
  } else {
    fmt::print("\n");
    std::fflush(stdout);
  }
  if (out.without_text > 0)
    print_note(fmt::format("{} tokens have no text (control symbols, or ids the tokenizer does not have); --json lists "
                           "them",
                           out.without_text));
  print_note(fmt::format("run {} step {}: prefill {} tok/s, decode {} tok/s (batch 1, f32 on the {}), cache {}",
                         loaded.run.id, loaded.step, format_count(prefill_speed), format_count(decode_speed),
                         options.device == "cpu" ? "CPU" : "GPU",
                         format_bytes(static_cast<double>(out.cache_bytes))));
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
  command.footer(examples);
  finish_command(command, context, [options, &context] { return run_generate(*options, context); });
}

}  // namespace rat::cli
