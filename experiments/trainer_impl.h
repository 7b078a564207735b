// What a Trainer holds, shared by the files that implement it.
#pragma once

#include <chrono>

#include "core/io/checkpoint.h"
#include "experiments/data/data_source.h"
#include "experiments/trainer.h"

namespace rat {

class Stopwatch {
 public:
  double ms() const { return std::chrono::duration<double, std::milli>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

struct Trainer::Impl {
  Impl(RunSpec run_spec, StoreWriter& writer) : spec(std::move(run_spec)), store(writer) {}

  RunSpec spec;
  StoreWriter& store;
  std::string run_id;
  std::unique_ptr<DataSource> data;
  std::unique_ptr<Model> model;
  std::unique_ptr<AdamW> optimizer;
  int64_t step = 0;  // steps done
  int64_t skipped_in_a_row = 0;
  bool evaluation_due = false;  // of the weights as they are; survives a stop inside the evaluation
  int64_t evaluated_step = -1;
  int64_t saved_step = -1;   // newest checkpoint on disk
  OpTimes last_times;        // of the last step that was timed op by op
  bool ended = false;        // the row has its final state
  double wall_before_s = 0;  // of earlier sessions of this run
  Stopwatch since_start;
  double checkpoint_retry_at_s = -1;  // on since_start's clock; < 0: no failed checkpoint is waiting
  std::string checkpoint_problem, notice;
  std::vector<TokenBatch> validation;  // read once
  std::function<void(bool)> watch_evaluations;

  double wall_s() const { return wall_before_s + since_start.ms() / 1000; }
  void log(const std::string& metric, double value) { store.log(run_id, metric, step, value, wall_s()); }

  // trainer.cpp
  Status build(const StopFlag* stop);
  std::vector<LayerConfig> layers_of_step() const;
  Result<StepReport> train_step(const StopFlag* stop);
  bool is_timed_op_by_op() const;
  Result<StepReport> optimizer_step(const StopFlag* stop);
  Result<double> gradients(const TokenBatch& batch, const PassOptions& options);
  void log_step(const StepReport& report);
  Status end(RunState state, const std::string& error = "");

  // trainer_measure.cpp
  Status evaluate(const StopFlag* stop, StepReport* report);
  Result<Model::Evaluation> evaluate_all(const StopFlag* stop);
  Status measure_speeds(const StopFlag* stop);
  Status log_probe_scalars(const StopFlag* stop, StepReport& report);
  Result<TraceSnapshot> trace(const ProbeRequest& request, int64_t tokens, const StopFlag* stop);

  // trainer_checkpoint.cpp
  Status save(bool final);
  void save_if_due(StepReport& report);
  void remove_old_checkpoints();
  Status load_newest(const RunRow& run);
};

// On the CPU, the largest resident size of this process since `reset_peak_memory`, or since its start where the kernel has
// no reset; on another device, the most of its memory that was taken.
int64_t peak_memory_bytes(const std::string& device);
void reset_peak_memory(const std::string& device);

}  // namespace rat
