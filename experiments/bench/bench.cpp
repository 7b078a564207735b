#include "experiments/bench/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>
#include <span>

#include "core/mixer_list.h"
#include "core/optimizer.h"
#include "core/single_layer.h"
#include "experiments/bench/peak_memory.h"
#include "experiments/data/random_stream.h"

namespace rat {
namespace {

constexpr int64_t most_repetitions = 10'000;
constexpr int64_t timed_op_by_op = 5;   // repetitions, on a device
constexpr int64_t steps_at_a_time = 16;  // of decoding a layer, on a device
constexpr uint64_t bench_seed = 1;

// From `drawn` values on the same again: drawing hundreds of millions would take longer than what is timed.
std::vector<float> random_normal(std::size_t count) {
  constexpr std::size_t drawn = std::size_t{1} << 24;
  RandomStream random{bench_seed, 1};
  std::vector<float> values(count);
  const auto uniform = [&] { return static_cast<double>((random.next() >> 11) + 1) * 0x1p-53; };  // (0, 1]
  for (float& value : std::span(values).first(std::min(count, drawn)))                            // Box-Muller
    value = static_cast<float>(std::sqrt(-2.0 * std::log(uniform())) * std::cos(2.0 * std::numbers::pi * uniform()));
  for (std::size_t i = drawn; i < count; ++i) values[i] = values[i - drawn];
  return values;
}

std::vector<int32_t> random_tokens(std::size_t count, int64_t vocab) {
  RandomStream random{bench_seed, 2};
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
  return tokens;
}

Status check(const BenchConfig& config) {
  RAT_ASSIGN(const kernels::Backend* const device, kernels::find_backend(config.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(config.dtype));
  RAT_TRY(device->supports(dtype));
  if (config.seq_len < 1 || config.batch < 1)
    return fail(ErrorCode::invalid_argument, "seq_len is {} and batch {}; both must be 1 or more", config.seq_len,
                config.batch);
  if (config.repetitions < 1 || config.warmup < 0)
    return fail(ErrorCode::invalid_argument, "repetitions is {} and warm-up {}; use 1 or more and 0 or more",
                config.repetitions, config.warmup);
  if (config.cache && config.phase == "train")
    return fail(ErrorCode::invalid_argument, "training keeps no cache, so none in {}; time prefill or decode",
                kernels::cache_dtype_name(*config.cache));
  return validate(config.model);
}

template <class Computes>
Status set_dtype(Computes& what, const BenchConfig& config) {
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(config.dtype));
  what.set_cache_dtype(config.cache);
  return what.set_dtype(dtype);
}

// The model reduced to its first layer.
ModelConfig one_layer(ModelConfig model) {
  model.layers.resize(1);
  return model;
}

// Of the process, or of the device where that has a count of its own.
class Peak {
 public:
  explicit Peak(const std::string& device) {
    const auto backend = kernels::find_backend(device);
    if (backend && (*backend)->peak_bytes != nullptr) device_ = *backend, device_->peak_bytes(true);
  }
  auto bytes() const -> decltype(PeakMemory().bytes()) {
    if (device_ != nullptr) return static_cast<int64_t>(device_->peak_bytes(false));
    return process_.bytes();
  }

 private:
  PeakMemory process_;
  const kernels::Backend* device_ = nullptr;
};

BenchRow row_of(const BenchConfig& config, std::string_view what, bool whole_model) {
  BenchRow row;
  row.what = what;
  const LayerConfig& layer = config.model.layers.front();
  row.whole_model = whole_model;
  row.layers = whole_model ? format_layers(config.model.layers) : format_layer(layer);
  row.kind = whole_model ? row.layers : layer.kind;
  if (const auto type = find_mixer_type(layer.kind)) {  // validated before
    row.chunk = (*type)->uses_chunk ? layer.chunk : 0;
    row.window = (*type)->uses_window ? layer.window : 0;
  }
  row.seq_len = config.seq_len;
  row.batch = config.batch;
  row.d_model = config.model.d_model;
  row.heads = config.model.heads;
  row.groups = config.model.groups;
  row.kv_heads = config.model.kv_heads;
  row.dtype = config.dtype;
  row.device = config.device;
  return row;
}

Status nothing_before() { return ok(); }

// Warm-up, then repetitions of `once(times)`, each after `before()`, which is not timed; fills the timing fields of
// `row`. `tokens` are processed per repetition.
template <class Once, class Before = Status (*)()>
Status measure(const BenchConfig& config, int64_t tokens, BenchRow& row, Once once, Before before = nothing_before) {
  using Clock = std::chrono::steady_clock;
  RAT_ASSIGN(const kernels::Backend* const device, kernels::find_backend(config.device));
  std::vector<double> ms;
  OpTimes times;
  const bool marks = device->mark != nullptr;  // they keep steps from being replayed, so they get repetitions of their own
  double total_ms = 0;
  for (int64_t i = 0; i < config.warmup + most_repetitions; ++i) {
    if (config.stop && config.stop->requested()) return fail(ErrorCode::cancelled, "The benchmark was stopped");
    const bool counted = i >= config.warmup;
    RAT_TRY(before());
    RAT_TRY(device->finish());
    const auto begin = Clock::now();
    RAT_TRY(once(counted && !marks ? &times : nullptr));
    RAT_TRY(device->finish());
    const double elapsed = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
    if (counted) {
      ms.push_back(elapsed);
      total_ms += elapsed;
    }
    const int64_t done = static_cast<int64_t>(ms.size());
    if (config.progress) config.progress(row.what, done, std::max(done, config.repetitions));
    if (done >= config.repetitions && total_ms >= 1000 * config.min_seconds) break;
  }
  row.repetitions = static_cast<int64_t>(ms.size());
  for (int64_t i = 0; marks && i < timed_op_by_op; ++i) {
    RAT_TRY(before());
    RAT_TRY(once(&times));
  }
  times.settle();
  const double timed = static_cast<double>(marks ? timed_op_by_op : row.repetitions);
  row.median_ms = quantile(ms, 0.5);
  row.q1_ms = quantile(ms, 0.25);
  row.q3_ms = quantile(ms, 0.75);
  row.tokens_per_s = 1000.0 * static_cast<double>(tokens) / row.median_ms;
  for (std::size_t op = 0; op < times.ms.size(); ++op)
    row.op_ms.ms[op] = times.ms[op] / timed;
  return ok();
}

Result<BenchRow> layer_train(const BenchConfig& config) {
  BenchRow row = row_of(config, "train", false);
  const int64_t tokens = config.batch * config.seq_len;
  const std::vector<float> x = random_normal(static_cast<std::size_t>(tokens * config.model.d_model));
  const Peak peak(config.device);
  RAT_ASSIGN(const auto layer, SingleLayer::create(one_layer(config.model), bench_seed, config.device));
  RAT_TRY(set_dtype(*layer, config));
  const bool on_device = config.device != "cpu";
  std::vector<float> y(on_device ? 0 : x.size()), grad_x(y.size());
  if (on_device) RAT_TRY(layer->load(x, config.batch, config.seq_len));
  const auto once = [&](OpTimes* times) -> Status {
    const PassOptions pass{.stop = config.stop, .times = times};
    if (on_device) return layer->train_loaded(pass);
    RAT_TRY(layer->forward(x, config.batch, config.seq_len, y, pass));
    return layer->backward(x, grad_x, pass);  // x stands in for the gradient that comes from above
  };
  RAT_TRY(measure(config, tokens, row, once, [&] { return on_device ? layer->load_gradient() : ok(); }));
  row.peak_bytes = peak.bytes();
  return row;
}

Result<BenchRow> layer_prefill(const BenchConfig& config) {
  BenchRow row = row_of(config, "prefill", false);
  const int64_t tokens = config.batch * config.seq_len;
  const std::vector<float> x = random_normal(static_cast<std::size_t>(tokens * config.model.d_model));
  const Peak peak(config.device);
  RAT_ASSIGN(const auto layer, SingleLayer::create(one_layer(config.model), bench_seed, config.device));
  RAT_TRY(set_dtype(*layer, config));
  RAT_TRY(layer->load(x, config.batch, config.seq_len));
  const auto state = layer->start_decoding(config.batch);
  RAT_TRY(measure(
      config, tokens, row,
      [&](OpTimes* times) { return layer->prefill_loaded(*state, {.stop = config.stop, .times = times}); },
      [&] { return state->restart(); }));
  row.cache = state->cache_dtype();
  row.peak_bytes = peak.bytes();
  return row;
}

// Times steps of `batch` sequences that go on from `prefilled`, the state of one, again and again from its position;
// `each` of them between two looks at the clock.
template <class Step>
Status measure_decoding(const BenchConfig& config, BenchRow& row, const DecodeState& prefilled, int64_t each, Step step) {
  row.cache = prefilled.cache_dtype();
  const int64_t last = prefilled.position() + std::max<int64_t>(prefilled.position() / 16, 16);
  std::unique_ptr<DecodeState> state;
  const auto before = [&]() -> Status {
    if (state != nullptr && state->position() + each <= last) return ok();
    state.reset();  // before there is another: their caches may be large
    RAT_ASSIGN(state, prefilled.repeated(config.batch));
    return ok();
  };
  const auto once = [&](OpTimes* times) -> Status {
    for (int64_t i = 0; i < each; ++i) RAT_TRY(step(*state, times));
    return ok();
  };
  RAT_TRY(measure(config, each * config.batch, row, once, before));
  for (double* const ms : {&row.median_ms, &row.q1_ms, &row.q3_ms}) *ms /= static_cast<double>(each);
  for (double& ms : row.op_ms.ms) ms /= static_cast<double>(each);
  return ok();
}

Result<BenchRow> layer_decode(const BenchConfig& config) {
  BenchRow row = row_of(config, "decode", false);
  const auto dim = static_cast<std::size_t>(config.model.d_model);
  const std::vector<float> x =
      random_normal(static_cast<std::size_t>(std::max(config.seq_len, config.batch)) * dim);
  const Peak peak(config.device);
  RAT_ASSIGN(const auto layer, SingleLayer::create(one_layer(config.model), bench_seed, config.device));
  RAT_TRY(set_dtype(*layer, config));
  if (config.stop && config.stop->requested()) return fail(ErrorCode::cancelled, "The benchmark was stopped");
  const auto prefilled = layer->start_decoding();
  RAT_TRY(layer->load(std::span(x).first(static_cast<std::size_t>(config.seq_len) * dim), 1, config.seq_len));
  RAT_TRY(layer->prefill_loaded(*prefilled, {}));
  RAT_TRY(layer->load(std::span(x).first(static_cast<std::size_t>(config.batch) * dim), config.batch, 1));
  const int64_t each = config.device == "cpu" ? 1 : steps_at_a_time;
  RAT_TRY(measure_decoding(config, row, *prefilled, each, [&](DecodeState& state, OpTimes* times) {
    return layer->decode_loaded(state, {.stop = config.stop, .times = times});
  }));
  row.peak_bytes = peak.bytes();
  return row;
}

Result<BenchRow> model_train(const BenchConfig& config) {
  BenchRow row = row_of(config, "train", true);
  const int64_t tokens = config.batch * config.seq_len;
  const std::size_t count = static_cast<std::size_t>(tokens);
  const std::vector<int32_t> stream = random_tokens(count + 1, config.model.vocab);
  const TokenBatch batch{.batch = config.batch,
                         .tokens = config.seq_len,
                         .inputs = {stream.begin(), stream.end() - 1},
                         .targets = {stream.begin() + 1, stream.end()}};
  const Peak peak(config.device);
  RAT_ASSIGN(const auto model, Model::create(config.model, bench_seed, config.device));
  RAT_TRY(set_dtype(*model, config));
  AdamW optimizer(model->parameters(), OptimizerConfig{}, model->exec());
  RAT_TRY(measure(config, tokens, row, [&](OpTimes* times) -> Status {
    RAT_TRY(model->zero_gradients());
    RAT_TRY(model->loss_and_gradients(batch, 1.0, {.stop = config.stop, .times = times}));
    const OpTimer timer(times, Op::optimizer);
    RAT_TRY(optimizer.step(*model, 1e-4));
    return ok();
  }));
  row.peak_bytes = peak.bytes();
  return row;
}

Result<BenchRow> model_prefill(const BenchConfig& config) {
  BenchRow row = row_of(config, "prefill", true);
  const int64_t count = config.batch * config.seq_len;
  const std::vector<int32_t> tokens = random_tokens(static_cast<std::size_t>(count), config.model.vocab);
  const Peak peak(config.device);
  RAT_ASSIGN(const auto model, Model::create(config.model, bench_seed, config.device));
  RAT_TRY(set_dtype(*model, config));
  const auto state = model->start_decoding(config.batch);
  const auto once = [&](OpTimes* times) -> Status {
    RAT_TRY(model->prefill(*state, tokens, {.stop = config.stop, .times = times}));
    return ok();
  };
  RAT_TRY(measure(config, count, row, once, [&] { return state->restart(); }));
  row.cache = state->cache_dtype();
  row.peak_bytes = peak.bytes();
  return row;
}

Result<BenchRow> model_decode(const BenchConfig& config) {
  BenchRow row = row_of(config, "decode", true);
  const auto prompt = static_cast<std::size_t>(config.seq_len), batch = static_cast<std::size_t>(config.batch);
  const std::vector<int32_t> tokens = random_tokens(std::max(prompt, batch), config.model.vocab);
  const Peak peak(config.device);
  RAT_ASSIGN(const auto model, Model::create(config.model, bench_seed, config.device));
  RAT_TRY(set_dtype(*model, config));
  const auto prefilled = model->start_decoding();
  RAT_TRY(model->prefill(*prefilled, std::span(tokens).first(prompt), {.stop = config.stop, .times = nullptr}));
  RAT_TRY(measure_decoding(config, row, *prefilled, 1, [&](DecodeState& state, OpTimes* times) -> Status {
    RAT_TRY(model->decode(state, std::span(tokens).first(batch), {.stop = config.stop, .times = times}));
    return ok();
  }));
  row.peak_bytes = peak.bytes();
  return row;
}

struct Part {
  std::string_view phase;
  Result<BenchRow> (*run)(const BenchConfig&);
};

// Runs the parts of a benchmark one after the other, or the one that is asked for; the first error ends it.
Result<std::vector<BenchRow>> collect(const BenchConfig& config, std::span<const Part> parts, std::size_t usual) {
  RAT_TRY(check(config));
  std::vector<BenchRow> rows;
  for (const Part& part : config.phase.empty() ? parts.first(usual) : parts) {
    if (!config.phase.empty() && part.phase != config.phase) continue;
    RAT_ASSIGN(BenchRow row, part.run(config));
    rows.push_back(std::move(row));
  }
  if (rows.empty())
    return fail(ErrorCode::invalid_argument, "This benchmark has no phase '{}'; use train, prefill or decode",
                config.phase);
  return rows;
}

constexpr Part layer_parts[]{{"train", layer_train}, {"prefill", layer_prefill}, {"decode", layer_decode}};
constexpr Part model_parts[]{{"train", model_train}, {"prefill", model_prefill}, {"decode", model_decode}};

}  // namespace

double quantile(std::vector<double> values, double p) {
  RAT_CHECK(!values.empty() && p >= 0 && p <= 1, "a quantile needs values and 0 <= p <= 1");
  std::ranges::sort(values);
  const double place = p * static_cast<double>(values.size() - 1);
  const std::size_t below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

Result<std::vector<BenchRow>> bench_layer(const BenchConfig& config) { return collect(config, layer_parts, 2); }
Result<std::vector<BenchRow>> bench_model(const BenchConfig& config) { return collect(config, model_parts, 3); }
Result<std::vector<BenchRow>> bench_decode(const BenchConfig& config) {
  return collect(config, std::span(config.whole_model ? model_parts : layer_parts).last(1), 1);
}

}  // namespace rat
