// rat train: one run from a spec, or the continuation of one.
#include <unistd.h>

#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/output.h"
#include "app/cli/progress.h"
#include "app/cli/run_lookup.h"
#include "app/cli/training.h"
#include "core/io/checkpoint.h"
#include "experiments/data/sentencepiece_tokenizer.h"
#include "experiments/data/text_source.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"
#include "experiments/trainer.h"

namespace rat::cli {
namespace {

struct TrainOptions {
  std::string spec_file, data, tokenizer, name, resume, from, device;
  std::vector<std::string> assignments;
  int64_t steps = 0;
};

constexpr const char* examples =
    "Without --spec and --set: 4 layers of rat:16, D 256, T 256, on the program's own source text.\n"
    "\n"
    "Examples:\n"
    "  rat train --steps 300 --name first\n"
    "  rat train --data ~/books --set model.layers=rat:16,swa:128*2 --set train.lr=1e-3\n"
    "  rat train --set \"model.layers=rat-swa*2\"      a published stack: `rat presets` lists them\n"
    "  rat train --set model.layers=ratplus*4 --set train.dilations=1,64     dense and dilated batches in turn\n"
    "  cat notes.txt | rat train --data - --steps 500\n"
    "  rat train --data ~/books --tokenizer llama.model      SentencePiece pieces instead of bytes\n"
    "  rat train --data train.bin --set data.kind=tokens --set model.vocab=32000    a file of uint16 tokens\n"
    "  rat train --set data.kind=mqar --set model.layers=attention*2\n"
    "  rat train --resume first                  continue a stopped or crashed run, bit for bit\n"
    "  rat train --resume first --steps 2000     train a run for longer\n"
    "  rat train --from imported --data ~/books  a new run that starts with the weights of another\n"
    "\n"
    "Ctrl+C finishes the step, saves a checkpoint and exits with code 0, the run being `stopped`; a second\n"
    "Ctrl+C stops inside the step, within a second. The id of the run is printed to stdout.\n"
    "A key that --set does not know is answered with the list of those it does.";

// A new run on the weights of another starts from its spec; what the options say comes on top.
Result<RunSpec> base_spec(const TrainOptions& options, const Context& context) {
  if (options.from.empty()) return RunSpec();
  RAT_ASSIGN(const RunRow run, find_run(context.database_path(), options.from));
  if (run.checkpoint.empty())
    return fail(ErrorCode::not_found, "Run {} has no checkpoint yet, so there are no weights to start from.", run.id);
  RAT_ASSIGN(RunSpec spec, parse_spec(run.spec_json));
  spec.name = "from " + run.name;
  return spec;
}

Result<RunSpec> spec_of(const TrainOptions& options, const Context& context) {
  RAT_ASSIGN(RunSpec spec, base_spec(options, context));
  if (!options.spec_file.empty()) {
    RAT_ASSIGN(const std::string text, read_text_file(options.spec_file));
    RAT_ASSIGN(spec, parse_spec(text));
  }
  RAT_TRY(apply_assignments(spec, options.assignments));
  if (!options.data.empty()) {
    if (spec.data.kind != "text" && spec.data.kind != "tokens")
      return fail(ErrorCode::invalid_argument, "--data names text, but data.kind is '{}': leave one of them out.",
                  spec.data.kind);
    spec.data.path = options.data;
  }
  if (!options.tokenizer.empty()) {
    RAT_ASSIGN(const auto tokenizer, open_sentencepiece(options.tokenizer));
    spec.data.tokenizer = options.tokenizer;
    if (options.from.empty()) spec.model.vocab = tokenizer->vocab();  // those weights have theirs
  }
  if (options.steps > 0) spec.train.steps = options.steps;
  if (!options.device.empty()) spec.device = options.device;
  if (!options.name.empty()) spec.name = options.name;
  make_data_path_absolute(spec);
  RAT_TRY(validate(spec));
  return spec;
}

// A long text is encoded once, with a progress line; the trainer then finds its tokens in the cache.
Status encode_text(const RunSpec& spec, Interrupts& interrupts) {
  std::unique_ptr<Progress> progress;
  return encode_ahead(spec.data, spec.model, &interrupts.stop(), [&](uint64_t done, uint64_t total) {
    const auto now = Progress::Clock::now();
    if (!progress)
      progress = std::make_unique<Progress>(stderr, is_terminal(STDERR_FILENO), "MiB of text encoded", 0,
                                            static_cast<int64_t>(total >> 20), now);
    progress->update(static_cast<int64_t>(done >> 20), "", now);
  });
}

Result<std::unique_ptr<Trainer>> start_from(const TrainOptions& options, const RunSpec& spec, StoreWriter& store) {
  RAT_ASSIGN(const RunRow run, find_run(store.path(), options.from));
  RAT_ASSIGN(auto trainer, Trainer::start(spec, store));
  Status loaded = load_weights(run.checkpoint, trainer->model());
  if (loaded) loaded = store.set_tags(trainer->run_id(), {"from " + run.id});
  if (loaded) return trainer;
  trainer->fail_run(loaded.error().message);
  return loaded.error();
}

Result<std::unique_ptr<Trainer>> open_trainer(const TrainOptions& options, const RunSpec& spec, StoreWriter& store) {
  if (!options.from.empty()) return start_from(options, spec, store);
  if (options.resume.empty()) return Trainer::start(spec, store);
  RAT_ASSIGN(const RunRow run, find_run(store.path(), options.resume));
  return Trainer::resume(run, store, options.steps);
}

Json result_document(const StoreReader& store, const RunRow& run, const TrainingOutcome& outcome,
                     const std::filesystem::path& database) {
  Json document = run_summary(run);
  if (const auto speed = median_speed(store, run)) document["tokens_per_s_median"] = *speed;
  document["elapsed_s"] = outcome.elapsed_s;
  document["checkpoint"] = run.checkpoint;
  document["database"] = database.string();
  return document;
}

Result<int> train(const TrainOptions& options, const Context& context) {
  const Result<RunSpec> spec = options.resume.empty() ? spec_of(options, context) : RunSpec();
  if (!spec && spec.error().code == ErrorCode::invalid_argument && options.spec_file.empty())
    return wrong_usage(context, spec.error().message);
  if (!spec) return spec.error();
  Interrupts interrupts;
  if (options.resume.empty()) RAT_TRY(encode_text(*spec, interrupts));
  RAT_ASSIGN(const auto store, StoreWriter::open(context.database_path()));
  RAT_ASSIGN(const auto trainer, open_trainer(options, *spec, *store));
  const RunSpec& actual = trainer->spec();
  interrupts.begin_work();  // from the line below on, Ctrl+C stops the run at a checkpoint
  const std::string named = actual.name.empty() ? "" : fmt::format(" '{}'", actual.name);
  print_note(fmt::format("run {}{}: {}, D {}, {} parameters, {}", trainer->run_id(), named,
                         format_layers(actual.model.layers), actual.model.d_model,
                         format_count(static_cast<double>(trainer->model().parameter_count())),
                         trainer->data().description()));
  RAT_ASSIGN(const TrainingOutcome outcome, drive(*trainer, interrupts, "step"));
  RAT_TRY(store->flush());
  RAT_ASSIGN(const StoreReader reader, StoreReader::open(store->path()));
  RAT_ASSIGN(const RunRow run, find_run(reader, trainer->run_id()));
  if (outcome.stopped)
    print_note(fmt::format("stopped at step {}, resume with: rat train --resume {}", outcome.step, run.id));
  else
    print_note(fmt::format("{} after {} steps in {}{}", run_state_name(run.state), outcome.step,
                           format_duration(outcome.elapsed_s), headline(reader, run)));
  if (context.json)
    print_json(result_document(reader, run, outcome, store->path()));
  else
    fmt::print("{}\n", run.id);
  return exit_done;
}

}  // namespace

void add_train(CLI::App& command, Context& context) {
  const auto options = std::make_shared<TrainOptions>();
  CLI::Option* spec = command.add_option("--spec", options->spec_file, "Run spec (JSON)")->type_name("FILE");
  CLI::Option* set = add_assignments(command, options->assignments);
  CLI::Option* data =
      command.add_option("--data", options->data, "Text: a file, a folder, or - for standard input")
          ->check(not_empty())
          ->type_name("PATH");
  CLI::Option* tokenizer =
      command.add_option("--tokenizer", options->tokenizer, "SentencePiece model to read text with (default: bytes)")
          ->type_name("M.model");
  CLI::Option* device = add_device_option(command, options->device)->description("What computes (default: the spec's, cpu)");
  command.add_option("--steps", options->steps, "Optimizer steps in all")->check(at_least(1))->type_name("N");
  CLI::Option* name = command.add_option("--name", options->name, "What to call the run")->type_name("NAME");
  CLI::Option* resume =
      command.add_option("--resume", options->resume, "Continue this run (id or name)")->type_name("RUN");
  CLI::Option* from =
      command.add_option("--from", options->from, "New run on the model and weights of this one")->type_name("RUN");
  from->excludes(spec);
  for (CLI::Option* other : {spec, set, data, tokenizer, name, from, device}) resume->excludes(other);
  command.footer(examples);
  finish_command(command, context, [options, &context] { return train(*options, context); });
}

}  // namespace rat::cli
