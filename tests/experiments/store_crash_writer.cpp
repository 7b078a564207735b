// The process that store_crash_test kills: writes runs and points as fast as it can and notes what was acknowledged.
//   store_crash_writer DB ACK_FILE            until killed
//   store_crash_writer DB ACK_FILE COUNT      creates COUNT runs, ends them, and exits
#include <fcntl.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "experiments/store/store.h"
#include "tests/experiments/store_crash.h"

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

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) return 2;
  const int acknowledged = open(arguments[2], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
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
