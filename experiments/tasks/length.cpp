// Length generalisation: trained at T, measured on shorter and longer sequences with the positions it was trained with.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

Result<Evaluation> run(const TaskContext& context) {
  const int64_t T = context.spec.train.seq_len;
  // A long sequence is mostly positions that were trained; what the others cost shows in their own mean.
  const auto beyond = [T](const LengthData& data, const TokenScores& scores, Evaluation& evaluation) {
    if (data.seq_len <= T) return;
    const Estimate loss = mean_loss(scores, T, data.seq_len);
    if (loss.targets > 0) evaluation.points.push_back(point_of("loss_beyond", data.seq_len, loss));
  };
  return measure_lengths(context, "", lengths_around(T), beyond);
}

}  // namespace

const Task& length_task() {
  static const Task task{
      "length",
      "Loss and accuracy on sequences shorter and longer than those of training",
      "Loss over all positions, over the positions from T on (which training never reached), and accuracy, for each "
      "length; the data settings stay, except that a string to copy grows with the sequence.",
      "as for the run's own data",
      "",
      {lengths_setting("T/2, T, 2T, 4T"), sequences_setting("train.eval_tokens / length, at least 32")},
      run};
  return task;
}

}  // namespace rat
