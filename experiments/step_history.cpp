#include "experiments/step_history.h"

#include <atomic>

#include "experiments/statistics.h"

namespace rat {

void StepHistory::add(const StepReport& report) {
  if (++seen_ <= warm_up) return;
  items_.push_back({static_cast<float>(report.step_ms), static_cast<float>(report.tokens_per_s), report.times});
  if (items_.size() > capacity) items_.pop_front();
}

void StepHistory::add_probe_ms(double ms) {
  if (!items_.empty()) items_.back().times[Op::probes] += ms;
}

void StepHistory::fill(TrainingStatus& status) const {
  status.recent_step_ms.clear();
  status.op_ms_per_step = {};
  std::vector<float> rates;
  for (const Item& item : items_) {
    status.recent_step_ms.push_back(item.step_ms);
    rates.push_back(item.tokens_per_s);
    for (std::size_t op = 0; op < op_names.size(); ++op)
      status.op_ms_per_step.ms[op] += item.times.ms[op] / static_cast<double>(items_.size());
  }
  if (items_.empty()) return;  // the medians of nothing stay 0
  const Quartiles step_ms = quartiles(status.recent_step_ms), tokens_per_s = quartiles(rates);
  status.step_ms_q1 = step_ms.q1, status.step_ms_median = step_ms.median, status.step_ms_q3 = step_ms.q3;
  status.tokens_per_s_q1 = tokens_per_s.q1, status.tokens_per_s_median = tokens_per_s.median,
  status.tokens_per_s_q3 = tokens_per_s.q3;
}

double StepHistory::median_step_ms() const {
  std::vector<float> times;
  for (const Item& item : items_) times.push_back(item.step_ms);
  return times.empty() ? 0 : median(times);
}

uint64_t next_trace_serial() {
  static std::atomic<uint64_t> serial{0};
  return ++serial;
}

}  // namespace rat
