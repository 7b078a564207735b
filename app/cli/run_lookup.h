// Finding runs and loading their weights, and the few ways in which commands show a run.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/cli/output.h"
#include "core/model.h"
#include "core/tokenizer.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat::cli {

// By id, unique prefix of an id, or unique name; a miss names the nearest run.
Result<RunRow> find_run(const StoreReader& store, const std::string& id_or_name);
Result<RunRow> find_run(const std::filesystem::path& database, const std::string& id_or_name);

// A run's model with the weights of its newest checkpoint.
struct LoadedRun {
  RunRow run;
  RunSpec spec;
  int64_t step = 0;  // of the checkpoint
  std::unique_ptr<Model> model;
};
// `device` is where its passes run.
Result<LoadedRun> load_run(const std::filesystem::path& database, const std::string& id_or_name,
                           const std::string& device = "cpu");
// What turns text into the run's token ids; refused for runs whose tokens are numbers. The run's data need not be there.
Result<std::shared_ptr<const Tokenizer>> text_tokenizer(const LoadedRun& loaded);
// At least one token, all inside the vocabulary.
Result<std::vector<int32_t>> text_tokens(const LoadedRun& loaded, const Tokenizer& tokenizer, const std::string& text);

// Repeated `--set key=value`.
CLI::Option* add_assignments(CLI::App& command, std::vector<std::string>& assignments);
Status apply_assignments(RunSpec& spec, const std::vector<std::string>& assignments);

// The newest value of a metric, if there is one.
std::optional<double> last_metric(const RunRow& run, const std::string& metric);
// Of the training speed in tokens/s: one step says little, the first tenth of them is warm-up.
std::optional<double> median_speed(const StoreReader& store, const RunRow& run);
Json run_summary(const RunRow& run);  // id, name, state, layers, steps, tags, metrics
// ", validation loss 2.345 nats, 12.3k tok/s"; empty when nothing was measured.
std::string headline(const StoreReader& store, const RunRow& run);

}  // namespace rat::cli
