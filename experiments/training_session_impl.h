// What TrainingSession's thread holds, shared by the files that implement it.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "experiments/step_history.h"
#include "experiments/trainer_impl.h"

namespace rat {

using SessionClock = std::chrono::steady_clock;

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
  void announce(QueueItem item);  // any thread: in the queue on screen before the session has time for it
  void watch_evaluation(bool begins);
  void survive(const std::string& reason);
  void probe(bool live);
  void give_weights(const std::function<void(std::shared_ptr<const LiveWeights>)>& receive);
  void say(std::string text, bool is_error = false) { message = std::move(text), message_is_error = is_error; }
  void publish();
  void publish_now_and_then();  // at most 20 times a second
  void set_activity(SessionActivity next) {
    activity = next;
    publish();
  }

  // Session thread only.
  StoreWriter& store;
  std::deque<Queued> queue;
  std::unique_ptr<Trainer> trainer;
  std::string run_name, last_run_id;  // of the current run, or the last
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
  SessionClock::time_point published_at{}, traced_at{};

  // Shared.
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Command> commands;
  std::deque<QueueItem> announced;  // not yet taken by the session; their run_id is empty
  StopFlag interrupt, abort;
  Slot<TrainingStatus> status;
  Slot<TraceSnapshot> trace;
  std::thread thread;  // last: starts when everything else is ready
};

}  // namespace rat
