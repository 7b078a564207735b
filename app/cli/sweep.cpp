// rat sweep: a grid of runs, one after another. Running it again does only what is missing.
#include "experiments/sweep.h"

#include <algorithm>
#include <filesystem>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "app/cli/training.h"
#include "experiments/store/store.h"
#include "experiments/trainer.h"

namespace rat::cli {
namespace {

struct SweepOptions {
  std::string spec_file;
  std::vector<std::string> assignments;
  bool dry_run = false;
};

constexpr const char* examples =
    "A sweep is a JSON file: a base spec and lists of values for some of its keys.\n"
    "  {\"name\": \"recall\", \"question\": \"Which chunk length still recalls?\",\n"
    "   \"base\": {\"data\": {\"kind\": \"mqar\"}, \"train\": {\"steps\": 400}},\n"
    "   \"grid\": {\"model.layers\": [\"rat:4*2\", \"rat:16*2\", \"rnn*2\"], \"train.seed\": [1, 2]}}\n"
    "\n"
    "Examples:\n"
    "  rat sweep recall.json                     run it; again after Ctrl+C or a crash: the rest of it\n"
    "  rat sweep recall.json --dry-run           what would be run\n"
    "  rat sweep recall.json --set train.steps=50\n"
    "\n"
    "--set changes the base for this and makes it another sweep. A run that fails is reported at the end (exit\n"
    "code 1) and does not hold up the others.";

// What happened to the points of the grid.
struct Progressed {
  std::vector<std::string> failures;
  bool stopped = false;
};

Status run_point(Result<std::unique_ptr<Trainer>> opened, Interrupts& interrupts, const std::string& label,
                 bool& stopped) {
  RAT_ASSIGN(const auto trainer, std::move(opened));
  print_note(fmt::format("{}: run {} '{}'", label, trainer->run_id(), trainer->spec().name));
  RAT_ASSIGN(const TrainingOutcome outcome, drive(*trainer, interrupts, label + " step"));
  stopped = outcome.stopped;
  return ok();
}

Progressed run_missing(const SweepPlan& plan, StoreWriter& store) {
  Progressed result;
  const std::size_t total = plan.to_resume.size() + plan.to_run.size();
  std::size_t number = 0;
  const auto attempt = [&](const std::string& name, auto&& open) {
    if (result.stopped) return;
    const std::string label = fmt::format("[{}/{}]", ++number, total);
    Interrupts interrupts;
    const Status done = run_point(open(), interrupts, label, result.stopped);
    if (done) return;
    print_note(fmt::format("{} failed: {}", label, done.error().message));
    result.failures.push_back(fmt::format("{}: {}", name, done.error().message));
  };
  for (const RunRow& run : plan.to_resume) attempt(run.name, [&] { return Trainer::resume(run, store); });
  for (const RunSpec& spec : plan.to_run)
    attempt(spec.name, [&] { return Trainer::start(spec, store, "", plan.sweep_id); });
  return result;
}

std::string cell(const RunRow& run, const std::string& metric, std::string (*format)(double)) {
  const auto value = last_metric(run, metric);
  return value ? format(*value) : "-";
}

void print_table(const StoreReader& store, const std::vector<RunRow>& runs) {
  using enum Table::Align;
  Table table({{"run"},
               {"layers"},
               {"seed", right},
               {"state"},
               {"steps", right},
               {"val loss", right},
               {"accuracy", right},
               {"train tok/s", right},
               {"decode tok/s", right},
               {"cache", right}});
  for (const RunRow& run : runs) {
    const std::optional<double> speed = median_speed(store, run);
    table.add({run.id, run.layers, std::to_string(run.seed), std::string(run_state_name(run.state)),
               std::to_string(run.steps_done), cell(run, "val_loss", format_value),
               cell(run, "val_accuracy", format_value), speed ? format_count(*speed) : "-",
               cell(run, "decode_tokens_per_s", format_count), cell(run, "cache_bytes", format_bytes)});
  }
  fmt::print("{}", table.text());
}

Result<SweepSpec> read_sweep(const SweepOptions& options) {
  RAT_ASSIGN(const std::string text, read_text_file(options.spec_file));
  RAT_ASSIGN(SweepSpec sweep, parse_sweep(text));
  RAT_TRY(apply_assignments(sweep.base, options.assignments));
  make_data_path_absolute(sweep.base);
  return sweep;
}

// The runs of the sweep that the store holds now, in the order of the grid.
Result<std::vector<RunRow>> runs_of(const SweepSpec& sweep, const StoreReader& reader) {
  RAT_ASSIGN(const SweepPlan now, plan(sweep, reader));
  std::vector<RunRow> runs = now.already_finished;
  RAT_ASSIGN(const std::vector<RunRow> all, reader.runs());
  for (auto run = all.rbegin(); run != all.rend(); ++run) {  // oldest first
    const bool listed = std::ranges::any_of(runs, [&](const RunRow& other) { return other.id == run->id; });
    if (run->sweep_id == now.sweep_id && !listed) runs.push_back(*run);
  }
  return runs;
}

void say_what_is_planned(const SweepSpec& spec, const SweepPlan& planned) {
  print_note(fmt::format("sweep '{}': {} to run, {} to continue, {} already finished", spec.name, planned.to_run.size(),
                         planned.to_resume.size(), planned.already_finished.size()));
}

// Only reads: a database that is not there is not made.
Result<int> dry_run(const SweepSpec& spec, const Context& context) {
  std::vector<RunRow> runs;
  std::error_code error;
  if (std::filesystem::exists(context.database_path(), error)) {
    RAT_ASSIGN(const StoreReader reader, StoreReader::open(context.database_path()));
    RAT_ASSIGN(runs, reader.runs());
  }
  RAT_ASSIGN(const SweepPlan planned, plan(spec, runs));
  say_what_is_planned(spec, planned);
  Json names = Json::array();
  for (const RunRow& run : planned.to_resume) names.push_back(run.name);
  for (const RunSpec& run : planned.to_run) names.push_back(run.name);
  if (context.json)
    print_json({{"sweep", planned.sweep_id}, {"name", spec.name}, {"to_run", names}});
  else
    for (const Json& name : names) fmt::print("{}\n", name.get<std::string>());
  return exit_done;
}

Result<int> sweep(const SweepOptions& options, const Context& context) {
  RAT_ASSIGN(const SweepSpec spec, read_sweep(options));
  if (options.dry_run) return dry_run(spec, context);
  RAT_ASSIGN(const auto store, StoreWriter::open(context.database_path()));
  RAT_ASSIGN(const StoreReader reader, StoreReader::open(store->path()));
  RAT_ASSIGN(const SweepPlan planned, plan(spec, reader));
  say_what_is_planned(spec, planned);
  const Progressed progressed = run_missing(planned, *store);
  RAT_TRY(store->flush());
  RAT_ASSIGN(const std::vector<RunRow> runs, runs_of(spec, reader));
  if (context.json) {
    Json rows = Json::array();
    for (const RunRow& run : runs) {
      rows.push_back(run_summary(run));
      if (const auto speed = median_speed(reader, run)) rows.back()["tokens_per_s_median"] = *speed;
    }
    print_json({{"sweep", planned.sweep_id},
                {"name", spec.name},
                {"question", spec.question},
                {"stopped", progressed.stopped},
                {"failures", progressed.failures},
                {"runs", rows}});
  } else {
    print_table(reader, runs);
  }
  if (progressed.stopped) print_note("stopped: the same command continues the sweep");
  for (const std::string& failure : progressed.failures) print_error(failure);
  return progressed.failures.empty() ? exit_done : exit_failed;
}

}  // namespace

void add_sweep(CLI::App& command, Context& context) {
  const auto options = std::make_shared<SweepOptions>();
  command.add_option("SPEC", options->spec_file, "Sweep file (JSON)")->required()->type_name("");
  add_assignments(command, options->assignments);
  command.add_flag("--dry-run", options->dry_run, "Only list what would be run");
  command.footer(examples);
  finish_command(command, context, [options, &context] { return sweep(*options, context); });
}

}  // namespace rat::cli
