// A grid of runs: a base spec and lists of values for some of its keys. Resumable: a point whose spec (and seed) is
// already in the store as finished is not run again.
// JSON: {"name": "...", "question": "...", "base": {run spec}, "grid": {"model.layers": ["rat:1*2", "rnn*2"],
// "train.seed": [1, 2]}}
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "experiments/run_spec.h"
#include "experiments/store/store.h"

namespace rat {

struct SweepSpec {
  std::string name, question;
  RunSpec base;
  std::vector<std::pair<std::string, std::vector<std::string>>> grid;
};

Result<SweepSpec> parse_sweep(std::string_view json);
// Every point of the grid, validated, in order; names are "<sweep> <key>=<value> ...".
Result<std::vector<RunSpec>> expand(const SweepSpec& sweep);

struct SweepPlan {
  std::vector<RunSpec> to_run;
  std::vector<RunRow> already_finished;
  std::vector<RunRow> to_resume;  // stopped or crashed with a checkpoint
  std::string sweep_id;           // hash of the sweep's base and grid
};
Result<SweepPlan> plan(const SweepSpec& sweep, const StoreReader& store);
// The same for runs that were read already; none: nothing has been trained yet.
Result<SweepPlan> plan(const SweepSpec& sweep, const std::vector<RunRow>& runs);

}  // namespace rat
