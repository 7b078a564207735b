// rat eval: loss, perplexity and accuracy of a run's checkpoint.
#include <cmath>
#include <memory>

#include "app/cli/commands.h"
#include "app/cli/output.h"
#include "app/cli/run_lookup.h"
#include "experiments/data/data_source.h"

namespace rat::cli {
namespace {

struct EvalOptions {
  std::string run, data;
  std::vector<std::string> tasks;
  int64_t tokens = 0;
};

constexpr const char* examples =
    "Examples:\n"
    "  rat eval first                            validation text of the run itself\n"
    "  rat eval first --data ~/other.txt         the validation part of another text\n"
    "  rat eval recall-16 --task mqar --tokens 65536 --json\n"
    "\n"
    "Loss is the mean cross-entropy in nats; perplexity is its exponential, per token (per byte for text);\n"
    "accuracy is the share of targets that were the most likely token.";

struct TaskResult {
  std::string task, data, hash;
  Model::Evaluation sum;

  double loss() const { return sum.loss_sum / static_cast<double>(sum.targets); }
  double accuracy() const { return static_cast<double>(sum.correct) / static_cast<double>(sum.targets); }
};

Result<DataConfig> data_of(const EvalOptions& options, const LoadedRun& loaded, const std::string& task) {
  DataConfig data = loaded.spec.data;
  if (task != data.kind) {
    data = DataConfig{};
    data.kind = task;
  }
  if (!options.data.empty()) {
    if (data.kind != "text")
      return fail(ErrorCode::invalid_argument, "--data names text, but the task is '{}': leave --data out.", data.kind);
    data.path = options.data;
  } else if (data.kind == "text" && data.path == "-") {
    return fail(ErrorCode::invalid_argument,
                "Run {} read its text from standard input, which is not kept: give it again with --data FILE.",
                loaded.run.id);
  }
  RAT_TRY(validate(data, loaded.spec.model, loaded.spec.train.seq_len));
  return data;
}

Result<TaskResult> evaluate(const EvalOptions& options, const LoadedRun& loaded, const std::string& task) {
  const TrainConfig& train = loaded.spec.train;
  RAT_ASSIGN(const DataConfig config, data_of(options, loaded, task));
  RAT_ASSIGN(const auto data, DataSource::open(config, loaded.spec.model, train.seq_len, train.seed));
  RAT_ASSIGN(const std::vector<TokenBatch> batches,
             data->validation(train.batch, options.tokens > 0 ? options.tokens : train.eval_tokens));
  TaskResult result{task, data->description(), data->hash(), {}};
  for (const TokenBatch& batch : batches) {
    RAT_ASSIGN(const Model::Evaluation one, loaded.model->evaluate(batch));
    result.sum.loss_sum += one.loss_sum;
    result.sum.targets += one.targets;
    result.sum.correct += one.correct;
  }
  if (result.sum.targets == 0)
    return fail(ErrorCode::invalid_argument, "Task '{}' gave no targets to measure: use more text or --tokens.", task);
  if (task == loaded.spec.data.kind && options.data.empty() && !loaded.run.data_hash.empty() &&
      result.hash != loaded.run.data_hash)
    print_note("note: the data has changed since this run was trained; the loss is of the data as it is now");
  return result;
}

Json to_document(const TaskResult& result, bool bytes) {
  Json row{{"task", result.task}, {"loss", result.loss()}, {"perplexity", std::exp(result.loss())}};
  if (bytes) row["bits_per_byte"] = result.loss() / std::log(2.0);
  row["accuracy"] = result.accuracy();
  row["targets"] = result.sum.targets;
  row["data"] = result.data;
  row["data_hash"] = result.hash;
  return row;
}

Result<int> eval(const EvalOptions& options, const Context& context) {
  RAT_ASSIGN(const LoadedRun loaded, load_run(context.database_path(), options.run));
  const std::vector<std::string> tasks = options.tasks.empty() ? std::vector{loaded.spec.data.kind} : options.tasks;
  using enum Table::Align;
  Table table({{"task"}, {"loss (nats)", right}, {"perplexity", right}, {"accuracy", right}, {"targets", right}});
  Json rows = Json::array();
  for (const std::string& task : tasks) {
    RAT_ASSIGN(const TaskResult result, evaluate(options, loaded, task));
    rows.push_back(to_document(result, task == "text"));
    table.add({task, fmt::format("{:.4f}", result.loss()), fmt::format("{:.3f}", std::exp(result.loss())),
               fmt::format("{:.2f} %", 100 * result.accuracy()), std::to_string(result.sum.targets)});
  }
  print_note(fmt::format("run {} '{}', checkpoint of step {}, {}, f32 on the CPU", loaded.run.id, loaded.run.name,
                         loaded.step, loaded.run.layers));
  if (context.json)
    print_json({{"run", loaded.run.id}, {"step", loaded.step}, {"device", "cpu"}, {"dtype", "f32"}, {"tasks", rows}});
  else
    fmt::print("{}", table.text());
  return exit_done;
}

}  // namespace

void add_eval(CLI::App& command, Context& context) {
  const auto options = std::make_shared<EvalOptions>();
  command.add_option("RUN", options->run, "Id (or the start of it) or name")->required()->type_name("");
  command
      .add_option("--task", options->tasks, "What to measure (default: what the run was trained on); may be repeated")
      ->allow_extra_args(false)
      ->check(CLI::IsMember(std::vector<std::string>(data_kinds().begin(), data_kinds().end())))
      ->type_name("NAME");
  command.add_option("--data", options->data, "Other text: a file, a folder, or - for standard input")
      ->type_name("PATH");
  command.add_option("--tokens", options->tokens, "How many positions (default: train.eval_tokens of the run)")
      ->check(at_least(1))
      ->type_name("N");
  command.footer(examples);
  finish_command(command, context, [options, &context] { return eval(*options, context); });
}

}  // namespace rat::cli
