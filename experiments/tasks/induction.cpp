// Induction: experiments/data/induction_source.h.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

Result<Evaluation> run(const TaskContext& context) {
  return measure_lengths(context, "induction", {context.spec.train.seq_len});
}

}  // namespace

const Task& induction_task() {
  static const Task task{"induction",
                         "What followed this symbol the last time it came?",
                         "Share of repeated symbols whose successor is the most likely token.",
                         "1 / (V - 1); more for a model that knows which symbols occur but not their order",
                         "induction",
                         {lengths_setting("T"), sequences_setting("train.eval_tokens / T, at least 32")},
                         run};
  return task;
}

}  // namespace rat
