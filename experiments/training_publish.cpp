// What TrainingSession shows of the live run: status, traces within their budget, copies of the weights.
#include "experiments/training_session_impl.h"

namespace rat {
namespace {

constexpr auto publish_interval = std::chrono::milliseconds(50);
constexpr auto trace_interval = std::chrono::milliseconds(50);

}  // namespace

std::string_view activity_name(SessionActivity activity) {
  switch (activity) {
    case SessionActivity::idle:
      return "idle";
    case SessionActivity::preparing:
      return "preparing";
    case SessionActivity::training:
      return "training";
    case SessionActivity::evaluating:
      return "evaluating";
    case SessionActivity::paused:
      return "paused";
    case SessionActivity::stopping:
      return "stopping";
  }
  return "unknown";
}

// A trace of the live run for whoever watches. `live`: paid from the budget; a paused run has time.
void TrainingSession::Impl::probe(bool live) {
  if (!trainer || request.items.empty()) return;
  const bool due = SessionClock::now() - traced_at >= trace_interval;
  if (live && !(probe_cost.allows(request_is_new, budget) && (request_is_new || due))) return;
  const Stopwatch watch;
  auto snapshot = trainer->trace(request, probe_tokens, &interrupt);
  if (live) {
    probe_cost.probed(watch.ms());
    history.add_probe_ms(watch.ms());
    last.times[Op::probes] += watch.ms();
    trainer->log_probe_ms(watch.ms());
  }
  traced_at = SessionClock::now();
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
  const Model& model = trainer->model();  // const: what is only read is not brought back to a device
  for (const Parameter& parameter : model.parameters())
    weights->values.emplace_back(parameter.value.begin(), parameter.value.end());
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
  next->last_run_id = last_run_id;
  next->elapsed_s = active_ms / 1000;
  history.fill(*next);
  next->probe_share = probe_cost.share();
  next->probe_budget = budget;
  next->peak_bytes = peak_memory_bytes(trainer ? trainer->spec().device : "cpu");
  for (const Queued& queued : queue) next->queue.push_back(queued.item);
  const std::lock_guard lock(mutex);  // until it is published: `announce` builds on what is published
  next->queue.insert(next->queue.end(), announced.begin(), announced.end());
  const std::string problem = store.health().problem;
  const std::string& warning = problem.empty() && trainer ? last.warning : problem;
  next->message = warning.empty() ? message : warning;
  next->message_is_error = !warning.empty() || message_is_error;
  status.publish(std::move(next));
  published_at = SessionClock::now();
}

void TrainingSession::Impl::announce(QueueItem item) {
  const std::lock_guard lock(mutex);
  announced.push_back(item);
  auto next = std::make_shared<TrainingStatus>(*status.latest());
  next->queue.push_back(std::move(item));
  status.publish(std::move(next));
}

void TrainingSession::Impl::publish_now_and_then() {
  if (SessionClock::now() - published_at >= publish_interval) publish();
}

}  // namespace rat
