// Needle in a haystack, by depth and length: experiments/data/needle_source.h.
#include <algorithm>

#include "experiments/data/needle_source.h"
#include "experiments/tasks/memory_guard.h"
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

constexpr int64_t default_sequences = 64;

std::vector<double> depths_of(const TaskContext& context) {
  if (!context.options.depths.empty()) return context.options.depths;
  return {0, 0.25, 0.5, 0.75, 1};
}

struct Cell {
  LengthData data;
  double depth = 0;
};

Result<std::vector<Cell>> cells_of(const TaskContext& context, const DataConfig& config, int64_t seq_len) {
  RAT_ASSIGN(const DataConfig at_length, config_at_length(context, config, seq_len));
  RAT_TRY(check_memory(context.spec.model, seq_len, memory_limit(context)));
  RAT_ASSIGN(const auto source,
             DataSource::open(at_length, context.spec.model, seq_len, context.spec.train.seed, context.stop));
  const int64_t vocab = context.spec.model.vocab;
  const bool by_tokens = context.options.tokens > 0;
  const int64_t n = by_tokens || context.options.sequences > 0 ? sequences_at(context, seq_len, 1) : default_sequences;
  const int64_t most = score_batch(context.spec.model, seq_len, memory_limit(context));
  std::vector<Cell> cells;
  for (const double depth : depths_of(context)) {
    if (!(depth >= 0 && depth <= 1))
      return fail(ErrorCode::invalid_argument, "depth {} is not between 0 (start) and 1 (end)", depth);
    Cell cell{{seq_len, {}, source->answers()}, depth};
    const int64_t place = needle_place(at_length, seq_len, depth);
    const int64_t first = n * static_cast<int64_t>(cells.size());  // no two depths share a sequence
    for (int64_t row = 0; row < n; row += most)
      cell.data.batches.push_back(
          needle_sequences(at_length, vocab, seq_len, place, first + row, std::min(most, n - row)));
    cells.push_back(std::move(cell));
  }
  return cells;
}

// Scores the cells of one length: a point for each depth, then all depths together.
Status measure_length(const TaskContext& context, std::span<const Cell> cells, ScoreProgress& progress,
                      Evaluation& evaluation, nlohmann::ordered_json& settings) {
  LengthData all{cells.front().data.seq_len, {}, cells.front().data.answers};
  TokenScores all_scores;
  all_scores.tokens = all.seq_len;
  for (const Cell& cell : cells) {
    RAT_ASSIGN(const TokenScores scores, score_task(context, cell.data.batches, progress));
    EvaluationPoint point = point_of("accuracy", all.seq_len, mean_accuracy(scores, 0, all.seq_len));
    point.depth = cell.depth;
    evaluation.points.push_back(point);
    all.batches.insert(all.batches.end(), cell.data.batches.begin(), cell.data.batches.end());
    all_scores.sequences += scores.sequences;
    all_scores.loss.insert(all_scores.loss.end(), scores.loss.begin(), scores.loss.end());
    all_scores.correct.insert(all_scores.correct.end(), scores.correct.begin(), scores.correct.end());
    all_scores.other_loss.insert(all_scores.other_loss.end(), scores.other_loss.begin(), scores.other_loss.end());
    add_through(scores, settings);
  }
  add_overall_points(all, all_scores, evaluation);
  return ok();
}

Result<Evaluation> run(const TaskContext& context) {
  const int64_t T = context.spec.train.seq_len;
  TaskData data;
  RAT_ASSIGN(data.config, task_data_config(context, "needle"));
  RAT_TRY(validate(data.config, context.spec.model, T));
  RAT_ASSIGN(const auto own, DataSource::open(data.config, context.spec.model, T, context.spec.train.seed));
  std::vector<std::vector<Cell>> lengths;
  int64_t total = 0;
  Evaluation evaluation;
  RAT_TRY(for_each_length(context, lengths_around(T), evaluation.notes, [&](int64_t length) -> Status {
    RAT_ASSIGN(std::vector<Cell> cells, cells_of(context, data.config, length));
    for (const Cell& cell : cells) total += cell.data.sequences() * length;
    data.lengths.push_back({length, cells.front().data.batches, cells.front().data.answers});
    lengths.push_back(std::move(cells));
    return ok();
  }));
  evaluation.data_description = own->description();
  evaluation.data_hash = own->hash();
  auto settings = settings_of(data);
  settings["depths"] = depths_of(context);
  ScoreProgress progress(context, total);
  for (const std::vector<Cell>& cells : lengths)
    RAT_TRY(measure_length(context, cells, progress, evaluation, settings));
  evaluation.settings = settings.dump();
  return evaluation;
}

}  // namespace

const Task& needle_task() {
  static const Task task{
      "needle",
      "Find a key-value pair hidden at a given depth of a noisy sequence",
      "Share of sequences whose last token, a key, is answered with its value, for each depth and length.",
      "1 / keys, keys = (V - 1) / 4; about 1 / pairs for a model that knows the values but not their keys",
      "needle",
      {lengths_setting("T/2, T, 2T, 4T"),
       sequences_setting("64, at each depth too"),
       {"--depths", "0, 0.25, 0.5, 0.75, 1", "0 to 1 each",
        "where the needle lies: 0 start, 1 just before the queries"}},
      run};
  return task;
}

}  // namespace rat
