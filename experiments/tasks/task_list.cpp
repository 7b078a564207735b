// THE list of evaluation tasks, in the order in which help shows them.
#include <algorithm>
#include <array>

#include "experiments/spec_fields.h"
#include "experiments/tasks/task_data.h"

namespace rat {

std::span<const Task> tasks() {
  static const std::array list{perplexity_task(), loss_by_position_task(), length_task(), mqar_task(), needle_task(),
                               copy_task(),       induction_task()};
  return list;
}

Result<const Task*> find_task(std::string_view name) {
  std::vector<std::string> names;
  for (const Task& task : tasks()) {
    if (task.name == name) return &task;
    names.emplace_back(task.name);
  }
  return fail(ErrorCode::invalid_argument, "There is no task '{}'{} Use one of: {}.", name, suggestion(name, names),
              fmt::join(names, ", "));
}

Result<TokenBatch> example_sequence(const TaskContext& context, const Task& task) {
  RAT_ASSIGN(const TaskData data, open_task_data(context, task.data_kind, {context.spec.train.seq_len}));
  TokenBatch example = data.lengths.front().batches.front();
  example.batch = 1;
  example.inputs.resize(static_cast<std::size_t>(example.tokens));
  example.targets.resize(example.inputs.size());
  return example;
}

const Task& default_task(const RunSpec& spec) {
  const auto own = std::ranges::find(tasks(), std::string_view(spec.data.kind), &Task::data_kind);
  return own != tasks().end() ? *own : tasks().front();
}

}  // namespace rat
