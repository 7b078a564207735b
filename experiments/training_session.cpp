#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "experiments/step_history.h"
#include "experiments/trainer_impl.h"

namespace rat {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto publish_interval = std::chrono::milliseconds(50);
constexpr auto trace_interval = std::chrono::milliseconds(50);

}  // namespace

std::string_view activity_name(SessionActivity activity) {
  switch (activity) {
    case SessionActivity::idle: return "idle";
    case SessionActivity::preparing: return "preparing";
    case SessionActivity::training: return "training";
    case SessionActivity::evaluating: return "evaluating";
    case SessionActivity::paused: return "paused";
    case SessionActivity::stopping: return "stopping";
  }
  return "unknown";
}

struct TrainingSession::Impl {
  explicit Impl(StoreWriter& writer) : store(writer), thread([this] { loop(); }) {}
  ~Impl() {
    push("", true, true, [this] { quit = true; });
    thread.join();
  }

  struct Command {
    std::string tag;  // a newer command replaces a queued one with the same tag; "" is never replaced
    std::function<void()> run;
  };
  struct Queued {
    QueueItem item;
    RunSpec spec;
    std::optional<RunRow> resume;
    int64_t steps = 0;
  };

  // `interrupts` cuts the running step short, `aborts` also the reading of data.
  void push(std::string tag, bool interrupts, bool aborts, std::function<void()> run) {
    {
      const std::lock_guard lock(mutex);
      if (!tag.empty()) std::erase_if(commands, [&](const Command& command) { return command.tag == tag; });
      commands.push_back({std::move(tag), std::move(run)});
      if (interrupts) interrupt.request();
      if (aborts) abort.request();
    }
    wake.notify_one();
  }

  void loop();
  void turn();
  bool has_work() const { return trainer ? !paused || single_step : !queue.empty() && !paused; }
  void run_commands(bool wait);
  void start_next();
  void advance();
  void finish_run();
  void stop_current();
  void end_queued(const Queued& queued);
  void add_to_queue(const RunSpec& spec, const std::string& sweep_id);
  void survive(const std::string& reason);
  void probe(bool live);
  void give_weights(const std::function<void(std::shared_ptr<const LiveWeights>)>& receive);
  void say(std::string text, bool is_error = false) { message = std::move(text), message_is_error = is_error; }
  void publish();
  void publish_now_and_then() {
    if (Clock::now() - published_at >= publish_interval) publish();
  }
  void set_activity(SessionActivity next) {
    activity = next;
    publish();
  }

  // Session thread only.
  StoreWriter& store;
  std::deque<Queued> queue;
  std::unique_ptr<Trainer> trainer;
  std::string run_name;
  bool quit = false, paused = false, single_step = false;
  SessionActivity activity = SessionActivity::idle;
  StepReport last;
  StepHistory history;
  ProbeBudget probe_cost;
  double active_ms = 0;
  ProbeRequest request;
  int64_t probe_tokens = 0;
  double budget = 0.02;
  bool request_is_new = false;
  std::string message;
  bool message_is_error = false;
  Clock::time_point published_at{}, traced_at{};

  // Shared.
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Command> commands;
  StopFlag interrupt, abort;
  Slot<TrainingStatus> status;
  Slot<TraceSnapshot> trace;
  std::thread thread;  // last: starts when everything else is ready
};

void TrainingSession::Impl::loop() {
  while (!quit) {
    try {
      turn();
    } catch (const std::bad_alloc&) {
      survive("Not enough memory for this run; make the model, the batch or the sequence smaller.");
    } catch (const std::exception& error) {
      survive(fmt::format("Internal error: {}.", error.what()));
    }
  }
  stop_current();
  for (const Queued& queued : queue) end_queued(queued);
  queue.clear();
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::turn() {
  run_commands(!has_work());
  if (quit) return;
  if (!trainer && !queue.empty() && !paused) start_next();
  else if (trainer && (!paused || single_step)) advance();
}

void TrainingSession::Impl::survive(const std::string& reason) {
  if (trainer) trainer->fail_run(reason);
  trainer.reset();
  say(fmt::format("'{}' failed: {}", run_name, reason), true);
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::run_commands(bool wait) {
  std::deque<Command> taken;
  {
    std::unique_lock lock(mutex);
    if (wait) wake.wait(lock, [&] { return !commands.empty(); });
    taken.swap(commands);
    interrupt.reset();  // under the lock: a command that comes later sets them again
    abort.reset();
  }
  for (Command& command : taken) command.run();
  if (!taken.empty()) publish();
}

void TrainingSession::Impl::add_to_queue(const RunSpec& spec, const std::string& sweep_id) {
  NewRun run;
  run.name = spec.name;
  run.spec_json = to_json(spec);
  run.spec_hash = spec_hash(spec);
  run.layers = format_layers(spec.model.layers);
  run.sweep_id = sweep_id;
  run.device = spec.device;
  run.dtype = spec.train.dtype;
  run.seed = spec.train.seed;
  run.steps_total = spec.train.steps;
  const auto id = store.create_run(run);
  if (!id) return say(id.error().message, true);
  const std::string name = spec.name.empty() ? "run " + *id : spec.name;
  queue.push_back({{*id, name, run.layers}, spec, {}, 0});
  if (!trainer) paused = false;
}

void TrainingSession::Impl::start_next() {
  const Queued next = std::move(queue.front());
  queue.pop_front();
  run_name = next.item.name;
  history.clear();
  probe_cost.clear();
  last = {};
  active_ms = 0;
  say("");
  set_activity(SessionActivity::preparing);
  Result<std::unique_ptr<Trainer>> started = [&]() -> Result<std::unique_ptr<Trainer>> {
    try {
      return next.resume ? Trainer::resume(*next.resume, store, next.steps, &abort) : Trainer::start(next.spec, store, next.item.run_id, "", &abort);
    } catch (const std::exception& error) {  // out of memory while building: the row must not stay queued
      const std::string reason = fmt::format("The model could not be built ({}); make it smaller.", error.what());
      if (!next.resume) (void)store.end_run(next.item.run_id, RunState::failed, reason);
      return fail(ErrorCode::device_failure, "{}", reason);
    }
  }();
  if (!started) {
    if (started.error().code != ErrorCode::cancelled) say(fmt::format("'{}': {}", run_name, started.error().message), true);
    return set_activity(SessionActivity::idle);
  }
  trainer = *std::move(started);
  request_is_new = true;
  last.step = trainer->step();
  say(trainer->notice(), !trainer->notice().empty());
  set_activity(paused ? SessionActivity::paused : SessionActivity::training);
}

void TrainingSession::Impl::advance() {
  if (trainer->done()) return finish_run();
  if (activity != SessionActivity::training) set_activity(SessionActivity::training);
  const Stopwatch watch;
  const auto report = trainer->train_step(&interrupt);
  active_ms += watch.ms();
  if (!report) {
    if (report.error().code == ErrorCode::cancelled) return;  // the command that did it comes next; the step is done again
    say(fmt::format("'{}' failed: {}", run_name, report.error().message), true);
    trainer.reset();
    return set_activity(SessionActivity::idle);
  }
  last = *report;
  history.add(last);
  probe_cost.trained(watch.ms());
  probe(true);
  if (single_step) {
    single_step = false;
    paused = true;
    return set_activity(SessionActivity::paused);
  }
  publish_now_and_then();
}

void TrainingSession::Impl::finish_run() {
  set_activity(SessionActivity::evaluating);
  const Status finished = trainer->finish(&interrupt);
  if (!finished && finished.error().code == ErrorCode::cancelled) return;
  if (finished) say(fmt::format("'{}' finished after {} steps.", run_name, trainer->step()));
  else say(fmt::format("'{}' failed: {}", run_name, finished.error().message), true);
  single_step = false;
  trainer.reset();
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::stop_current() {
  if (!trainer) return;
  set_activity(SessionActivity::stopping);
  const Status stopped = trainer->stop_run();
  if (stopped) say(fmt::format("'{}' stopped at step {}; it can be resumed.", run_name, trainer->step()));
  else say(fmt::format("'{}' stopped, but its checkpoint was not saved: {}", run_name, stopped.error().message), true);
  trainer.reset();
  paused = single_step = false;
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::end_queued(const Queued& queued) {
  if (!queued.resume) (void)store.end_run(queued.item.run_id, RunState::stopped, "Removed from the queue before it started.");
}

// A trace of the live run for whoever watches. `live`: paid from the budget; a paused run has time.
void TrainingSession::Impl::probe(bool live) {
  if (!trainer || request.items.empty()) return;
  const bool due = Clock::now() - traced_at >= trace_interval;
  if (live && !(probe_cost.allows(request_is_new, budget) && (request_is_new || due))) return;
  const Stopwatch watch;
  auto snapshot = trainer->trace(request, probe_tokens, &interrupt);
  if (live) {
    probe_cost.probed(watch.ms());
    history.add_probe_ms(watch.ms());
    last.times[Op::probes] += watch.ms();
    trainer->log_probe_ms(watch.ms());
  }
  traced_at = Clock::now();
  if (!snapshot) {
    if (snapshot.error().code == ErrorCode::cancelled) return;
    request_is_new = false;  // not again and again
    return say(snapshot.error().message, true);
  }
  request_is_new = false;
  snapshot->serial = next_trace_serial();
  trace.publish(std::make_shared<const TraceSnapshot>(*std::move(snapshot)));
}

void TrainingSession::Impl::give_weights(const std::function<void(std::shared_ptr<const LiveWeights>)>& receive) {
  if (!trainer) return receive(nullptr);
  auto weights = std::make_shared<LiveWeights>();
  weights->run_id = trainer->run_id();
  weights->step = trainer->step();
  weights->spec = trainer->spec();
  for (const Parameter& parameter : trainer->model().parameters()) weights->values.emplace_back(parameter.value.begin(), parameter.value.end());
  receive(std::move(weights));
}

void TrainingSession::Impl::publish() {
  auto next = std::make_shared<TrainingStatus>();
  next->activity = activity;
  if (trainer) {
    next->run_id = trainer->run_id();
    next->spec = trainer->spec();
    next->step = trainer->step();
    next->steps_total = next->spec.train.steps;
    next->remaining_s = static_cast<double>(next->steps_total - next->step) * history.median_step_ms() / 1000;
  }
  next->run_name = activity == SessionActivity::idle ? "" : run_name;
  next->last = last;
  next->elapsed_s = active_ms / 1000;
  history.fill(*next);
  next->probe_share = probe_cost.share();
  next->probe_budget = budget;
  next->peak_bytes = peak_memory_bytes();
  for (const Queued& queued : queue) next->queue.push_back(queued.item);
  const std::string problem = store.health().problem;
  const std::string& warning = problem.empty() && trainer ? last.warning : problem;
  next->message = warning.empty() ? message : warning;
  next->message_is_error = !warning.empty() || message_is_error;
  status.publish(std::move(next));
  published_at = Clock::now();
}

TrainingSession::TrainingSession(StoreWriter& store) : impl_(std::make_unique<Impl>(store)) {}
TrainingSession::~TrainingSession() = default;

void TrainingSession::enqueue(const RunSpec& spec, const std::string& sweep_id) {
  impl_->push("", false, false, [self = impl_.get(), spec, sweep_id] { self->add_to_queue(spec, sweep_id); });
}

void TrainingSession::resume_run(const RunRow& run, int64_t steps) {
  impl_->push("", false, false, [self = impl_.get(), run, steps] {
    self->queue.push_back({{run.id, run.name, run.layers}, {}, run, steps});
    if (!self->trainer) self->paused = false;
  });
}

void TrainingSession::pause() {
  impl_->push("pause", true, false, [self = impl_.get()] {
    self->paused = self->trainer || !self->queue.empty();  // nothing to pause: the next Start must start
    self->single_step = false;
    if (self->trainer) self->activity = SessionActivity::paused;
  });
}

void TrainingSession::unpause() {
  impl_->push("pause", false, false, [self = impl_.get()] {
    self->paused = false;
    if (self->trainer) self->activity = SessionActivity::training;
  });
}

void TrainingSession::step() {
  impl_->push("", false, false, [self = impl_.get()] {
    if (!self->trainer && self->queue.empty()) return self->say("There is no run to step; start one first.");
    self->single_step = true;
    if (!self->trainer) self->paused = false;  // the next run starts, does one step and pauses
  });
}

void TrainingSession::stop() {
  impl_->push("stop", true, true, [self = impl_.get()] { self->stop_current(); });
}

void TrainingSession::stop_all() {
  impl_->push("stop_all", true, true, [self = impl_.get()] {
    for (const Impl::Queued& queued : self->queue) self->end_queued(queued);
    self->queue.clear();
    self->paused = false;
    self->stop_current();
  });
}

void TrainingSession::remove_queued(const std::string& run_id) {
  impl_->push("", false, false, [self = impl_.get(), run_id] {
    std::erase_if(self->queue, [&](const Impl::Queued& queued) {
      if (queued.item.run_id != run_id) return false;
      self->end_queued(queued);
      return true;
    });
  });
}

void TrainingSession::set_probes(const ProbeRequest& request, int64_t tokens, double budget) {
  impl_->push("probes", false, false, [self = impl_.get(), request, tokens, budget] {
    self->request_is_new = self->request_is_new || self->request != request || self->probe_tokens != tokens;
    self->request = request;
    self->probe_tokens = tokens;
    self->budget = budget;
    if (self->paused && self->request_is_new) self->probe(false);
  });
}

void TrainingSession::copy_weights(std::function<void(std::shared_ptr<const LiveWeights>)> receive) {
  impl_->push("", false, false, [self = impl_.get(), receive = std::move(receive)] { self->give_weights(receive); });
}

std::shared_ptr<const TrainingStatus> TrainingSession::status() const { return impl_->status.latest(); }
std::shared_ptr<const TraceSnapshot> TrainingSession::trace() const { return impl_->trace.latest(); }

}  // namespace rat
