// One training run from spec to final checkpoint, on the caller's thread. Both the window's session thread and
// `rat train` drive this object; it owns model, optimizer, data and logs to the store.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/model.h"
#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat {

inline constexpr int64_t op_times_every = 10;  // steps between stored op_ms/*

struct StepReport {
  int64_t step = 0;  // steps done, 1-based after the first
  double loss = 0;   // train, nats
  double grad_norm = 0;
  double lr = 0;
  double step_ms = 0;       // without evaluation, probes and checkpoints
  double tokens_per_s = 0;  // train
  OpTimes times;            // of this step; on a device, of the last one that was timed op by op
  bool skipped = false;     // non-finite gradient: the optimizer left the weights alone
  bool evaluated = false;   // the validation numbers are of this step
  double val_loss = 0;      // nats
  double val_accuracy = 0;  // share of targets that were the argmax
  std::string warning;      // e.g. a checkpoint that could not be written; training goes on. Empty: none
};

class Trainer {
 public:
  // Builds data and model and records the run (or adopts `existing_id`, a queued run). The run is `running` on return;
  // when data or model are refused, a queued run becomes `failed` with the reason. `stop` cancels reading the data.
  static Result<std::unique_ptr<Trainer>> start(const RunSpec& spec, StoreWriter& store,
                                                const std::string& existing_id = "", const std::string& sweep_id = "",
                                                const StopFlag* stop = nullptr);
  // Continues a run that is not active from its newest checkpoint that can be read, bit for bit. `steps` > 0 is the new
  // total number of steps (the schedule is then that of the new total). Data that changed since is refused.
  static Result<std::unique_ptr<Trainer>> resume(const RunRow& run, StoreWriter& store, int64_t steps = 0,
                                                 const StopFlag* stop = nullptr);
  ~Trainer();  // a run that is still running becomes `stopped`

  const std::string& run_id() const;
  const RunSpec& spec() const;
  Model& model();
  const DataSource& data() const;
  int64_t step() const;  // steps done
  bool done() const;

  // One optimizer step, with evaluation and checkpoint when due. ErrorCode::cancelled when `stop` was requested inside
  // the step: the step is undone (it will be computed again from the same batch), nothing is lost. After any other
  // error (data that changed, ten steps in a row with a non-finite gradient) the run has been recorded as failed.
  // Stored each step: loss, lr, grad_norm, tokens_per_s, step_ms; every 10th: op_ms/*; with an evaluation: val_loss,
  // val_accuracy, peak_bytes.
  Result<StepReport> train_step(const StopFlag* stop = nullptr);
  // A forward pass over the fixed probe tokens with the weights as they are.
  Result<TraceSnapshot> trace(const ProbeRequest& request, int64_t tokens, const StopFlag* stop = nullptr);
  // The last three checkpoints of a run are kept, and the final one.
  Status checkpoint();
  // When all steps are done: last evaluation, speeds (prefill, decode) and cache size, final checkpoint, `finished`.
  // Cancelled by `stop`: call again, or stop_run. With steps left it is stop_run.
  Status finish(const StopFlag* stop = nullptr);
  // Checkpoint and state `stopped`.
  Status stop_run();
  void fail_run(const std::string& reason);
  // What resuming had to work around (a damaged checkpoint); empty: nothing.
  const std::string& notice() const;
  // Called on the caller's thread when an evaluation begins (true) and ends.
  void watch_evaluations(std::function<void(bool)> watch);
  // Time of work done for the viewer's sake between steps, e.g. live probes: logged as probe_ms.
  void log_probe_ms(double ms);

 private:
  Trainer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
