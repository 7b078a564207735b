// The last steps of a live run, for the numbers of the Throughput view, and the budget that live probes keep to.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>

#include "experiments/session.h"

namespace rat {

class StepHistory {
 public:
  void clear() { *this = {}; }
  void add(const StepReport& report);
  void add_probe_ms(double ms);  // to the newest step
  // Medians, quartiles, operation means and recent steps; leaves the rest of the status alone.
  void fill(TrainingStatus& status) const;
  double median_step_ms() const;

 private:
  static constexpr std::size_t capacity = 200;
  static constexpr int64_t warm_up = 3;  // first steps allocate and fault pages in: they are not the speed of the run
  struct Item {
    float step_ms, tokens_per_s;
    OpTimes times;
  };
  std::deque<Item> items_;
  int64_t seen_ = 0;
};

// Probe time is paid from training time: a trace runs when its expected cost is covered. A new request may run up to
// `overdraft_ms` ahead, so that a click answers at once and dragging a slider still cannot stall training.
class ProbeBudget {
 public:
  void clear() { *this = {}; }
  void trained(double ms) { train_ms_ += ms; }
  void probed(double ms) { probe_ms_ += ms, last_ms_ = ms; }
  double share() const { return train_ms_ > 0 ? probe_ms_ / train_ms_ : 0; }
  bool allows(bool new_request, double budget) const {
    const double debt = probe_ms_ + last_ms_ - budget * train_ms_;
    return debt <= (new_request ? overdraft_ms : 0);
  }

 private:
  static constexpr double overdraft_ms = 300;
  double train_ms_ = 0, probe_ms_ = 0, last_ms_ = 0;
};

// Numbers published traces, across all sessions of the process.
uint64_t next_trace_serial();

}  // namespace rat
