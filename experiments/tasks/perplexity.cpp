// Loss, perplexity and accuracy on the run's own validation data.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

Result<Evaluation> run(const TaskContext& context) {
  return measure_lengths(context, "", {context.spec.train.seq_len});
}

}  // namespace

const Task& perplexity_task() {
  static const Task task{
      "perplexity",
      "Loss and perplexity on the run's own validation data",
      "Mean cross-entropy in nats over all predictions; perplexity is its exponential; for bytes also bits per byte.",
      "exp(loss) = V for a model that gives every token the same probability",
      "",
      {lengths_setting("T"), sequences_setting("train.eval_tokens / T, at least 32")},
      run};
  return task;
}

}  // namespace rat
