// The command palette (Ctrl+P, Ctrl+K) and the shortcut sheet (F1): both list the actions, both are searched by typing.
#pragma once

#include <QFrame>
#include <QHash>

class QAction;
class QLineEdit;
class QListWidget;
class QTreeWidget;

namespace rat::app {

class Palette : public QFrame {
  Q_OBJECT

 public:
  Palette(const QHash<QString, QAction*>& actions, QWidget* window);
  void open();
  void set_query(const QString& text);
  QStringList shown() const;  // ids, best first
  void run_current();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void update_list();

  const QHash<QString, QAction*>& actions_;
  QLineEdit* query_;
  QListWidget* list_;
  QStringList recent_;  // ids, newest first
};

class ShortcutSheet : public QFrame {
 public:
  explicit ShortcutSheet(QWidget* window);
  void open();

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;

 private:
  void update_list();

  QLineEdit* query_;
  QTreeWidget* list_;
};

}  // namespace rat::app
