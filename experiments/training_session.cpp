#include <sys/resource.h>
#include <unistd.h>

#include "experiments/training_session_impl.h"
#include "kernels/memory/memory.h"

namespace rat {
namespace {

constexpr int behind_the_window = 4;  // nice

// Where the cores are short, a window is drawn and answers before the next step is computed. Threads that this one
// starts inherit it; on idle cores it costs nothing.
void let_the_window_go_first() { (void)setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), behind_the_window); }

}  // namespace

void TrainingSession::Impl::loop() {
  let_the_window_go_first();
  while (!quit) {
    try {
      turn();
    } catch (const kernels::OutOfMemory& problem) {
      survive(fmt::format("{}.", problem.what()));
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
  if (!trainer && !queue.empty() && !paused)
    start_next();
  else if (trainer && (!paused || single_step))
    advance();
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
  {
    const std::lock_guard lock(mutex);
    announced.pop_front();  // commands come in the order of their announcements
  }
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
  last_run_id = next.item.run_id;
  history.clear();
  probe_cost.clear();
  last = {};
  active_ms = 0;
  say("");
  set_activity(SessionActivity::preparing);
  Result<std::unique_ptr<Trainer>> started = [&]() -> Result<std::unique_ptr<Trainer>> {
    try {
      return next.resume ? Trainer::resume(*next.resume, store, next.steps, &abort)
                         : Trainer::start(next.spec, store, next.item.run_id, "", &abort);
    } catch (const std::exception& error) {  // out of memory while building: the row must not stay queued
      const std::string reason = fmt::format("The model could not be built ({}); make it smaller.", error.what());
      if (!next.resume) (void)store.end_run(next.item.run_id, RunState::failed, reason);
      return fail(ErrorCode::device_failure, "{}", reason);
    }
  }();
  if (!started) {
    if (started.error().code != ErrorCode::cancelled)
      say(fmt::format("'{}': {}", run_name, started.error().message), true);
    return set_activity(SessionActivity::idle);
  }
  trainer = *std::move(started);
  trainer->watch_evaluations([this](bool begins) { watch_evaluation(begins); });
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
    if (report.error().code == ErrorCode::cancelled)
      return;  // the command that did it comes next; the step is done again
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

void TrainingSession::Impl::watch_evaluation(bool begins) {
  if (begins && activity == SessionActivity::training) return set_activity(SessionActivity::evaluating);
  const bool goes_on = activity == SessionActivity::evaluating && !trainer->done();
  if (!begins && goes_on) set_activity(SessionActivity::training);
}

void TrainingSession::Impl::finish_run() {
  set_activity(SessionActivity::evaluating);
  const Status finished = trainer->finish(&interrupt);
  if (!finished && finished.error().code == ErrorCode::cancelled) return;
  if (finished)
    say(fmt::format("'{}' finished after {} steps.", run_name, trainer->step()));
  else
    say(fmt::format("'{}' failed: {}", run_name, finished.error().message), true);
  single_step = false;
  trainer.reset();
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::stop_current() {
  if (!trainer) return;
  set_activity(SessionActivity::stopping);
  const Status stopped = trainer->stop_run();
  if (stopped)
    say(fmt::format("'{}' stopped at step {}; it can be resumed.", run_name, trainer->step()));
  else
    say(fmt::format("'{}' stopped, but its checkpoint was not saved: {}", run_name, stopped.error().message), true);
  trainer.reset();
  paused = single_step = false;
  set_activity(SessionActivity::idle);
}

void TrainingSession::Impl::end_queued(const Queued& queued) {
  if (!queued.resume)
    (void)store.end_run(queued.item.run_id, RunState::stopped, "Removed from the queue before it started.");
}

TrainingSession::TrainingSession(StoreWriter& store) : impl_(std::make_unique<Impl>(store)) {}
TrainingSession::~TrainingSession() = default;

void TrainingSession::enqueue(const RunSpec& spec, const std::string& sweep_id) {
  impl_->announce({"", spec.name.empty() ? "new run" : spec.name, format_layers(spec.model.layers)});
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
