// The centre of the window: every canvas is a dock of an inner main window, so they can be tabs, side by side or apart.
#pragma once

#include <QMainWindow>
#include <vector>

#include "app/window/imgui_canvas.h"
#include "app/window/workbench.h"

class QAction;
class QToolButton;

namespace rat::app {

class TradeoffCanvas;

class CanvasArea : public QMainWindow {
  Q_OBJECT

 public:
  CanvasArea(Workbench& bench, QWidget* parent = nullptr);

  void set_figure_action(QAction* action);  // the button at the right end of the tabs
  void set_theme(const Theme& theme);
  void refresh_visible();
  void show_canvas(const QString& id);           // "attention", ..., "tradeoff"
  QString current() const;                       // the one the user looks at
  ImGuiCanvas* canvas(const QString& id) const;  // null for the trade-off and unknown ids
  TradeoffCanvas& tradeoff() { return *tradeoff_; }
  bool is_on_screen(const QString& id) const;
  QStringList ids() const;
  void reset_layout();

 signals:
  void current_changed(QString id);

 protected:
  void resizeEvent(QResizeEvent* event) override;

 private:
  void add(const QString& id, const QString& title, QWidget* content);
  void visibility_changed();
  void place_button();

  struct Entry {
    QString id;
    QDockWidget* dock;
    ImGuiCanvas* canvas;  // null: the trade-off
  };
  Workbench& bench_;
  std::vector<Entry> entries_;
  TradeoffCanvas* tradeoff_;
  QToolButton* figure_;
  QString current_;
};

}  // namespace rat::app
