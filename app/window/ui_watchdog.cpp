#include "app/window/ui_watchdog.h"

#include <QThread>
#include <algorithm>
#include <fstream>

namespace rat::app {
namespace {
constexpr std::size_t turns_kept = 200'000;  // 1.6 MB
}

void UiWatchdog::record(qint64 begin_ns, qint64 end_ns) {
  const Turn turn{static_cast<float>(static_cast<double>(begin_ns) * 1e-9),
                  static_cast<float>(static_cast<double>(end_ns - begin_ns) * 1e-6)};
  if (turns_.size() < turns_kept) {
    turns_.push_back(turn);
  } else {
    turns_[next_++ % turns_kept] = turn;
  }
}

UiWatchdog::Report UiWatchdog::summarise(std::vector<float> busy) {
  Report report;
  report.events = static_cast<int64_t>(busy.size());
  if (busy.empty()) return report;
  std::sort(busy.begin(), busy.end());
  report.median_ms = busy[busy.size() / 2];
  report.p99_ms = busy[std::min(busy.size() - 1, busy.size() * 99 / 100)];
  report.max_ms = busy.back();
  return report;
}

UiWatchdog::Report UiWatchdog::report() const {
  std::vector<float> busy;
  busy.reserve(turns_.size());
  for (const Turn& turn : turns_) busy.push_back(turn.busy_ms);
  return summarise(std::move(busy));
}

UiWatchdog::Report UiWatchdog::recent(double seconds) const {
  const double since = static_cast<double>(clock_.elapsed()) * 1e-3 - seconds;
  std::vector<float> busy;
  for (std::size_t i = 0; i < turns_.size(); ++i) {
    const Turn& turn = turns_[(next_ + turns_.size() - 1 - i) % turns_.size()];  // newest first
    if (turn.at_s < since) break;
    busy.push_back(turn.busy_ms);
  }
  return summarise(std::move(busy));
}

void UiWatchdog::reset() {
  turns_.clear();
  next_ = 0;
}

Status UiWatchdog::write_csv(const std::filesystem::path& path) const {
  std::ofstream file(path);
  file << "at_s,busy_ms\n";
  for (const Turn& turn : turns_) file << turn.at_s << ',' << turn.busy_ms << '\n';
  file.close();
  if (!file)
    return fail(ErrorCode::io_failure, "Cannot write the frame times to {}; choose a writable folder.", path.string());
  return ok();
}

UiWatchdog& WindowApplication::watchdog() {
  static UiWatchdog dog;
  return dog;
}

bool WindowApplication::notify(QObject* receiver, QEvent* event) {
  if (QThread::currentThread() != thread()) return QApplication::notify(receiver, event);
  const int level = thread()->loopLevel();
  if (timing_ && level <= timed_level_) return QApplication::notify(receiver, event);
  const bool outer = std::exchange(timing_, true);
  const int outer_level = std::exchange(timed_level_, level);
  loop_ran_inside_ = false;
  UiWatchdog& dog = watchdog();
  const qint64 begin = dog.now_ns();
  const bool done = QApplication::notify(receiver, event);
  // A dialog's own loop runs inside the event that opened it; its events were counted one by one.
  if (!loop_ran_inside_) dog.record(begin, dog.now_ns());
  loop_ran_inside_ = outer;
  timing_ = outer;
  timed_level_ = outer_level;
  return done;
}

}  // namespace rat::app
