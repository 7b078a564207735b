// Copying a string: experiments/data/copy_source.h.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

Result<Evaluation> run(const TaskContext& context) {
  return measure_lengths(context, "copy", {context.spec.train.seq_len});
}

}  // namespace

const Task& copy_task() {
  static const Task task{"copy",
                         "Say a random string once more, symbol by symbol",
                         "Share of symbols that are the most likely token when all before them were copied correctly.",
                         "1 / (V - 2); more for a model that knows which symbols occur but not their order",
                         "copy",
                         {lengths_setting("T"), sequences_setting("train.eval_tokens / T, at least 32")},
                         run};
  return task;
}

}  // namespace rat
