#include <algorithm>
#include <cmath>

#include "experiments/store/process.h"
#include "experiments/trainer_impl.h"
#include "kernels/memory/memory.h"

namespace rat {
namespace {

constexpr int64_t most_skipped_in_a_row = 10;

Status check_device(const RunSpec& spec) {
  RAT_ASSIGN(const kernels::Backend* const device, kernels::find_backend(spec.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(spec.train.dtype));
  return device->supports(dtype);
}

NewRun describe(const RunSpec& spec, const DataSource& data, const std::string& sweep_id) {
  NewRun run;
  run.name = spec.name;
  run.spec_json = to_json(spec);
  run.spec_hash = spec_hash(spec);
  run.layers = format_layers(spec.model.layers);
  run.sweep_id = sweep_id;
  run.data_description = data.description();
  run.data_hash = data.hash();
  run.device = spec.device;
  run.dtype = spec.train.dtype;
  run.seed = spec.train.seed;
  run.steps_total = spec.train.steps;
  run.state = RunState::running;
  return run;
}

int64_t count_targets(const TokenBatch& batch) {
  return std::ranges::count_if(batch.targets, [](int32_t target) { return target != ignore_target; });
}

// Sequences [first, first + count) of a batch.
TokenBatch slice(const TokenBatch& batch, int64_t first, int64_t count) {
  const auto begin = first * batch.tokens, end = (first + count) * batch.tokens;
  return {count,
          batch.tokens,
          {batch.inputs.begin() + begin, batch.inputs.begin() + end},
          {batch.targets.begin() + begin, batch.targets.begin() + end}};
}

// What memory and devices throw where no Status can be answered, as an error with their own sentence.
template <class Work>
auto caught(const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const kernels::OutOfMemory& problem) {  // says how much was wanted and how much there is
    return fail(ErrorCode::device_failure, "{}", problem.what());
  } catch (const kernels::DeviceFailure& problem) {
    return fail(ErrorCode::device_failure, "{}", problem.what());
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::device_failure, "Out of memory: use a smaller model, batch or sequence length.");
  }
}

}  // namespace

Trainer::Trainer() = default;

Trainer::~Trainer() {
  if (impl_ && !impl_->run_id.empty() && !impl_->ended)
    (void)impl_->end(RunState::stopped, "The program closed the run before its end.");
}

Status Trainer::Impl::build(const StopFlag* stop) {
  RAT_TRY(validate(spec));
  RAT_TRY(check_device(spec));
  reset_peak_memory(spec.device);
  RAT_ASSIGN(data, DataSource::open(spec.data, spec.model, spec.train.seq_len, spec.train.seed, stop));
  RAT_ASSIGN(model, Model::create(spec.model, spec.train.seed, spec.device));
  RAT_ASSIGN(const kernels::Dtype dtype, kernels::parse_dtype(spec.train.dtype));
  RAT_TRY(model->set_dtype(dtype));
  optimizer = std::make_unique<AdamW>(std::as_const(*model).parameters(), spec.train.optimizer, model->exec());
  return ok();
}

Status Trainer::Impl::end(RunState state, const std::string& error) {
  ended = true;
  store.set_progress(run_id, step);
  return store.end_run(run_id, state, error);
}

Result<std::unique_ptr<Trainer>> Trainer::start(const RunSpec& spec, StoreWriter& store, const std::string& existing_id,
                                                const std::string& sweep_id, const StopFlag* stop) {
  std::unique_ptr<Trainer> trainer(new Trainer);
  trainer->impl_ = std::make_unique<Impl>(spec, store);
  Impl& self = *trainer->impl_;
  if (const Status built = self.build(stop); !built) {
    const bool stopped = built.error().code == ErrorCode::cancelled;
    if (!existing_id.empty())
      (void)store.end_run(existing_id, stopped ? RunState::stopped : RunState::failed,
                          stopped ? "" : built.error().message);
    return built.error();
  }
  if (existing_id.empty()) {
    RAT_ASSIGN(self.run_id, store.create_run(describe(spec, *self.data, sweep_id)));
  } else {
    RAT_TRY(store.set_data(existing_id, self.data->description(), self.data->hash()));
    RAT_TRY(store.start_run(existing_id));
    self.run_id = existing_id;
  }
  self.since_start = Stopwatch();
  return trainer;
}

Result<std::unique_ptr<Trainer>> Trainer::resume(const RunRow& run, StoreWriter& store, int64_t steps,
                                                 const StopFlag* stop) {
  if (run.state == RunState::running || run.state == RunState::queued)
    return fail(ErrorCode::invalid_argument, "Run {} is {}; only a run that is not active can be resumed.", run.id,
                run_state_name(run.state));
  if (run.checkpoint.empty())
    return fail(ErrorCode::not_found, "Run {} ('{}') has no checkpoint to continue from; start it again.", run.id,
                run.name);
  RAT_ASSIGN(RunSpec spec, parse_spec(run.spec_json));
  if (steps > 0) spec.train.steps = steps;
  std::unique_ptr<Trainer> trainer(new Trainer);
  trainer->impl_ = std::make_unique<Impl>(spec, store);
  Impl& self = *trainer->impl_;
  RAT_TRY(self.build(stop));
  if (self.data->hash() != run.data_hash)
    return fail(ErrorCode::invalid_argument,
                "The data of run {} has changed since ({}): it cannot be continued as if it had not; start a new run.",
                run.id, self.data->description());
  RAT_TRY(self.load_newest(run));
  if (self.step >= spec.train.steps)
    return fail(ErrorCode::invalid_argument,
                "Run {} has done {} of {} steps; give a larger number of steps to extend it.", run.id, self.step,
                spec.train.steps);
  if (spec.train.steps != run.steps_total)
    RAT_TRY(store.set_spec(run.id, to_json(spec), spec_hash(spec), spec.train.steps));
  RAT_TRY(store.truncate_metrics(run.id, self.step));
  RAT_TRY(store.start_run(run.id));
  self.run_id = run.id;
  store.set_progress(run.id, self.step);
  self.since_start = Stopwatch();
  return trainer;
}

const std::string& Trainer::run_id() const { return impl_->run_id; }
const RunSpec& Trainer::spec() const { return impl_->spec; }
Model& Trainer::model() { return *impl_->model; }
const DataSource& Trainer::data() const { return *impl_->data; }
int64_t Trainer::step() const { return impl_->step; }
bool Trainer::done() const { return impl_->step >= impl_->spec.train.steps; }
const std::string& Trainer::notice() const { return impl_->notice; }
void Trainer::log_probe_ms(double ms) { impl_->log("probe_ms", ms); }

// The mean over all targets of the batch, whatever it is split into: each micro-batch weighs as much as it has targets.
Result<double> Trainer::Impl::gradients(const TokenBatch& batch, const PassOptions& options) {
  RAT_TRY(model->zero_gradients());
  const int64_t parts = spec.train.accumulate;
  if (parts == 1) return model->loss_and_gradients(batch, 1.0, options);
  const auto targets = static_cast<double>(count_targets(batch));
  const int64_t rows = batch.batch / parts;
  double loss = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const TokenBatch micro = slice(batch, part * rows, rows);
    const double weight = static_cast<double>(count_targets(micro)) / targets;
    if (weight == 0) continue;
    RAT_ASSIGN(const double mean, model->loss_and_gradients(micro, weight, options));
    loss += weight * mean;
  }
  return loss;
}

// The layers that this step trains: train.dilations in turn, by step number alone, so that a resumed run goes on alike.
std::vector<LayerConfig> Trainer::Impl::layers_of_step() const {
  std::vector<LayerConfig> layers = spec.model.layers;
  const auto& dilations = spec.train.dilations;
  for (LayerConfig& layer : layers)
    if (layer.kind == "ratplus") layer.dilation = dilations[static_cast<std::size_t>(step) % dilations.size()];
  return layers;
}

// Marks between ops keep a device from replaying its steps as a whole, so there it is only the steps whose times are
// stored.
bool Trainer::Impl::is_timed_op_by_op() const {
  return model->exec().backend->host || last_times.total_ms() == 0 || (step + 1) % op_times_every == 0;
}

Result<StepReport> Trainer::Impl::optimizer_step(const StopFlag* stop) {
  StepReport report;
  OpTimes* const times = is_timed_op_by_op() ? &report.times : nullptr;
  const PassOptions options{stop, times};
  const Stopwatch watch;
  Result<TokenBatch> batch = [&] {
    const OpTimer timer(times, Op::data);
    return data->train_batch(step, spec.train.batch);
  }();
  if (!batch) return batch.error();
  if (!spec.train.dilations.empty()) RAT_TRY(model->set_layers(layers_of_step()));
  const Result<double> loss = gradients(*batch, options);
  RAT_TRY(model->set_layers(spec.model.layers));  // evaluation and probes see the layers of the spec
  if (!loss) return loss.error();
  report.loss = *loss;
  if (stop && stop->requested()) return fail(ErrorCode::cancelled, "Stopped inside a step.");
  report.lr = learning_rate(spec.train.schedule, spec.train.optimizer.lr, step, spec.train.steps, spec.train.warmup);
  {
    const OpTimer timer(times, Op::optimizer);
    RAT_ASSIGN(const AdamW::StepResult result, optimizer->step(*model, report.lr));
    report.grad_norm = result.grad_norm;
    report.skipped = result.skipped;
  }
  report.times.settle();
  if (times != nullptr)
    last_times = report.times;
  else
    report.times = last_times;
  report.step_ms = watch.ms();
  report.tokens_per_s = 1000.0 * static_cast<double>(batch->batch * batch->tokens) / report.step_ms;
  report.step = ++step;
  return report;
}

void Trainer::Impl::log_step(const StepReport& report) {
  log("loss", report.loss);
  log("lr", report.lr);
  log("grad_norm", report.grad_norm);
  log("tokens_per_s", report.tokens_per_s);
  log("step_ms", report.step_ms);
  if (step % op_times_every == 0)
    for (std::size_t op = 0; op < op_names.size(); ++op)
      log(fmt::format("op_ms/{}", op_names[op]), report.times.ms[op]);
  store.set_progress(run_id, step);
}

Result<StepReport> Trainer::train_step(const StopFlag* stop) {
  Impl& self = *impl_;
  RAT_CHECK(!self.ended, "train_step after the run has ended");
  if (done()) return fail(ErrorCode::invalid_argument, "All {} steps are done; finish the run.", self.spec.train.steps);
  Result<StepReport> report = caught([&] { return self.train_step(stop); });
  if (!report && report.error().code != ErrorCode::cancelled) fail_run(report.error().message);
  return report;
}

Result<StepReport> Trainer::Impl::train_step(const StopFlag* stop) {
  // An evaluation that a stop interrupted belongs to the weights as they still are.
  if (evaluation_due) RAT_TRY(evaluate(stop, nullptr));
  RAT_ASSIGN(StepReport report, optimizer_step(stop));
  log_step(report);
  skipped_in_a_row = report.skipped ? skipped_in_a_row + 1 : 0;
  if (skipped_in_a_row >= most_skipped_in_a_row)
    return fail(ErrorCode::invalid_argument,
                "The gradient was not finite in {} steps in a row up to step {} (loss {}); lower train.lr or train.clip.",
                most_skipped_in_a_row, step, report.loss);
  const auto unless_cancelled = [](Status status) {
    return !status && status.error().code == ErrorCode::cancelled ? ok() : status;
  };
  evaluation_due = spec.train.eval_every > 0 && step % spec.train.eval_every == 0;
  if (evaluation_due) RAT_TRY(unless_cancelled(evaluate(stop, &report)));
  RAT_TRY(unless_cancelled(log_probe_scalars(stop, report)));
  save_if_due(report);
  return report;
}

Result<TraceSnapshot> Trainer::trace(const ProbeRequest& request, int64_t tokens, const StopFlag* stop) {
  return impl_->trace(request, tokens, stop);
}

void Trainer::watch_evaluations(std::function<void(bool)> watch) { impl_->watch_evaluations = std::move(watch); }

Status Trainer::checkpoint() {
  return caught([this] { return impl_->save(false); });
}

Status Trainer::finish(const StopFlag* stop) {
  if (!done()) return stop_run();
  Impl& self = *impl_;
  const Status measured = caught([&]() -> Status {
    if (self.evaluated_step != self.step) RAT_TRY(self.evaluate(stop, nullptr));
    return self.measure_speeds(stop);
  });
  if (!measured && measured.error().code == ErrorCode::cancelled) return measured;
  const Status saved = caught([&] { return self.save(true); });
  if (!measured || !saved) {
    const Error& error = !measured ? measured.error() : saved.error();
    fail_run(error.message);
    return error;
  }
  return self.end(RunState::finished);
}

Status Trainer::stop_run() {
  const Status saved = caught([&] { return impl_->step > 0 ? impl_->save(false) : ok(); });
  RAT_TRY(impl_->end(RunState::stopped, saved ? "" : saved.error().message));
  return saved;
}

void Trainer::fail_run(const std::string& reason) {
  if (!impl_->ended) (void)impl_->end(RunState::failed, reason);
}

}  // namespace rat
