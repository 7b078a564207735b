// The toolbar row: Start / Pause / Step / Stop, the device, progress and speed of the run in training.
#pragma once

#include <QWidget>

#include "experiments/session.h"

class QAction;
class QLabel;
class QProgressBar;
class QPushButton;

namespace rat::app {

class NumberLabel;

class RunBar : public QWidget {
  Q_OBJECT

 public:
  explicit RunBar(QWidget* parent = nullptr);

  // The buttons do what the actions do and follow their enabled state.
  void connect_actions(QAction* start, QAction* pause, QAction* step, QAction* stop, QAction* palette);
  void show_status(const TrainingStatus& status);
  // At once after a click, before the session answers: "Pausing", "Stopping".
  void show_pending(const QString& what);
  void update_icons();
  QPushButton* button(const char* name) const;

 private:
  QPushButton *start_, *pause_, *step_, *stop_, *palette_;
  QLabel* badge_;
  QProgressBar* progress_;
  NumberLabel *steps_, *speed_, *left_;
  bool paused_ = false;
};

// "61.3 k", "1,240", "2:41", "0.56 MB": the one way numbers are written in the window.
QString format_count(int64_t value);                 // 1,240
QString format_rate(double per_second);              // 61.3 k
QString format_bytes(double bytes);                  // 0.56 MB
QString format_duration(double seconds);             // 2:41, 1:02:03
QString format_value(double value, int digits = 4);  // 1.412, inf, nan, -

}  // namespace rat::app
