// The window: docks around the canvases, one list of actions, one workbench.
#pragma once

#include <QElapsedTimer>
#include <QHash>
#include <QMainWindow>
#include <QTimer>
#include <memory>
#include <optional>

#include "app/window/actions.h"
#include "app/window/workbench.h"
#include "core/devices.h"
#include "views/plots/recipe.h"

class QDockWidget;
class QLabel;

namespace rat::app {

class Banner;
class CanvasArea;
class CurvesPanel;
class ExperimentPanel;
class FigureDialog;
class LogPanel;
class Palette;
class QueuePanel;
class RunBar;
class RunsPanel;
class ShortcutSheet;
class StatusLine;

class MainWindow : public QMainWindow {
  Q_OBJECT

 public:
  // `devices`: what the form offers to train on; those of this machine, unless a test says otherwise.
  explicit MainWindow(std::unique_ptr<Workbench> bench, std::vector<Device> devices = rat::devices());
  ~MainWindow() override;

  Workbench& bench() { return *bench_; }
  ExperimentPanel& experiment() { return *experiment_; }
  RunsPanel& runs() { return *runs_; }
  CanvasArea& canvases() { return *canvases_; }
  CurvesPanel& curves() { return *curves_; }
  RunBar& bar() { return *bar_; }
  Palette& palette() { return *palette_; }
  ShortcutSheet& shortcut_sheet() { return *shortcuts_; }
  Banner& banner() { return *banner_; }
  QAction* action(const QString& id) const { return actions_.value(id); }
  void set_theme(ThemeKind kind);
  ThemeKind theme_kind() const { return theme_kind_; }
  void save_layout();
  void reset_layout();
  bool is_enabled(Enabled rule) const;
  bool has_handler(const QString& id) const;
  // The figure of what the user looks at: the canvas in front, or the curves while they have the focus.
  struct FigureSource {
    Recipe recipe;
    std::shared_ptr<const TraceSnapshot> trace;  // attention, states
  };
  std::optional<FigureSource> figure_source() const;
  FigureDialog* open_figure(const FigureSource& source);

  void open_newest_run();

 signals:
  void database_requested(QString path);  // this window has closed to make room for it
  void closed();                          // for good

 protected:
  void closeEvent(QCloseEvent* event) override;

 private:
  void build(std::vector<Device> devices);
  void build_docks(std::vector<Device> devices);
  void build_menus();
  void connect_panels();
  void connect_plots();
  void start_timers();
  QDockWidget* add_dock(const QString& id, const QString& title, QWidget* content, Qt::DockWidgetArea area);
  void restore_layout();
  void save_choices() const;
  void restore_choices();
  void run_action(const QString& id);
  void update_actions();
  void update_actions_soon();  // after news that come many times a second
  void show_status();
  void show_subject();
  void show_runs_in_curves();
  void repaint_canvases();
  void say(const QString& sentence, bool is_error);

  // One handler an action; main_window_actions.cpp binds them to the list.
  using Handler = void (MainWindow::*)();
  static const QHash<QString, Handler>& handlers();
  bool run_show_action(const QString& id);
  void start(), pause(), step(), stop(), stop_all(), resume(), extend(), rerun();
  void open_database(), new_database(), backup_database(), check_database(), load_spec(), save_spec();
  void rename(), tag(), delete_runs(), undo(), redo();
  void toggle_theme(), full_screen(), save_layout_now(), reset_layout_now();
  void dial_up(), dial_down(), dial_reset(), presets();
  void open_run(), follow_live(), compare(), filter(), clear_selection(), frame_times();
  void figure(), figure_png(), figure_svg(), screenshot(), export_frame_times();
  void show_palette(), show_shortcuts(), about(), quit();
  void quick_figure(const QString& format);
  void request_database(const QString& path);
  const RunRow* single_selected() const;

  static constexpr int layout_version = 1;
  static constexpr int first_runs_height = 210;

  std::unique_ptr<Workbench> bench_;
  QHash<QString, QAction*> actions_;
  QHash<QString, QDockWidget*> docks_;
  RunBar* bar_;
  ExperimentPanel* experiment_;
  CanvasArea* canvases_;
  CurvesPanel* curves_;
  RunsPanel* runs_;
  QueuePanel* queue_;
  LogPanel* log_;
  Palette* palette_;
  ShortcutSheet* shortcuts_;
  Banner* banner_;
  StatusLine* status_line_;
  ThemeKind theme_kind_ = ThemeKind::dark;
  QTimer curves_timer_, repaint_timer_, actions_timer_;
  QElapsedTimer painted_;
  bool closing_ = false;
  QString next_database_;
  QByteArray first_layout_;
  std::string shown_run_;  // what the curves follow
  SessionActivity shown_activity_ = SessionActivity::idle;
};

}  // namespace rat::app
