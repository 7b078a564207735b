#include "app/cli/run_lookup.h"

#include "app/cli/context.h"
#include "core/io/checkpoint.h"
#include "experiments/data/tokenizers.h"
#include "experiments/generation.h"
#include "experiments/statistics.h"

namespace rat::cli {
namespace {

Error unknown_run(const StoreReader& store, const std::string& wanted, const Error& original) {
  const Result<std::vector<RunRow>> runs = store.runs();
  if (!runs || original.code != ErrorCode::not_found) return original;
  if (runs->empty())
    return fail(ErrorCode::not_found, "There is no run '{}': the database holds none yet (rat train makes one).",
                wanted);
  std::vector<std::string> known;
  for (const RunRow& run : *runs) known.push_back(run.id), known.push_back(run.name);
  const std::string near = nearest(wanted, known);
  if (near.empty())
    return fail(ErrorCode::not_found, "There is no run '{}': `rat runs list` shows those there are.", wanted);
  return fail(ErrorCode::not_found, "There is no run '{}': did you mean '{}'? `rat runs list` shows all.", wanted,
              near);
}

}  // namespace

Result<RunRow> find_run(const StoreReader& store, const std::string& id_or_name) {
  Result<RunRow> run = store.run(id_or_name);
  if (!run) return unknown_run(store, id_or_name, run.error());
  return run;
}

Result<RunRow> find_run(const std::filesystem::path& database, const std::string& id_or_name) {
  RAT_ASSIGN(const StoreReader store, StoreReader::open(database));
  return find_run(store, id_or_name);
}

Result<LoadedRun> load_run(const std::filesystem::path& database, const std::string& id_or_name,
                           const std::string& device) {
  LoadedRun loaded;
  RAT_ASSIGN(loaded.run, find_run(database, id_or_name));
  if (loaded.run.checkpoint.empty())
    return fail(ErrorCode::not_found,
                "Run {} ({}) has no checkpoint: none was saved, or its files are gone (`rat runs check` says which).",
                loaded.run.id, run_state_name(loaded.run.state));
  RAT_ASSIGN(loaded.spec, parse_spec(loaded.run.spec_json));
  RAT_ASSIGN(const CheckpointMeta meta, read_checkpoint_meta(loaded.run.checkpoint));
  loaded.step = meta.step;
  RAT_ASSIGN(loaded.model, Model::create(loaded.spec.model, loaded.spec.train.seed, device));
  RAT_TRY(load_weights(loaded.run.checkpoint, *loaded.model));
  return loaded;
}

Result<std::shared_ptr<const Tokenizer>> text_tokenizer(const LoadedRun& loaded) {
  RAT_ASSIGN(std::shared_ptr<const Tokenizer> tokenizer, tokenizer_of(loaded.spec.data, loaded.spec.model));
  if (tokenizer) return tokenizer;
  return fail(ErrorCode::unsupported,
              "Run {} was trained on '{}', whose tokens are not text: choose a run trained on text{}.", loaded.run.id,
              loaded.spec.data.kind,
              loaded.spec.data.kind == "tokens" ? ", or one whose data.tokenizer names a SentencePiece model" : "");
}

Result<std::vector<int32_t>> text_tokens(const LoadedRun& loaded, const Tokenizer& tokenizer, const std::string& text) {
  if (text.empty()) return fail(ErrorCode::invalid_argument, "The text is empty: give at least one byte.");
  RAT_ASSIGN(std::vector<int32_t> tokens, tokens_from_text(text, &tokenizer, loaded.spec.model.vocab));
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "The text has no tokens: give at least one letter.");
  return tokens;
}

CLI::Option* add_assignments(CLI::App& command, std::vector<std::string>& assignments) {
  return command.add_option("--set", assignments, "One value of the spec, e.g. train.lr=1e-3; may be repeated")
      ->allow_extra_args(false)
      ->type_name("KEY=VALUE");
}

Status apply_assignments(RunSpec& spec, const std::vector<std::string>& assignments) {
  for (const std::string& assignment : assignments) {
    const std::size_t equals = assignment.find('=');
    if (equals == std::string::npos)
      return fail(ErrorCode::invalid_argument, "--set takes key=value, e.g. train.lr=1e-3, not '{}'.", assignment);
    RAT_TRY(set_value(spec, assignment.substr(0, equals), assignment.substr(equals + 1)));
  }
  return ok();
}

std::optional<double> last_metric(const RunRow& run, const std::string& metric) {
  const auto found = run.metrics.find(metric);
  if (found == run.metrics.end()) return std::nullopt;
  return found->second.last;
}

std::optional<double> median_speed(const StoreReader& store, const RunRow& run) {
  const Result<std::vector<MetricPoint>> points = store.series(run.id, "tokens_per_s");
  if (!points || points->empty()) return std::nullopt;
  std::vector<double> speeds;
  for (std::size_t i = points->size() / 10; i < points->size(); ++i) speeds.push_back((*points)[i].value);
  return median(std::span<const double>(speeds));
}

Json run_summary(const RunRow& run) {
  Json metrics = Json::object();
  for (const auto& [name, summary] : run.metrics)
    metrics[name] = {
        {"last", summary.last}, {"best", summary.best}, {"last_step", summary.last_step}, {"count", summary.count}};
  return {{"id", run.id},         {"name", run.name},        {"state", run_state_name(run.state)},
          {"layers", run.layers}, {"steps", run.steps_done}, {"steps_total", run.steps_total},
          {"tags", run.tags},     {"metrics", metrics}};
}

std::string headline(const StoreReader& store, const RunRow& run) {
  std::string text;
  if (const auto loss = last_metric(run, "val_loss")) text += fmt::format(", validation loss {:.4f} nats", *loss);
  if (const auto accuracy = last_metric(run, "val_accuracy"))
    text += fmt::format(", accuracy {:.1f} %", 100 * *accuracy);
  if (const auto speed = median_speed(store, run)) text += fmt::format(", {} tok/s (median)", format_count(*speed));
  return text;
}

}  // namespace rat::cli
