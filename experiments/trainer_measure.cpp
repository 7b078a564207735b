// What a Trainer measures beside training: validation, speeds, stored probe scalars, memory.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>

#include "experiments/statistics.h"
#include "experiments/trainer_impl.h"
#include "kernels/backend.h"

namespace rat {
namespace {

constexpr int64_t scalar_probe_tokens = 256;
constexpr int prefill_repetitions = 3, decode_warm_up = 4, decode_repetitions = 24;

// Prefills the state with `tokens` and returns how long that took.
Result<double> timed_prefill(Model& model, DecodeState& state, std::span<const int32_t> tokens,
                             const PassOptions& options) {
  const Stopwatch watch;
  RAT_TRY(model.prefill(state, tokens, options));
  return watch.ms();
}

double mean(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

Result<Model::Evaluation> Trainer::Impl::evaluate_all(const StopFlag* stop) {
  if (validation.empty()) {
    const int64_t rows = std::max<int64_t>(1, spec.train.batch / spec.train.accumulate);
    RAT_ASSIGN(validation, data->validation(rows, spec.train.eval_tokens));
  }
  Model::Evaluation total;
  for (const TokenBatch& batch : validation) {
    RAT_ASSIGN(const Model::Evaluation part, model->evaluate(batch, {stop, nullptr}));
    total.loss_sum += part.loss_sum;
    total.targets += part.targets;
    total.correct += part.correct;
  }
  return total;
}

Status Trainer::Impl::evaluate(const StopFlag* stop, StepReport* report) {
  if (watch_evaluations) watch_evaluations(true);
  const Result<Model::Evaluation> result = evaluate_all(stop);
  if (watch_evaluations) watch_evaluations(false);
  RAT_ASSIGN(const Model::Evaluation total, result);
  if (total.targets == 0)
    return fail(ErrorCode::invalid_argument, "The validation data has no targets; use more data or shorter sequences.");
  const auto targets = static_cast<double>(total.targets);
  evaluation_due = false;
  evaluated_step = step;
  log("val_loss", total.loss_sum / targets);
  log("val_accuracy", static_cast<double>(total.correct) / targets);
  log("peak_bytes", static_cast<double>(peak_memory_bytes(spec.device)));
  if (report) {
    report->evaluated = true;
    report->val_loss = total.loss_sum / targets;
    report->val_accuracy = static_cast<double>(total.correct) / targets;
  }
  return ok();
}

// Batch 1, one sequence of the training length: prefill of all of it, then decode up to its end (past it where the
// sequence is shorter than the measurement). Medians, after a warm-up.
Status Trainer::Impl::measure_speeds(const StopFlag* stop) {
  const PassOptions options{stop, nullptr};
  RAT_ASSIGN(const std::vector<int32_t> tokens, data->probe_tokens(spec.train.seq_len));
  if (tokens.empty()) return fail(ErrorCode::invalid_argument, "The validation data has no tokens; use more data.");
  const auto count = static_cast<int64_t>(tokens.size());
  std::vector<double> prefill_ms;
  for (int repetition = 0; repetition <= prefill_repetitions; ++repetition) {
    const auto state = model->start_decoding();
    RAT_ASSIGN(const double ms, timed_prefill(*model, *state, tokens, options));
    if (repetition > 0) prefill_ms.push_back(ms);  // the first warms up
    if (repetition == 0) log("cache_bytes", static_cast<double>(state->cache_bytes()));
  }
  log("prefill_tokens_per_s", 1000.0 * static_cast<double>(count) / median(prefill_ms));

  const auto state = model->start_decoding();
  const int64_t prompt = std::max<int64_t>(1, count - decode_warm_up - decode_repetitions);
  RAT_TRY(timed_prefill(*model, *state, std::span(tokens).first(static_cast<std::size_t>(prompt)), options));
  std::vector<double> decode_ms;
  for (int i = 0; i < decode_warm_up + decode_repetitions; ++i) {
    const Stopwatch watch;
    RAT_TRY(model->decode(*state, tokens[static_cast<std::size_t>((prompt + i) % count)], options));
    if (i >= decode_warm_up) decode_ms.push_back(watch.ms());
  }
  log("decode_tokens_per_s", 1000.0 / median(decode_ms));
  return ok();
}

// Per layer: the median half-life of its gates in tokens and the mean entropy of its attention, of the fixed probe
// text.
Status Trainer::Impl::log_probe_scalars(const StopFlag* stop, StepReport& report) {
  if (spec.train.probe_every == 0 || step % spec.train.probe_every != 0) return ok();
  const Stopwatch watch;
  RAT_ASSIGN(const TraceSnapshot snapshot,
             trace({{{Probe::gate, -1}, {Probe::attention_entropy, -1}}}, scalar_probe_tokens, stop));
  for (const ProbeTensor& tensor : snapshot.tensors) {
    if (tensor.probe == Probe::gate)
      log(fmt::format("gate_half_life/{}", tensor.layer), median(channel_half_lives(tensor)));
    if (tensor.probe == Probe::attention_entropy)
      log(fmt::format("attention_entropy/{}", tensor.layer), mean(tensor.values));
  }
  report.times[Op::probes] += watch.ms();
  log("probe_ms", watch.ms());
  return ok();
}

Result<TraceSnapshot> Trainer::Impl::trace(const ProbeRequest& request, int64_t tokens, const StopFlag* stop) {
  RAT_ASSIGN(const std::vector<int32_t> ids, data->probe_tokens(std::max<int64_t>(1, tokens)));
  if (ids.empty())
    return fail(ErrorCode::invalid_argument, "The validation data has no tokens to look at; use more data.");
  RAT_ASSIGN(TraceSnapshot snapshot, model->trace(ids, request, {stop, nullptr}));
  snapshot.run_id = run_id;
  snapshot.step = step;
  snapshot.byte_tokens = data->byte_tokens();
  snapshot.tokenizer = data->tokenizer();
  snapshot.source = snapshot.tokenizer ? "validation text" : "validation tokens";
  return snapshot;
}

namespace {

// The device's own count, where it has one.
std::optional<int64_t> device_peak(const std::string& device, bool reset) {
  const auto backend = kernels::find_backend(device);
  if (!backend || (*backend)->peak_bytes == nullptr) return std::nullopt;
  return static_cast<int64_t>((*backend)->peak_bytes(reset));
}

}  // namespace

int64_t peak_memory_bytes(const std::string& device) {
  if (const auto peak = device_peak(device, false)) return *peak;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  return 0;
}

void reset_peak_memory(const std::string& device) {
  if (!device_peak(device, true)) std::ofstream("/proc/self/clear_refs") << "5" << std::flush;
}

}  // namespace rat
