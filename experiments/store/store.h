// The run database. Readers open it read-only; each process has one StoreWriter, whose thread is the only writer and
// the only checkpointer of that process. Tables and plain-named views are documented in store/schema*.sql, so
// `sqlite3 runs.db` is enough to get at everything.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "experiments/store/evaluation.h"
#include "kernels/base/status.h"

namespace rat {

enum class RunState { queued, running, finished, stopped, crashed, failed };
std::string_view run_state_name(RunState state);

struct MetricSummary {
  double last = 0, best = 0;  // best: smallest for losses, largest for accuracy and rates
  int64_t last_step = 0, count = 0;
};

struct RunRow {
  std::string id;  // short, unique, stable
  std::string name;
  std::vector<std::string> tags;
  RunState state = RunState::queued;  // truthful: a run whose process is gone is crashed, whatever the row says
  std::string error;                  // why it failed
  std::string spec_json, spec_hash, sweep_id;
  std::string layers;  // pattern, e.g. "rat:16*4"
  std::string commit;
  bool dirty = false;
  std::string host, cpu, gpu, build;  // build: type, compiler, flags, library versions
  uint64_t seed = 0;
  std::string data_description, data_hash;
  std::string device, dtype;
  int64_t steps_done = 0, steps_total = 0;
  double created_at = 0, started_at = 0, ended_at = 0, heartbeat_at = 0;  // Unix seconds; 0: not yet
  int64_t color = 0;       // index into Theme::series, bound to the run for good
  std::string checkpoint;  // newest complete weights file, absolute; empty: none
  std::map<std::string, MetricSummary> metrics;
};

struct MetricPoint {
  int64_t step = 0;
  double value = 0;   // NaN, infinities and -0.0 survive the store
  double wall_s = 0;  // seconds since the run started
};

// Metric names the trainer writes: "loss" (train, nats), "val_loss" (nats), "val_accuracy" (share), "lr", "grad_norm",
// "tokens_per_s" (train), "step_ms", "probe_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "cache_bytes",
// "peak_bytes", "op_ms/<name>" for each name of core/op_times.h.

// Opens an existing database read-only. Refuses, in one sentence and without touching the file: foreign files, newer
// versions, directories, devices. Not thread-safe: one per thread.
class StoreReader {
 public:
  static Result<StoreReader> open(const std::filesystem::path& path);
  StoreReader(StoreReader&&) noexcept;
  StoreReader& operator=(StoreReader&&) noexcept;
  ~StoreReader();

  Result<std::vector<RunRow>> runs(bool include_deleted = false) const;  // newest first
  // By id, unique name, or unique start of an id, in this order: a name is not taken for the start of another run's id.
  Result<RunRow> run(const std::string& id_or_name) const;
  Result<RunRow> deleted_run(const std::string& id_or_name) const;  // the same among the deleted ones
  Result<std::vector<std::string>> metric_names(const std::string& run_id) const;
  // Every stored point with step > after_step, in order; never a sample.
  Result<std::vector<MetricPoint>> series(const std::string& run_id, const std::string& metric,
                                          int64_t after_step = -1) const;
  // What `rat eval` measured of a run, oldest first; `task` empty: all tasks.
  Result<std::vector<Evaluation>> evaluations(const std::string& run_id, const std::string& task = "") const;
  // Changes whenever any process commits: cheap to poll.
  Result<int64_t> data_version() const;
  Status check() const;                                  // integrity_check, foreign keys, checkpoints present
  Status backup(const std::filesystem::path& to) const;  // a consistent copy while others write

 private:
  StoreReader();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct NewRun {
  std::string name, spec_json, spec_hash, layers, sweep_id, data_description, data_hash, device, dtype;
  uint64_t seed = 0;
  int64_t steps_total = 0;
  RunState state = RunState::queued;
};

// All calls return at once or after their own commit, as stated; any thread may call.
class StoreWriter {
 public:
  // Creates the file (and its folder) when missing, migrates older versions, derives the true state of runs whose
  // process died. `path` must not be on a network file system (WAL): refused with the reason.
  static Result<std::unique_ptr<StoreWriter>> open(const std::filesystem::path& path);
  ~StoreWriter();  // commits what is queued

  const std::filesystem::path& path() const;
  std::filesystem::path run_folder(const std::string& run_id) const;  // checkpoints of one run, beside the database

  // After the commit:
  Result<std::string> create_run(const NewRun& run);  // returns the id
  Status start_run(const std::string& id);            // running; records process, boot and host
  // While the disk is full this returns the error and is done as soon as the disk allows.
  Status end_run(const std::string& id, RunState state, const std::string& error = "");
  Status record_checkpoint(const std::string& id, int64_t step, const std::filesystem::path& weights);
  Status forget_checkpoint(const std::string& id, int64_t step);  // its files are about to be removed
  Status set_data(const std::string& id, const std::string& description, const std::string& hash);
  // A resumed run that was given more steps: its spec now says so.
  Status set_spec(const std::string& id, const std::string& spec_json, const std::string& spec_hash,
                  int64_t steps_total);
  Status rename_run(const std::string& id, const std::string& name);
  Status set_tags(const std::string& id, const std::vector<std::string>& tags);
  Status delete_run(const std::string& id);  // hidden, recoverable by undelete_run
  Status undelete_run(const std::string& id);
  // For good, with its checkpoints, unless another database in the folder has the run too: they share its files.
  Status purge_run(const std::string& id);
  // All or nothing; replaces the evaluation with the same task, step, settings and data.
  Status record_evaluation(const std::string& id, const Evaluation& evaluation);
  // For resume: forgets metric points and evaluations after `step` (they will be computed again).
  Status truncate_metrics(const std::string& id, int64_t step);
  // Copies runs (not already present) of another database, with their metrics and checkpoints; returns how many.
  Result<int64_t> merge(const std::filesystem::path& other);
  Status flush();  // everything logged before this call is committed

  // At once, never blocks on the disk; held in memory and retried while the disk is full.
  void log(const std::string& id, const std::string& metric, int64_t step, double value, double wall_s);
  void set_progress(const std::string& id, int64_t steps_done);  // also the heartbeat

  struct Health {
    int64_t queued = 0;         // points not yet committed
    double last_commit_at = 0;  // Unix seconds
    std::string problem;        // empty: fine; else one sentence, e.g. the disk is full
  };
  Health health() const;

 private:
  StoreWriter();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// $XDG_DATA_HOME/rat-workbench/runs.db, or ~/.local/share/rat-workbench/runs.db.
std::filesystem::path default_database_path();

}  // namespace rat
