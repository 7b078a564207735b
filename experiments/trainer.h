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

struct StepReport {
  int64_t step = 0;          // steps done, 1-based after the first
  double loss = 0;           // train, nats
  double grad_norm = 0;
  double lr = 0;
  double step_ms = 0;        // without evaluation, probes and checkpoints
  double tokens_per_s = 0;   // train
  OpTimes times;             // of this step
  bool skipped = false;      // non-finite gradient: the optimizer left the weights alone
};

class Trainer {
 public:
  // Builds data and model and records the run (or adopts `existing_id`, a queued run). The run is `running` on return.
  static Result<std::unique_ptr<Trainer>> start(const RunSpec& spec, StoreWriter& store, const std::string& existing_id = "",
                                                const std::string& sweep_id = "");
  // Continues a stopped or crashed run from its newest checkpoint, bit for bit. `steps` > 0 extends it.
  static Result<std::unique_ptr<Trainer>> resume(const RunRow& run, StoreWriter& store, int64_t steps = 0);
  ~Trainer();

  const std::string& run_id() const;
  const RunSpec& spec() const;
  Model& model();
  const DataSource& data() const;
  int64_t step() const;       // steps done
  bool done() const;

  // One optimizer step, with evaluation and checkpoint when due. ErrorCode::cancelled when `stop` was requested inside
  // the step: the step is undone (it will be computed again from the same batch), nothing is lost.
  Result<StepReport> train_step(const StopFlag* stop = nullptr);
  // A forward pass over the fixed probe tokens with the weights as they are.
  Result<TraceSnapshot> trace(const ProbeRequest& request, int64_t tokens, const StopFlag* stop = nullptr);
  Status checkpoint();
  // Last evaluation and speeds (prefill, decode) if done, final checkpoint, state `finished`.
  Status finish(const StopFlag* stop = nullptr);
  // Checkpoint and state `stopped`.
  Status stop_run();
  void fail_run(const std::string& reason);

 private:
  Trainer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat
