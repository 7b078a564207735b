// The process that store_crash_test kills: writes runs and points as fast as it can and notes what was acknowledged.
//   store_crash_writer DB ACK_FILE            until killed
//   store_crash_writer DB ACK_FILE COUNT      creates COUNT runs, ends them, and exits
//   store_crash_writer DB ACK_FILE kill-at N  the scenario, killed at its N-th write
//   store_crash_writer DB ACK_FILE migrate N  brings DB to the scenario's newest version, killed at the N-th write
#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "experiments/store/migrations.h"
#include "experiments/store/store.h"
#include "tests/experiments/fault_vfs.h"
#include "tests/experiments/store_crash.h"
#include "tests/experiments/store_scenario.h"

namespace {

using namespace rat;

int complain(const Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return 1;
}

NewRun describe() {
  NewRun run;
  run.name = "victim";
  run.spec_json = "{}";
  run.spec_hash = "hash";
  run.state = RunState::running;
  return run;
}

int die_in_scenario(const char* db, int acknowledged, int64_t at) {
  install_fault_vfs();
  arm_fault(Fault::kill, at);
  std::vector<std::string> problems;
  const Status done = run_scenario(
      db,
      [&](const Promised& promised) {
        if (pwrite(acknowledged, &promised, sizeof promised, 0) != sizeof promised) std::abort();
      },
      problems);
  if (!done) return complain(done.error());
  return problems.empty() ? 0 : 1;
}

int die_in_migration(const char* path, int64_t at) {
  install_fault_vfs();
  arm_fault(Fault::kill, at);
  SQLite::Database db(path, SQLite::OPEN_READWRITE, 5000);
  db.exec("PRAGMA synchronous = FULL");
  store::migrate(db, scenario_migrations());
  db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const int acknowledged = open(arguments[2], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (count > 4) {
    const int64_t at = std::atoll(arguments[4]);
    return std::string_view(arguments[3]) == "migrate" ? die_in_migration(arguments[1], at)
                                                       : die_in_scenario(arguments[1], acknowledged, at);
  }
  auto writer = StoreWriter::open(arguments[1]);
  if (!writer) return complain(writer.error());
  if (count > 3) {
    for (int i = std::atoi(arguments[3]); i > 0; --i) {
      const auto id = (*writer)->create_run(describe());
      if (!id) return complain(id.error());
      if (const Status ended = (*writer)->end_run(*id, RunState::finished); !ended) return complain(ended.error());
    }
    return 0;
  }
  const auto id = (*writer)->create_run(describe());
  if (!id) return complain(id.error());
  Acknowledged note{};
  std::snprintf(note.run_id, sizeof note.run_id, "%s", id->c_str());
  note.steps = 0;
  if (pwrite(acknowledged, &note, sizeof note, 0) != sizeof note) return 1;
  for (int64_t step = 0;; ++step) {
    for (int metric = 0; metric < crash_metrics; ++metric)
      (*writer)->log(*id, crash_metric_name(metric), step, crash_value(step, metric), 0);
    (*writer)->set_progress(*id, step + 1);
    if (step % 7 != 0) continue;
    if (const Status flushed = (*writer)->flush(); !flushed) return complain(flushed.error());
    note.steps = step + 1;  // survives the kill: the kernel has it
    if (pwrite(acknowledged, &note, sizeof note, 0) != sizeof note) return 1;
  }
}
