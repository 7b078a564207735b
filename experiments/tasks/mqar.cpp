// Multi-query associative recall: experiments/data/mqar_source.h.
#include "experiments/tasks/task_data.h"

namespace rat {
namespace {

Result<Evaluation> run(const TaskContext& context) {
  return measure_lengths(context, "mqar", {context.spec.train.seq_len});
}

}  // namespace

const Task& mqar_task() {
  static const Task task{"mqar",
                         "Multi-query associative recall: which value came with this key?",
                         "Share of queries whose value is the most likely token.",
                         "1 / values; about 1 / pairs for a model that knows which values occur but not with which key",
                         "mqar",
                         {lengths_setting("T"), sequences_setting("train.eval_tokens / T, at least 32")},
                         run};
  return task;
}

}  // namespace rat
