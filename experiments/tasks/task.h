// Evaluation tasks: what can be measured of a trained model beside its training loss. One file per task here plus one
// line in task_list.cpp; `rat eval`, its help, the store and the figures follow from the list.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/model.h"
#include "kernels/base/cache_dtype.h"
#include "experiments/run_spec.h"
#include "experiments/store/evaluation.h"

namespace rat {

enum class Through : uint8_t {
  pass,    // one parallel pass over each sequence
  decode,  // token by token, as generation computes, every prediction after the sequence's own tokens
};

// What a caller may choose. Empty and 0 stand for the task's default, which follows from the run's spec.
struct TaskOptions {
  std::vector<std::pair<std::string, std::string>> data;  // "data.pairs" -> "8": changes to the task's data settings
  std::vector<int64_t> lengths;                           // tokens of the sequences measured
  std::vector<double> depths;                             // needle: where the needle lies, 0 start .. 1 end
  int64_t sequences = 0;                                  // n, at each length (and depth)
  int64_t tokens = 0;                                     // the same by tokens: n = tokens / length
  int64_t memory_bytes = 0;                               // a pass may use this much; 0: half of what is free
  Through through = Through::pass;
  // Of decoding: in which precision keys and values are kept; nothing: as the layers compute. Results are then also
  // compared, prediction by prediction: those of another precision with those of the layers' own, these with the pass.
  std::optional<kernels::CacheDtype> cache;
};

struct TaskContext {
  Model& model;
  const RunSpec& spec;  // of the run
  const TaskOptions& options;
  const StopFlag* stop = nullptr;
  std::function<void(int64_t done, int64_t total)> progress;  // in tokens; may be empty
};

struct TaskSetting {
  std::string_view name, fallback, range, meaning;  // "lengths", "T/2, T, 2T, 4T", "1 or more tokens", "..."
};

struct Task {
  std::string_view name;
  std::string_view description;       // one line for pickers and help
  std::string_view measures;          // one sentence: what the number says
  std::string_view chance;            // accuracy of a model that has learnt nothing
  std::string_view data_kind;         // what it generates; empty: the run's own data
  std::vector<TaskSetting> settings;  // beside those of its data kind
  // Fills everything but step, device, dtype and what the store adds. Notes say which default lengths were left out.
  Result<Evaluation> (*run)(const TaskContext& context) = nullptr;
};

std::span<const Task> tasks();
// Otherwise an error that lists the known names and suggests the nearest.
Result<const Task*> find_task(std::string_view name);
// What a run is measured by when nothing is said: the task of its own data.
const Task& default_task(const RunSpec& spec);

// One validation sequence of the task's data (B = 1), to look at.
Result<TokenBatch> example_sequence(const TaskContext& context, const Task& task);

// One file each.
const Task& perplexity_task();
const Task& loss_by_position_task();
const Task& length_task();
const Task& mqar_task();
const Task& needle_task();
const Task& copy_task();
const Task& induction_task();

}  // namespace rat
