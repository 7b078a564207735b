#include "app/cli/interrupt.h"

#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <string_view>

#include "app/cli/context.h"

namespace rat::cli {
namespace {

enum Phase { preparing, stepping, finishing, measuring };

std::atomic<int> phase{preparing};
std::atomic<int> signals{0};
static_assert(std::atomic<int>::is_always_lock_free, "signal handlers may only touch lock-free values");

StopFlag& stop_flag() {
  static StopFlag flag;
  return flag;
}

// write(2) and _exit(2) are the only ways out that a signal handler may use.
void say(std::string_view text) {
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

void leave_within_a_second() {
  itimerval limit{};
  limit.it_value.tv_usec = 800'000;
  setitimer(ITIMER_REAL, &limit, nullptr);
}

void on_stop_signal(int) {
  const int count = signals.fetch_add(1) + 1;
  if (phase == preparing) {
    say("\nrat: stopped before the first step.\n");
    _exit(exit_failed);
  }
  if (phase == measuring) {
    if (count > 1) _exit(exit_failed);
    say("\nStopping; the task under way is not stored.\n");
    stop_flag().request();
    return;
  }
  if (count == 1) {
    say("\nStopping after this step; once more to stop inside it.\n");
    if (phase == finishing) stop_flag().request();
  } else if (count == 2) {
    say("\nStopping now.\n");
    stop_flag().request();
    leave_within_a_second();
  } else {
    _exit(exit_failed);
  }
}

void on_time_up(int) {
  say("rat: the checkpoint was not written in time; the run continues from the one before (rat train --resume).\n");
  _exit(exit_failed);
}

constexpr std::array stop_signals{SIGINT, SIGTERM, SIGHUP};
std::array<struct sigaction, stop_signals.size()> previous;

}  // namespace

Interrupts::Interrupts() {
  phase = preparing;
  signals = 0;
  stop_flag().reset();
  struct sigaction action {};
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < stop_signals.size(); ++i) {
    sigaction(stop_signals[i], nullptr, &previous[i]);
    if (previous[i].sa_handler == SIG_IGN) continue;  // nohup
    action.sa_handler = on_stop_signal;
    sigaction(stop_signals[i], &action, nullptr);
  }
  action.sa_handler = on_time_up;
  sigaction(SIGALRM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

Interrupts::~Interrupts() {
  for (std::size_t i = 0; i < stop_signals.size(); ++i) sigaction(stop_signals[i], &previous[i], nullptr);
}

void Interrupts::begin_work() { phase = stepping; }
void Interrupts::begin_measuring() { phase = measuring; }
void Interrupts::stop_inside_steps() {
  phase = finishing;
  if (requested()) stop_flag().request();
}
bool Interrupts::requested() const { return signals > 0; }
const StopFlag& Interrupts::stop() const { return stop_flag(); }

}  // namespace rat::cli
