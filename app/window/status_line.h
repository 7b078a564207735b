// The status bar: database and when it was saved, probe cost, window frame time, what computes, commit.
#pragma once

#include <QStatusBar>

class QLabel;

namespace rat::app {

class NumberLabel;
class Workbench;

class StatusLine : public QStatusBar {
 public:
  explicit StatusLine(Workbench& bench, QWidget* parent = nullptr);
  void update_numbers();  // a few times a second

 private:
  Workbench& bench_;
  NumberLabel *database_, *probes_, *frame_;
  QLabel *engine_, *commit_;
};

}  // namespace rat::app
