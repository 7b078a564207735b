// Ctrl+C during training. The first SIGINT, SIGTERM or SIGHUP asks for a stop after the current step; the second stops
// inside it and leaves at most a second for the checkpoint; a third ends the process at once.
#pragma once

#include "core/stop.h"

namespace rat::cli {

// While one of these lives, signals are handled as above and a closed pipe on stderr does not end the process.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // Before training starts nothing is worth saving: a signal ends the process at once. From here on it is.
  void begin_work();
  // Work that leaves nothing half done (rat eval): the first signal stops it inside the pass.
  void begin_measuring();
  // Evaluation at the end, too, may be cut short by the first signal.
  void stop_inside_steps();
  bool requested() const;
  const StopFlag& stop() const;  // set by the second signal, or by the first after stop_inside_steps()
};

}  // namespace rat::cli
