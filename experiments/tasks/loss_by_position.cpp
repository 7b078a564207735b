// Loss as a function of the position in the sequence: what a longer context is worth to the model.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

void add_positions(const LengthData& data, const TokenScores& scores, Evaluation& evaluation) {
  for (int64_t position = 0; position < data.seq_len; ++position) {
    const Estimate loss = mean_loss(scores, position, position + 1);
    if (loss.targets == 0) continue;  // a task that never asks here
    EvaluationPoint point = point_of("loss", data.seq_len, loss);
    point.position = position;
    evaluation.points.push_back(point);
  }
}

Result<Evaluation> run(const TaskContext& context) {
  return measure_lengths(context, "", {context.spec.train.seq_len}, add_positions);
}

}  // namespace

const Task& loss_by_position_task() {
  static const Task task{
      "loss_by_position",
      "Loss at every position of the sequence, on the run's own validation data",
      "Mean cross-entropy in nats of the prediction made at position t (0-based), which sees t + 1 tokens.",
      "as for perplexity, at every position",
      "",
      {lengths_setting("T"), sequences_setting("train.eval_tokens / T, at least 32")},
      run};
  return task;
}

}  // namespace rat
