#include "views/canvases/throughput_data.h"

#include <fmt/format.h>

#include <limits>

#include "views/canvases/format.h"

namespace rat::views {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

std::string conditions(const std::optional<RunSpec>& spec, int64_t batch) {
  if (!spec) return "spec not readable";
  return fmt::format("batch {}, T {}, {}, {}", batch, grouped(spec->train.seq_len), spec->train.dtype, spec->device);
}

double metric(const RunRow& run, const std::string& name) {
  const auto at = run.metrics.find(name);
  return at == run.metrics.end() ? unknown : at->second.last;
}

double known(double value) { return value > 0 ? value : unknown; }

void add_cost(ThroughputData& data, double train_tokens_per_s) {
  data.train_flops_per_s = unknown;
  if (!data.spec) return;
  const int64_t micro_batch = data.spec->train.batch / std::max<int64_t>(data.spec->train.accumulate, 1);
  data.cost = estimate_cost(data.spec->model, data.spec->train.seq_len, std::max<int64_t>(micro_batch, 1));
  data.train_flops_per_s = data.cost->train_flops_per_token * train_tokens_per_s;
}

// Decoding of the model in hand, when the Generate canvas has measured it.
void add_generation(ThroughputData& data, const Frame& frame) {
  const auto& generation = frame.generation;
  if (!generation || generation->run_id != data.run_id || data.run_id.empty()) return;
  std::string how = fmt::format("{}, {}", generation->dtype, generation->device);
  if (!generation->cache_dtype.empty() && generation->cache_dtype != generation->dtype)
    how += fmt::format(", cache {}", generation->cache_dtype);
  if (generation->decode_tokens_per_s > 0)
    data.speeds.push_back(
        {"decode", generation->decode_tokens_per_s, unknown, unknown,
         fmt::format("batch {}, position {}, {}", generation->samples, grouped(generation->position), how),
         "Generate canvas"});
  if (generation->prefill_tokens_per_s > 0)  // the prompt, once for all samples
    data.speeds.push_back({"prefill", generation->prefill_tokens_per_s, unknown, unknown,
                           fmt::format("batch 1, T {}, {}", grouped(generation->prompt_tokens), how),
                           "Generate canvas"});
}

ThroughputData from_live(const TrainingStatus& status) {
  ThroughputData data;
  data.run_id = status.run_id;
  data.title =
      fmt::format("{} \xc2\xb7 {} \xc2\xb7 step {} of {}", status.run_name.empty() ? status.run_id : status.run_name,
                  activity_name(status.activity), grouped(status.step), grouped(status.steps_total));
  data.spec = status.spec;
  const std::size_t steps = status.recent_step_ms.size();
  data.speeds.push_back(
      {"train", known(status.tokens_per_s_median), known(status.tokens_per_s_q1), known(status.tokens_per_s_q3),
       conditions(data.spec, status.spec.train.batch),
       steps > 0 ? fmt::format("median of {} step{}", steps, steps == 1 ? "" : "s") : "after the first steps"});
  for (const char* regime : {"prefill", "decode"})
    data.speeds.push_back({regime, unknown, unknown, unknown, conditions(data.spec, 1), "measured when the run ends"});
  data.step_ms = status.recent_step_ms;
  data.last_step = status.step;
  data.step_median = known(status.step_ms_median), data.step_q1 = known(status.step_ms_q1),
  data.step_q3 = known(status.step_ms_q3);
  data.ops = status.op_ms_per_step;
  data.probe_share = status.probe_share, data.probe_budget = status.probe_budget;
  data.peak_bytes = known(static_cast<double>(status.peak_bytes)), data.cache_bytes = unknown;
  return data;
}

ThroughputData from_stored(const RunRow& run) {
  ThroughputData data;
  data.run_id = run.id;
  data.title = fmt::format("{} \xc2\xb7 {} \xc2\xb7 {} of {} steps", run.name.empty() ? run.id : run.name,
                           run_state_name(run.state), grouped(run.steps_done), grouped(run.steps_total));
  if (auto spec = parse_spec(run.spec_json)) data.spec = *std::move(spec);
  data.speeds.push_back({"train", metric(run, "tokens_per_s"), unknown, unknown,
                         conditions(data.spec, data.spec ? data.spec->train.batch : 0), "last step stored"});
  data.speeds.push_back({"prefill", metric(run, "prefill_tokens_per_s"), unknown, unknown, conditions(data.spec, 1),
                         "at the end of the run"});
  data.speeds.push_back({"decode", metric(run, "decode_tokens_per_s"), unknown, unknown, conditions(data.spec, 1),
                         "at the end of the run"});
  data.step_median = metric(run, "step_ms"), data.step_q1 = data.step_q3 = unknown;
  for (std::size_t i = 0; i < op_names.size(); ++i)
    if (const double ms = metric(run, fmt::format("op_ms/{}", op_names[i])); ms > 0) data.ops.ms[i] = ms;
  data.probe_share = data.probe_budget = unknown;
  data.peak_bytes = metric(run, "peak_bytes"), data.cache_bytes = metric(run, "cache_bytes");
  return data;
}

}  // namespace

std::optional<ThroughputData> gather_throughput(const Frame& frame) {
  std::optional<ThroughputData> data;
  if (frame.subject == Subject::stored && frame.stored_run)
    data = from_stored(*frame.stored_run);
  else if (frame.subject == Subject::live && frame.training && !frame.training->run_id.empty())
    data = from_live(*frame.training);
  if (!data) return data;
  add_cost(*data, data->speeds[0].tokens_per_s);
  add_generation(*data, frame);
  return data;
}

}  // namespace rat::views
