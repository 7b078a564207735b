// The Runs dock: filter line, table, and the edits (rename, tag, delete) with undo.
#pragma once

#include <QUndoStack>
#include <QWidget>

#include "app/window/runs_model.h"
#include "app/window/workbench.h"

class QLabel;
class QLineEdit;
class QTableView;
class QPushButton;

namespace rat::app {

class RunsPanel : public QWidget {
  Q_OBJECT

 public:
  RunsPanel(Workbench& bench, QWidget* parent = nullptr);

  std::vector<std::string> selected() const;  // ids, in table order
  void select(const std::vector<std::string>& ids);
  void focus_filter();
  void set_filter(const QString& text);
  void begin_rename();
  void ask_tags();
  void set_tags(const std::vector<std::string>& ids, const std::vector<std::string>& tags);
  void delete_selected();
  void rename(const std::string& id, const QString& name);
  QUndoStack& undo_stack() { return undo_; }
  QTableView& table() { return *table_; }
  int shown() const;
  void set_theme(const Theme& theme);
  QPushButton& compare_button() { return *compare_; }

 signals:
  void selection_changed();
  void open_requested(QString id);
  void message(QString sentence, bool is_error);
  void menu_requested(QPoint global);

 private:
  void build();
  void apply_filter();
  void update_count();

  Workbench& bench_;
  RunsModel model_;
  RunsProxy proxy_;
  QUndoStack undo_;
  QTableView* table_;
  QLineEdit* filter_;
  QLabel *count_, *empty_;
  QPushButton* compare_;
};

}  // namespace rat::app
