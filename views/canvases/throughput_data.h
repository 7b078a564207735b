// What the Throughput canvas shows, gathered from a live run's status or from a stored run's metrics.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/cost_model.h"
#include "views/canvases/view.h"

namespace rat::views {

struct SpeedRow {
  std::string regime;      // train, prefill, decode
  double tokens_per_s;     // NaN: not measured
  double q1, q3;           // NaN: one measurement
  std::string conditions;  // "batch 16, T 512, f32, cpu"
  std::string basis;       // "median of 200 steps", "last value", "measured when the run ends"
};

struct ThroughputData {
  std::string run_id, title;
  std::optional<RunSpec> spec;
  std::optional<CostEstimate> cost;
  std::vector<SpeedRow> speeds;
  std::vector<float> step_ms;  // recent steps, oldest first; empty for stored runs
  int64_t last_step = 0;
  double step_median = 0, step_q1 = 0, step_q3 = 0;  // NaN: not known
  OpTimes ops;
  double probe_share = 0, probe_budget = 0;  // NaN: not known
  double peak_bytes = 0, cache_bytes = 0;    // NaN: not known
  double train_flops_per_s = 0;              // from the cost model and the median; NaN: not known
};

// None when there is neither a live nor a stored run.
std::optional<ThroughputData> gather_throughput(const Frame& frame);

}  // namespace rat::views
