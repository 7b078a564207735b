// Measures how long the window's event loop is away: the time of every event it handles, nested ones included in the
// outer. Two clock reads an event, no thread.
#pragma once

#include <QApplication>
#include <QElapsedTimer>
#include <cstdint>
#include <filesystem>
#include <vector>

#include "kernels/base/status.h"

namespace rat::app {

class UiWatchdog {
 public:
  struct Report {
    int64_t events = 0;
    double median_ms = 0, p99_ms = 0, max_ms = 0;
  };
  UiWatchdog() { clock_.start(); }

  void record(qint64 begin_ns, qint64 end_ns);
  Report report() const;  // over the events kept
  Report recent(double seconds) const;
  void reset();
  qint64 now_ns() const { return clock_.nsecsElapsed(); }
  // One row an event: when it began (s since the start) and how long the loop was busy with it (ms).
  Status write_csv(const std::filesystem::path& path) const;

 private:
  struct Turn {
    float at_s, busy_ms;
  };
  static Report summarise(std::vector<float> busy_ms);

  std::vector<Turn> turns_;  // a ring once full
  std::size_t next_ = 0;
  QElapsedTimer clock_;
};

// The QApplication of the window: every event passes `notify`, which the watchdog times.
class WindowApplication final : public QApplication {
 public:
  WindowApplication(int& argc, char** argv) : QApplication(argc, argv) {}
  bool notify(QObject* receiver, QEvent* event) override;
  static UiWatchdog& watchdog();

 private:
  bool timing_ = false, loop_ran_inside_ = false;
  int timed_level_ = 0;
};

}  // namespace rat::app
