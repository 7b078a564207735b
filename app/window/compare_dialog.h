// Runs side by side: only the settings on which they differ, then their numbers.
#pragma once

#include <QDialog>
#include <vector>

#include "experiments/store/store.h"

namespace rat::app {

class CompareDialog : public QDialog {
 public:
  explicit CompareDialog(const std::vector<RunRow>& runs, QWidget* parent = nullptr);
  int differences() const { return differences_; }

 private:
  int differences_ = 0;
};

}  // namespace rat::app
