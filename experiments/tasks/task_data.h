// What tasks share: which data they measure on, at which lengths, and the points that every one of them makes.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/tasks/scores.h"
#include "experiments/tasks/task.h"

namespace rat {

// Validation sequences of one length.
struct LengthData {
  int64_t seq_len = 0;
  std::vector<TokenBatch> batches;
  TokenRange answers;

  int64_t sequences() const;
};

struct TaskData {
  DataConfig config;              // at the run's own length
  std::string description, hash;  // of the data at that length
  bool bytes = false;              // tokens are bytes of text
  std::vector<LengthData> lengths;
  std::vector<std::string> notes;  // lengths left out
};

// T/2, T, 2T and 4T of the run's T.
std::vector<int64_t> lengths_around(int64_t seq_len);

// The data settings of a task: the run's own when it was trained on `kind` (or `kind` is empty), else the defaults;
// then the caller's changes.
Result<DataConfig> task_data_config(const TaskContext& context, std::string_view kind);
// The same for sequences of another length: the string to copy grows with the sequence; nothing else does.
Result<DataConfig> config_at_length(const TaskContext& context, const DataConfig& config, int64_t seq_len);
int64_t memory_limit(const TaskContext& context);
// Sequences of a length that were asked for; `least` of them when nothing was said.
int64_t sequences_at(const TaskContext& context, int64_t seq_len, int64_t least);

// Calls `open(length)` for the caller's lengths, or for `fallback`, of which those that cannot be had are left out with
// a note. The run's own length, and whatever the caller named, must work.
template <class Open>
Status for_each_length(const TaskContext& context, const std::vector<int64_t>& fallback,
                       std::vector<std::string>& notes, const Open& open) {
  const bool chosen = !context.options.lengths.empty();
  for (const int64_t length : chosen ? context.options.lengths : fallback) {
    const Status opened = open(length);
    if (opened) continue;
    if (chosen || length == context.spec.train.seq_len || opened.error().code == ErrorCode::cancelled)
      return opened.error();
    notes.push_back(fmt::format("T = {} is left out: {}", length, opened.error().message));
  }
  return ok();
}

// Validation sequences of the data of `kind` at each length.
Result<TaskData> open_task_data(const TaskContext& context, std::string_view kind,
                                const std::vector<int64_t>& fallback_lengths);

// Reports progress over everything a task will score.
class ScoreProgress {
 public:
  // `total` tokens, each once, or twice where scores are compared.
  ScoreProgress(const TaskContext& context, int64_t total)
      : context_(context), total_(context.options.through == Through::decode ? 2 * total : total) {}
  ScoreOptions options() {
    return {context_.stop, [this](int64_t tokens) {
              done_ += tokens;
              if (context_.progress) context_.progress(done_, total_);
            }};
  }

 private:
  const TaskContext& context_;
  int64_t done_ = 0, total_ = 0;
};

// Scores as the caller wants them: by a pass, or through decoding and then compared.
Result<TokenScores> score_task(const TaskContext& context, std::span<const TokenBatch> batches,
                               ScoreProgress& progress);
// For scores through decoding: {"through": "decode", "cache": "fp8", "compared_with": "..."}.
void add_through(const TokenScores& scores, nlohmann::ordered_json& settings);

EvaluationPoint point_of(const std::string& metric, int64_t seq_len, const Estimate& estimate);
// loss, accuracy, the difference to what the loss is compared with and, where there are answers, both chance levels.
void add_overall_points(const LengthData& data, const TokenScores& scores, Evaluation& evaluation);
// {"lengths": [...], "sequences": [...], "tokens_are": "bytes", "data": {...}}: what makes two evaluations comparable.
nlohmann::ordered_json settings_of(const TaskData& data);

// The whole of a task that only asks for the overall points; `more(data, scores, evaluation)` may add others.
using MorePoints = std::function<void(const LengthData&, const TokenScores&, Evaluation&)>;
Result<Evaluation> measure_lengths(const TaskContext& context, std::string_view kind,
                                   const std::vector<int64_t>& fallback_lengths, const MorePoints& more = {});

// The setting every task has.
TaskSetting lengths_setting(std::string_view fallback);
TaskSetting sequences_setting(std::string_view fallback);

}  // namespace rat
