// rat train: one run from a spec, or the continuation of one.
#include <unistd.h>

#include <memory>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "app/cli/training.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"
#include "experiments/trainer.h"

namespace rat::cli {
namespace {

struct TrainOptions {
  std::string spec_file, data, name, resume;
  std::vector<std::string> assignments;
  int64_t steps = 0;
};

constexpr const char* examples =
    "Without --spec and --set: 4 layers of rat:16, D 256, T 256, on the program's own source text.\n"
    "\n"
    "Examples:\n"
    "  rat train --steps 300 --name first\n"
    "  rat train --data ~/books --set model.layers=rat:16,swa:128*2 --set train.lr=1e-3\n"
    "  cat notes.txt | rat train --data - --steps 500\n"
    "  rat train --set data.kind=mqar --set model.layers=attention*2\n"
    "  rat train --resume first                  continue a stopped or crashed run, bit for bit\n"
    "  rat train --resume first --steps 2000     train a run for longer\n"
    "\n"
    "Ctrl+C finishes the step, saves a checkpoint and exits with code 0, the run being `stopped`; a second\n"
    "Ctrl+C stops inside the step, within a second. The id of the run is printed to stdout.\n"
    "A key that --set does not know is answered with the list of those it does.";

Result<RunSpec> spec_of(const TrainOptions& options) {
  RunSpec spec;
  if (!options.spec_file.empty()) {
    RAT_ASSIGN(const std::string text, read_text_file(options.spec_file));
    RAT_ASSIGN(spec, parse_spec(text));
  }
  RAT_TRY(apply_assignments(spec, options.assignments));
  if (!options.data.empty()) {
    if (spec.data.kind != "text")
      return fail(ErrorCode::invalid_argument, "--data names text, but data.kind is '{}': leave one of them out.",
                  spec.data.kind);
    spec.data.path = options.data;
  }
  if (options.steps > 0) spec.train.steps = options.steps;
  if (!options.name.empty()) spec.name = options.name;
  make_data_path_absolute(spec);
  RAT_TRY(validate(spec));
  return spec;
}

Result<std::unique_ptr<Trainer>> open_trainer(const TrainOptions& options, const RunSpec& spec, StoreWriter& store) {
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
  const Result<RunSpec> spec = options.resume.empty() ? spec_of(options) : RunSpec();
  if (!spec && spec.error().code == ErrorCode::invalid_argument && options.spec_file.empty())
    return wrong_usage(context, spec.error().message);
  if (!spec) return spec.error();
  Interrupts interrupts;
  RAT_ASSIGN(const auto store, StoreWriter::open(context.database_path()));
  RAT_ASSIGN(const auto trainer, open_trainer(options, *spec, *store));
  const RunSpec& actual = trainer->spec();
  print_note(fmt::format("run {} '{}': {}, D {}, {} parameters, {}", trainer->run_id(), actual.name,
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
      command.add_option("--data", options->data, "Text: a file, a folder, or - for standard input")->type_name("PATH");
  command.add_option("--steps", options->steps, "Optimizer steps in all")->check(at_least(1))->type_name("N");
  CLI::Option* name = command.add_option("--name", options->name, "What to call the run")->type_name("NAME");
  CLI::Option* resume =
      command.add_option("--resume", options->resume, "Continue this run (id or name)")->type_name("RUN");
  for (CLI::Option* other : {spec, set, data, name}) resume->excludes(other);
  command.footer(examples);
  finish_command(command, context, [options, &context] { return train(*options, context); });
}

}  // namespace rat::cli
