// One run driven to its end (or to Ctrl+C) with progress on stderr: what `rat train` and `rat sweep` share.
#pragma once

#include <memory>
#include <string>

#include "app/cli/interrupt.h"
#include "experiments/trainer.h"

namespace rat::cli {

struct TrainingOutcome {
  bool stopped = false;  // by a signal; the run can be resumed
  int64_t step = 0;      // steps done
  double elapsed_s = 0;
};

// A failed step marks the run as failed and is returned as the error. `label` stands before the step count.
Result<TrainingOutcome> drive(Trainer& trainer, Interrupts& interrupts, const std::string& label);

// A relative data path means the folder the command was started in, also when the run is resumed elsewhere.
void make_data_path_absolute(RunSpec& spec);

// The whole file; refuses folders and anything unreadable in one sentence.
Result<std::string> read_text_file(const std::string& path);

}  // namespace rat::cli
