// rat eval: what a run's checkpoint can do, task by task.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/device_option.h"
#include "app/cli/eval_report.h"
#include "app/cli/interrupt.h"
#include "app/cli/layer_override.h"
#include "app/cli/output.h"
#include "app/cli/progress.h"
#include "app/cli/run_lookup.h"
#include "experiments/tasks/task.h"
#include "kernels/base/dtype.h"

namespace rat::cli {
namespace {

struct EvalOptions {
  std::string run, data, csv, layers, device = "cpu", dtype = "f32", through = "pass";
  std::vector<std::string> tasks, assignments;
  double memory_gib = 0;
  bool no_store = false, show = false;
  TaskOptions task;
};

using Clock = std::chrono::steady_clock;
constexpr auto quiet_for = std::chrono::seconds(1);  // what takes no longer shows no progress

std::string dtype_of(const LoadedRun& loaded) { return std::string(kernels::dtype_name(loaded.model->dtype())); }

std::string help_text() {
  std::string text =
      "Examples:\n"
      "  rat eval first                            the task of the run's own data\n"
      "  rat eval first --data ~/other.txt         the validation part of another text\n"
      "  rat eval first --task length --task loss_by_position --json\n"
      "  rat eval recall --task needle --set data.pairs=8 --lengths 64,256 --depths 0,0.5,1\n"
      "  rat eval first --through decode --device cuda --dtype bf16 --cache fp8     what the smaller cache costs\n"
      "\n"
      "Loss is the mean cross-entropy in nats, accuracy the share of targets that were the most likely token, each "
      "with\n"
      "its standard error over n sequences. What is measured is stored with the run: `rat runs show RUN`.\n"
      "\n"
      "--through decode feeds every sequence token by token, as generation does, and compares the loss prediction by\n"
      "prediction: with another --cache to the layers' own, otherwise to the parallel pass. It is a check of\n"
      "generation and is not stored.\n"
      "\n"
      "Tasks:\n";
  for (const Task& task : tasks()) {
    text += fmt::format("  {:<17} {}\n", task.name, task.description);
    for (const TaskSetting& setting : task.settings)
      text += fmt::format("  {:<17}   {} (default {}): {}\n", "", setting.name, setting.fallback, setting.meaning);
  }
  return text;
}

Status read_data_options(EvalOptions& options, const LoadedRun& loaded, const std::vector<const Task*>& wanted) {
  for (const std::string& assignment : options.assignments) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos)
      return fail(ErrorCode::invalid_argument, "--set takes key=value, e.g. data.pairs=8, not '{}'.", assignment);
    options.task.data.emplace_back(assignment.substr(0, equals), assignment.substr(equals + 1));
  }
  if (options.data.empty()) return ok();
  for (const Task* task : wanted) {
    const std::string kind = task->data_kind.empty() ? loaded.spec.data.kind : std::string(task->data_kind);
    if (DataConfig{}.kind != kind && kind != "tokens")
      return fail(ErrorCode::invalid_argument,
                  "--data names text, but the task '{}' makes its own data ('{}'): leave "
                  "--data out.",
                  task->name, kind);
  }
  options.task.data.emplace_back("data.path", options.data);
  return ok();
}

Result<Evaluation> measure(const Task& task, const EvalOptions& options, const LoadedRun& loaded,
                           const Interrupts& interrupts) {
  const auto start = Clock::now();
  std::unique_ptr<Progress> progress;
  TaskContext context{*loaded.model, loaded.spec, options.task, &interrupts.stop(), {}};
  context.progress = [&](int64_t done, int64_t total) {
    if (!progress && Clock::now() - start < quiet_for) return;
    if (!progress)
      progress = std::make_unique<Progress>(stderr, is_terminal(STDERR_FILENO), fmt::format("{}: tokens", task.name), 0,
                                            total, start);
    progress->update(done, "", Clock::now());
  };
  RAT_ASSIGN(Evaluation evaluation, task.run(context));
  evaluation.task = std::string(task.name);
  evaluation.step = loaded.step;
  evaluation.device = options.device;
  evaluation.dtype = dtype_of(loaded);
  evaluation.elapsed_s = std::chrono::duration<double>(Clock::now() - start).count();
  return evaluation;
}

Status write_csv(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text << std::flush;
  if (file) return ok();
  return fail(ErrorCode::io_failure, "'{}' could not be written: check the folder and the room on the disk.", path);
}

Result<std::vector<const Task*>> wanted_tasks(const EvalOptions& options, const LoadedRun& loaded) {
  std::vector<const Task*> wanted;
  for (const std::string& name : options.tasks) {
    RAT_ASSIGN(wanted.emplace_back(), find_task(name));
  }
  if (wanted.empty()) wanted.push_back(&default_task(loaded.spec));
  return wanted;
}

void note_changed_data(const EvalOptions& options, const LoadedRun& loaded, const Task& task,
                       const Evaluation& evaluation) {
  const bool own = (task.data_kind.empty() || task.data_kind == loaded.spec.data.kind) && options.task.data.empty();
  if (own && !loaded.run.data_hash.empty() && evaluation.data_hash != loaded.run.data_hash)
    print_note("note: the data has changed since this run was trained; the loss is of the data as it is now");
}

// The tokens of one sequence of each task and, below each, what is asked for.
Status show_examples(const EvalOptions& options, const LoadedRun& loaded, const std::vector<const Task*>& wanted,
                     const Context& context) {
  Json rows = Json::array();
  for (const Task* task : wanted) {
    const TaskContext task_context{*loaded.model, loaded.spec, options.task, nullptr, {}};
    RAT_ASSIGN(const TokenBatch example, example_sequence(task_context, *task));
    rows.push_back({{"task", task->name}, {"inputs", example.inputs}, {"targets", example.targets}});
    std::string inputs = "inputs ", targets = "targets";
    for (std::size_t i = 0; i < example.inputs.size(); ++i) {
      const std::string target = example.targets[i] == ignore_target ? "." : std::to_string(example.targets[i]);
      const std::size_t width = std::max(target.size(), std::to_string(example.inputs[i]).size());
      inputs += fmt::format(" {:>{}}", example.inputs[i], width);
      targets += fmt::format(" {:>{}}", target, width);
    }
    if (!context.json) fmt::print("{}\n{}\n{}\n", task->name, inputs, targets);
  }
  if (context.json) print_json({{"run", loaded.run.id}, {"examples", rows}});
  return ok();
}

// Each task is stored as soon as it is done, so a stop loses only the one under way.
Result<std::vector<Evaluation>> measure_all(const EvalOptions& options, const LoadedRun& loaded, StoreWriter* store,
                                            const std::vector<const Task*>& wanted, const Interrupts& interrupts) {
  std::vector<Evaluation> done;
  for (const Task* task : wanted) {
    Result<Evaluation> one = measure(*task, options, loaded, interrupts);
    if (!one && one.error().code == ErrorCode::cancelled)
      return fail(ErrorCode::cancelled, "Stopped in task '{}'; {} of {} tasks were measured{}.", task->name,
                  done.size(), wanted.size(), store ? " and stored" : "");
    if (!one) return fail(one.error().code, "Task '{}': {}", task->name, one.error().message);
    if (store) RAT_TRY(store->record_evaluation(loaded.run.id, *one));
    note_changed_data(options, loaded, *task, *one);
    for (const std::string& note : one->notes) print_note(fmt::format("note: {}: {}", task->name, note));
    done.push_back(*std::move(one));
  }
  return done;
}

Result<int> eval(EvalOptions options, const Context& context) {
  options.task.through = options.through == "decode" ? Through::decode : Through::pass;
  if (options.task.cache && options.task.through == Through::pass)
    return wrong_usage(context, "--cache is of decoding, and a parallel pass has none: add --through decode.");
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run, options.device));
  RAT_TRY(override_layers(loaded, options.layers));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(options.dtype));
  RAT_TRY(loaded.model->set_dtype(dtype));
  // Numbers of other layers are not the run's own, and those through decoding are about decoding: shown and not kept.
  if (!options.layers.empty() || options.task.through == Through::decode) options.no_store = true;
  RAT_ASSIGN(const std::vector<const Task*> wanted, wanted_tasks(options, loaded));
  RAT_TRY(read_data_options(options, loaded, wanted));
  options.task.memory_bytes = static_cast<int64_t>(options.memory_gib * (1 << 30));
  if (options.show) {
    RAT_TRY(show_examples(options, loaded, wanted, context));
    return exit_done;
  }
  std::unique_ptr<StoreWriter> store;
  if (!options.no_store) {
    auto opened = StoreWriter::open(context.database_path());
    if (!opened) return fail(opened.error().code, "{} (--no-store measures without storing.)", opened.error().message);
    store = *std::move(opened);
  }
  print_note(fmt::format("run {} '{}', checkpoint of step {}, {}, {} on the {}{}", loaded.run.id, loaded.run.name,
                         loaded.step, format_layers(loaded.model->config().layers), dtype_of(loaded),
                         options.device == "cpu" ? "CPU" : "GPU",
                         options.task.through == Through::decode ? ", through decoding" : ""));
  Interrupts interrupts;
  interrupts.begin_measuring();
  RAT_ASSIGN(const std::vector<Evaluation> done, measure_all(options, loaded, store.get(), wanted, interrupts));
  if (!options.csv.empty()) RAT_TRY(write_csv(options.csv, evaluation_csv(loaded.run.id, done)));
  const int64_t T = loaded.spec.train.seq_len;
  Json rows = Json::array();
  for (const Evaluation& one : done) {
    rows.push_back(evaluation_document(one, T));
    if (!context.json) fmt::print("{}{}\n{}", &one == &done.front() ? "" : "\n", one.task, evaluation_table(one));
  }
  if (context.json)
    print_json({{"run", loaded.run.id},
                {"step", loaded.step},
                {"layers", format_layers(loaded.model->config().layers)},
                {"device", options.device},
                {"dtype", dtype_of(loaded)},
                {"stored", store != nullptr},
                {"tasks", rows}});
  return exit_done;
}

}  // namespace

void add_eval(CLI::App& command, Context& context) {
  const auto options = std::make_shared<EvalOptions>();
  std::vector<std::string> names;
  for (const Task& task : tasks()) names.emplace_back(task.name);
  command.add_option("RUN", options->run, "Id (or the start of it) or name")->required()->type_name("");
  command.add_option("--task", options->tasks, "What to measure (default: that of the run's data); may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(names))
      ->type_name("NAME");
  command.add_option("--data", options->data, "Other text: a file, a folder, or - for standard input")
      ->type_name("PATH");
  command.add_option("--set", options->assignments, "A setting of the task's data, e.g. data.pairs=8; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
  command.add_option("--lengths", options->task.lengths, "Tokens of the sequences, e.g. 64,128")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(at_least(1))
      ->type_name("LIST");
  command.add_option("--depths", options->task.depths, "needle: where it lies, 0 start to 1 end")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(between(0.0, 1.0))
      ->type_name("LIST");
  CLI::Option* sequences = command.add_option("--sequences", options->task.sequences, "How many, at each length");
  sequences->check(at_least(1))->type_name("N");
  command.add_option("--tokens", options->task.tokens, "The same in tokens (default: train.eval_tokens of the run)")
      ->check(at_least(1))
      ->excludes(sequences)
      ->type_name("N");
  command.add_option("--memory", options->memory_gib, "GiB that a pass may use (default: half of what is free)")
      ->check(between(0.001, 1e6))
      ->type_name("GIB");
  command.add_option("--through", options->through, "A parallel pass over each sequence, or decoding token by token")
      ->check(CLI::IsMember({"pass", "decode"}))
      ->capture_default_str()
      ->type_name("");
  add_cache_option(command, options->task.cache);
  command.add_option("--csv", options->csv, "Also write every number, each position, to this file")->type_name("FILE");
  command.add_flag("--show", options->show, "Print a sequence of each task instead of measuring");
  command.add_flag("--no-store", options->no_store, "Do not keep the result in the run database");
  add_layers_option(command, options->layers)->description("Other layer settings on the run's weights, not stored");
  add_device_option(command, options->device);
  command.add_option("--dtype", options->dtype, "In which precision")
      ->check(CLI::IsMember(kernels::dtype_names()))
      ->capture_default_str()
      ->type_name("");
  command.footer(help_text());
  finish_command(command, context, [options, &context] { return eval(*options, context); });
}

}  // namespace rat::cli
