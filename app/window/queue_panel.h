// Two small docks: the runs that wait for the trainer, and everything the program has said.
#pragma once

#include <QPlainTextEdit>
#include <QWidget>

#include "experiments/session.h"

class QLabel;
class QTreeWidget;
class QPushButton;

namespace rat::app {

class QueuePanel : public QWidget {
  Q_OBJECT

 public:
  explicit QueuePanel(QWidget* parent = nullptr);
  void show_status(const TrainingStatus& status);

 signals:
  void remove_requested(QString run_id);

 private:
  QTreeWidget* list_;
  QLabel* empty_;
  QPushButton* remove_;
  std::vector<std::string> shown_;
};

class LogPanel : public QPlainTextEdit {
 public:
  explicit LogPanel(QWidget* parent = nullptr);
  void add(const QString& sentence, bool is_error);
};

}  // namespace rat::app
