// rat inspect: the internal values of one forward pass over a text, as a safetensors file.
#include <cmath>
#include <limits>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/layer_override.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "core/trace/snapshot.h"
#include "views/plots/recipe.h"

namespace rat::cli {
namespace {

struct InspectOptions {
  std::string run, text, out, layers, device = "cpu";
  std::vector<std::string> probes;
  int layer = -1;
};

std::vector<std::string> all_probe_names() {
  std::vector<std::string> names;
  for (int i = 0; i < static_cast<int>(Probe::count); ++i) names.emplace_back(probe_name(static_cast<Probe>(i)));
  return names;
}

std::string examples() {
  return fmt::format(
      "Probes: {}.\n"
      "Axes: gate, out_gate, state_k, state_v, residual (T, D); attention (H, T, K); logits (T, V). Cells of an\n"
      "attention map that a token may not see are NaN.\n"
      "\n"
      "Examples:\n"
      "  rat inspect first --text \"for (int i = 0;\" --probe gate --out gate.safetensors\n"
      "  rat inspect first --text \"one two one\" --probe attention state_v --layer 1 --out trace.safetensors\n"
      "\n"
      "In Python: safetensors.numpy.load_file(\"trace.safetensors\")[\"attention/1\"]",
      fmt::join(all_probe_names(), ", "));
}

Result<ProbeRequest> request_of(const InspectOptions& options, const ModelConfig& model) {
  const int layers = static_cast<int>(model.layers.size());
  if (options.layer >= layers)
    return fail(ErrorCode::invalid_argument, "There is no layer {}: the model has layers 0 to {}.", options.layer,
                layers - 1);
  ProbeRequest request;
  for (const std::string& name : options.probes) {
    RAT_ASSIGN(const Probe probe, parse_probe(name));
    request.items.push_back({probe, probe == Probe::logits ? -1 : options.layer});
  }
  return request;
}

// Every probe that was asked for must be in the trace: a layer without it is a question without an answer.
Status check_complete(const ProbeRequest& request, const TraceSnapshot& trace, const InspectOptions& options) {
  for (const ProbeRequest::Item& item : request.items) {
    bool found = false;
    for (const ProbeTensor& tensor : trace.tensors)
      found = found || (tensor.probe == item.probe && (item.layer == -1 || tensor.layer == item.layer));
    if (!found)
      return fail(ErrorCode::invalid_argument, "No {} has a '{}': this model is {}.",
                  options.layer >= 0 ? fmt::format("value of layer {}", options.layer) : std::string("layer"),
                  probe_name(item.probe), format_layers(trace.model.layers));
  }
  return ok();
}

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0;
  int64_t count = 0;
};

Range range_of(const ProbeTensor& tensor) {
  Range range;
  for (const float value : tensor.values) {
    if (std::isnan(value)) continue;  // masked
    range.low = std::min<double>(range.low, value);
    range.high = std::max<double>(range.high, value);
    range.sum += value;
    ++range.count;
  }
  return range;
}

Result<int> inspect(const InspectOptions& options, const Context& context) {
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run, options.device));
  RAT_TRY(override_layers(loaded, options.layers));
  RAT_ASSIGN(const std::shared_ptr<const Tokenizer> tokenizer, text_tokenizer(loaded));
  RAT_ASSIGN(const std::vector<int32_t> tokens, text_tokens(loaded, *tokenizer, options.text));
  RAT_ASSIGN(const ProbeRequest request, request_of(options, loaded.spec.model));
  RAT_ASSIGN(TraceSnapshot trace, loaded.model->trace(tokens, request));
  trace.run_id = loaded.run.id;
  trace.step = loaded.step;
  trace.source = "prompt";
  trace.byte_tokens = tokenizer->is_bytes();
  trace.tokenizer = tokenizer;
  RAT_TRY(check_complete(request, trace, options));
  RAT_TRY(write_trace(options.out, trace));
  using enum Table::Align;
  Table table({{"tensor"}, {"shape"}, {"min", right}, {"mean", right}, {"max", right}});
  Json rows = Json::array();
  for (const ProbeTensor& tensor : trace.tensors) {
    const Range range = range_of(tensor);
    const double mean = range.sum / static_cast<double>(range.count);
    const std::string name = fmt::format("{}/{}", probe_name(tensor.probe), tensor.layer);
    table.add({name, fmt::format("({})", fmt::join(tensor.shape, ", ")), format_value(range.low), format_value(mean),
               format_value(range.high)});
    rows.push_back({{"name", name}, {"shape", tensor.shape}, {"min", range.low}, {"mean", mean}, {"max", range.high}});
  }
  if (context.json)
    print_json({{"run", loaded.run.id},
                {"step", loaded.step},
                {"layers", format_layers(trace.model.layers)},
                {"tokens", tokens.size()},
                {"file", options.out},
                {"device", trace.device},
                {"dtype", trace.dtype},
                {"kernel_path", trace.kernel_path},
                {"tensors", rows}});
  else
    fmt::print("{}", table.text());
  print_note(fmt::format("wrote {} ({} tokens, {} on {}, {})", options.out, tokens.size(), trace.dtype, trace.device,
                         trace.kernel_path));
  return exit_done;
}

}  // namespace

void add_inspect(CLI::App& command, Context& context) {
  const auto options = std::make_shared<InspectOptions>();
  command.add_option("RUN", options->run, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("--text", options->text, "What to look at")->required()->type_name("TEXT");
  command.add_option("--probe", options->probes, "Values to save, one or more")->required()->type_name("NAME");
  command.add_option("--layer", options->layer, "Only this layer (default: every layer that has the value)")
      ->check(at_least(0))
      ->type_name("N");
  command.add_option("--out", options->out, "File to write")->required()->type_name("FILE.safetensors");
  add_layers_option(command, options->layers);
  add_device_option(command, options->device);
  command.footer(examples());
  finish_command(command, context, [options, &context] { return inspect(*options, context); });
}

}  // namespace rat::cli
