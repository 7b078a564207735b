// rat bench: speed of a layer, a model or decoding on random data.
#include "experiments/bench/bench.h"

#include <unistd.h>

#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/output.h"
#include "core/mixer_list.h"
#include "kernels/base/dtype.h"

namespace rat::cli {
namespace {

struct BenchOptions {
  std::string what, layers;
  LayerConfig layer;
  int64_t window = -1;  // below 0: the kind's own default
  int64_t tokens = 0;
  BenchConfig config;
};

constexpr const char* examples =
    "What is timed: layer: train (forward and backward) and prefill; model: train (a whole step with AdamW), prefill\n"
    "and decode; decode: one token for each of B sequences at once, after T tokens. --phase picks one of them, also\n"
    "a layer's decode. Warm-up first, then at least 20 repetitions: median and quartiles. Weights and inputs are\n"
    "random.\n"
    "\n"
    "Examples:\n"
    "  rat bench layer --kind rat --chunk 16 --seq-len 4096\n"
    "  rat bench layer --kind attention --seq-len 4096 --tokens 16384 --json\n"
    "  rat bench model --layers rat:16*4 --d-model 256 --seq-len 512 --batch 16\n"
    "  rat bench decode --kind swa --window 128 --seq-len 16384\n"
    "  rat bench decode --layers rat:16*4 --d-model 256 --seq-len 512 --batch 64\n"
    "  rat bench decode --device cuda --dtype bf16 --cache fp8 --d-model 2048 --heads 16 --batch 512";

// Sets the model and the batch from the options; the sentence says which of them do not go together.
Status prepare(BenchOptions& options) {
  BenchConfig& config = options.config;
  RAT_ASSIGN(const LayerConfig usual, default_layer(options.layer.kind));
  options.layer.window = options.window < 0 ? usual.window : options.window;
  config.model.layers = {options.layer};
  if (options.what == "model" && options.layers.empty()) config.model.layers.assign(4, options.layer);
  if (!options.layers.empty()) {
    RAT_ASSIGN(config.model.layers, parse_layers(options.layers));
    config.whole_model = true;
    if (options.what == "layer" && config.model.layers.size() != 1)
      return fail(ErrorCode::invalid_argument,
                  "`bench layer` times one layer, but --layers {} has {}: use `bench model`.", options.layers,
                  config.model.layers.size());
  }
  if (options.tokens > 0) {
    if (options.tokens % config.seq_len != 0)
      return fail(ErrorCode::invalid_argument, "--tokens {} is not a multiple of --seq-len {}.", options.tokens,
                  config.seq_len);
    config.batch = options.tokens / config.seq_len;
  }
  return validate(config.model);
}

// Options that were given although the mixer has no such setting.
std::vector<std::string> without_effect(const BenchOptions& options, const CLI::App& command) {
  const auto type = find_mixer_type(options.layer.kind);
  if (!type) return {};
  std::vector<std::string> names;
  for (const auto& [name, used] : {std::pair{"--chunk", (*type)->uses_chunk},
                                   {"--window", (*type)->uses_window},
                                   {"--dilation", (*type)->uses_dilation}})
    if (!used && command.count(name) > 0) names.emplace_back(name);
  return names;
}

Result<std::vector<BenchRow>> measure(const std::string& what, const BenchConfig& config) {
  if (what == "layer") return bench_layer(config);
  if (what == "model") return bench_model(config);
  return bench_decode(config);
}

std::string format_ms(double ms) { return fmt::format("{:.4g}", ms); }

void print_rows(const std::vector<BenchRow>& rows) {
  using enum Table::Align;
  Table table({{"what"},
               {"kind"},
               {"L", right},
               {"T", right},
               {"B", right},
               {"D", right},
               {"H", right},
               {"cache"},
               {"median ms", right},
               {"quartiles", right},
               {"tok/s", right},
               {"peak memory", right},
               {"n", right}});
  for (const BenchRow& row : rows)
    table.add(
        {row.what, row.kind, row.chunk ? std::to_string(row.chunk) : "-", std::to_string(row.seq_len),
         std::to_string(row.batch), std::to_string(row.d_model), std::to_string(row.heads),
         row.cache.empty() ? "-" : row.cache, format_ms(row.median_ms),
         format_ms(row.q1_ms) + " - " + format_ms(row.q3_ms), format_count(row.tokens_per_s),
         row.peak_bytes ? format_bytes(static_cast<double>(*row.peak_bytes)) : "-", std::to_string(row.repetitions)});
  fmt::print("{}", table.text());
}

Result<int> bench(BenchOptions options, const CLI::App& command, const Context& context) {
  if (const Status status = prepare(options); !status) return wrong_usage(context, status.error().message);
  for (const std::string& name : without_effect(options, command))
    print_note(fmt::format("note: {} has no effect on {}", name, options.layer.kind));
  const bool live = is_terminal(STDERR_FILENO);
  if (live)
    options.config.progress = [](std::string_view what, int64_t done, int64_t planned) {
      fmt::print(stderr, "\r\033[K{} {}/{}", what, done, planned);
    };
  const Result<std::vector<BenchRow>> rows = measure(options.what, options.config);
  if (live) fmt::print(stderr, "\r\033[K");
  if (!rows) return rows.error();
  if (context.json)
    print_json(Json::parse(to_json(*rows)));
  else
    print_rows(*rows);
  return exit_done;
}

std::vector<std::string> kinds() {
  std::vector<std::string> names;
  for (const MixerType& type : mixer_types()) names.emplace_back(type.name);
  return names;
}

}  // namespace

void add_bench(CLI::App& command, Context& context) {
  const auto options = std::make_shared<BenchOptions>();
  BenchConfig& config = options->config;
  const auto size = [&](const char* name, int64_t& target, const char* text, const char* letter) {
    return command.add_option(name, target, text)->check(at_least(1))->capture_default_str()->type_name(letter);
  };
  command.add_option("WHAT", options->what, "layer, model or decode")
      ->required()
      ->check(CLI::IsMember({"layer", "model", "decode"}))
      ->type_name("");
  CLI::Option* kind =
      command.add_option("--kind", options->layer.kind, fmt::format("Mixer: {}", fmt::join(kinds(), ", ")))
          ->capture_default_str()
          ->type_name("K");
  CLI::Option* chunk = size("--chunk", options->layer.chunk, "Chunk length of rat", "L");
  CLI::Option* window =
      command.add_option("--window", options->window, "Window of swa, rattention (default: 128), ratplus (default: 0)")
          ->check(at_least(0))
          ->type_name("W");
  CLI::Option* dilation = size("--dilation", options->layer.dilation, "Dilation of ratplus", "D");
  CLI::Option* layers =
      command.add_option("--layers", options->layers, "A whole model instead: rat:16,swa:128*2")->type_name("PATTERN");
  for (CLI::Option* one : {kind, chunk, window, dilation}) layers->excludes(one);
  size("--seq-len", config.seq_len, "Tokens of a sequence", "T");
  CLI::Option* batch = size("--batch", config.batch, "Sequences", "B");
  command.add_option("--tokens", options->tokens, "Tokens of a batch, instead of --batch")
      ->check(at_least(1))
      ->excludes(batch)
      ->type_name("N");
  size("--d-model", config.model.d_model, "Model size", "D");
  size("--heads", config.model.heads, "Heads", "H");
  size("--groups", config.model.groups, "Shared query/key groups of rat", "G");
  command.add_option("--kv-heads", config.model.kv_heads, "Key/value heads of attention, swa, rattention; 0: all own")
      ->check(at_least(0))
      ->capture_default_str()
      ->type_name("N");
  size("--vocab", config.model.vocab, "Vocabulary of a model", "V");
  command.add_option("--phase", config.phase, "Time only this")
      ->check(CLI::IsMember({"train", "prefill", "decode"}))
      ->type_name("");
  size("--repetitions", config.repetitions, "At least so many; 20 is the least allowed", "N")->check(at_least(20));
  add_device_option(command, config.device);
  command.add_option("--dtype", config.dtype, "In which precision")
      ->check(CLI::IsMember(kernels::dtype_names()))
      ->capture_default_str()
      ->type_name("");
  add_cache_option(command, config.cache);
  command.footer(examples);
  finish_command(command, context, [options, &command, &context] { return bench(*options, command, context); });
}

}  // namespace rat::cli
