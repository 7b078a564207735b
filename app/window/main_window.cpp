#include "app/window/main_window.h"

#include <QAction>
#include <QApplication>
#include <QCloseEvent>
#include <QDockWidget>
#include <QLabel>
#include <QMenuBar>
#include <QPushButton>
#include <QScreen>
#include <QSettings>
#include <QTabBar>
#include <QTableView>
#include <QToolBar>
#include <QVBoxLayout>
#include <utility>

#include "app/figure/curves_panel.h"
#include "app/figure/tradeoff_canvas.h"
#include "app/window/canvas_area.h"
#include "app/window/experiment_panel.h"
#include "app/window/fonts.h"
#include "app/window/palette.h"
#include "app/window/queue_panel.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "app/window/status_line.h"
#include "app/window/theme_qt.h"
#include "app/window/widgets.h"
#include "core/cost_model.h"

namespace rat::app {
namespace {

constexpr int numbers_ms = 500;
constexpr int actions_ms = 100;
constexpr int fastest_repaint_ms = 33;
constexpr double answer_first_ms = 150;
constexpr double repaint_share = 4;  // a canvas that takes long is drawn less often: at most 1/4 of the UI thread

}  // namespace

MainWindow::MainWindow(std::unique_ptr<Workbench> bench, std::vector<Device> devices) : bench_(std::move(bench)) {
  build(std::move(devices));
  build_menus();
  connect_panels();
  connect_plots();
  start_timers();
  const QSettings settings;
  set_theme(settings.value("theme").toString() == "light" ? ThemeKind::light : ThemeKind::dark);
  first_layout_ = saveState(layout_version);
  restore_layout();
  restore_choices();
  show_status();
  update_actions();
  if (const QString problem = opengl_problem(); !problem.isEmpty()) say(problem, true);
}

// The panels refer to the workbench and signal to this window while they go: they go first, and unheard.
MainWindow::~MainWindow() {
  hide();
  qApp->disconnect(this);
  bench_->disconnect(this);
  runs_->undo_stack().disconnect(this);
  for (QObject* sender :
       {static_cast<QObject*>(runs_), static_cast<QObject*>(canvases_), static_cast<QObject*>(experiment_)})
    sender->disconnect(this);
  qDeleteAll(docks_);
  delete takeCentralWidget();
}

void MainWindow::build(std::vector<Device> devices) {
  show_subject();
  setDockOptions(AllowTabbedDocks | AllowNestedDocks | GroupedDragging);
  setTabPosition(Qt::AllDockWidgetAreas, QTabWidget::North);
  setDocumentMode(true);
  setCorner(Qt::BottomLeftCorner, Qt::LeftDockWidgetArea);  // the form needs the height
  setCorner(Qt::BottomRightCorner, Qt::BottomDockWidgetArea);
  resize(QSize(1400, 900).boundedTo(screen()->availableSize()));  // a laptop of 1280 x 800 must see it all

  auto* tools = addToolBar("Run");
  tools->setObjectName("run_bar");
  tools->setMovable(false);
  tools->setContextMenuPolicy(Qt::PreventContextMenu);
  bar_ = new RunBar(tools);
  bar_->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
  tools->addWidget(bar_);

  auto* centre = new QWidget(this);
  auto* column = new QVBoxLayout(centre);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  banner_ = new Banner(centre);
  canvases_ = new CanvasArea(*bench_, centre);
  column->addWidget(banner_);
  column->addWidget(canvases_, 1);
  setCentralWidget(centre);
  status_line_ = new StatusLine(*bench_, this);
  setStatusBar(status_line_);
  build_docks(std::move(devices));
}

QDockWidget* MainWindow::add_dock(const QString& id, const QString& title, QWidget* content, Qt::DockWidgetArea area) {
  auto* dock = new QDockWidget(title, this);
  dock->setObjectName("dock_" + id);
  dock->setWidget(content);
  if (area == Qt::BottomDockWidgetArea) {
    dock->setTitleBarWidget(new QWidget(dock));  // the tabs carry the titles
    connect(dock, &QDockWidget::topLevelChanged, dock, [dock](bool floating) {
      QWidget* bar = dock->titleBarWidget();
      dock->setTitleBarWidget(floating ? nullptr : new QWidget(dock));
      if (bar) bar->deleteLater();
    });
  } else {
    QLabel* bar = heading(title, dock);
    bar->setContentsMargins(12, 10, 12, 6);
    dock->setTitleBarWidget(bar);
  }
  addDockWidget(area, dock);
  docks_.insert(id, dock);
  return dock;
}

void MainWindow::build_docks(std::vector<Device> devices) {
  experiment_ = new ExperimentPanel(std::move(devices), this);
  curves_ = new CurvesPanel(bench_->database(), this);
  runs_ = new RunsPanel(*bench_, this);
  queue_ = new QueuePanel(this);
  log_ = new LogPanel(this);
  QDockWidget* left = add_dock("experiment", "Experiment", experiment_, Qt::LeftDockWidgetArea);
  QDockWidget* right = add_dock("curves", "Curves", curves_, Qt::RightDockWidgetArea);
  QDockWidget* runs = add_dock("runs", "Runs", runs_, Qt::BottomDockWidgetArea);
  QDockWidget* queue = add_dock("queue", "Queue", queue_, Qt::BottomDockWidgetArea);
  QDockWidget* log = add_dock("log", "Log", log_, Qt::BottomDockWidgetArea);
  tabifyDockWidget(runs, queue);
  tabifyDockWidget(queue, log);
  runs->raise();
  resizeDocks({left, right}, {286, 340}, Qt::Horizontal);
  resizeDocks({runs}, {first_runs_height}, Qt::Vertical);
  palette_ = new Palette(actions_, this);
  shortcuts_ = new ShortcutSheet(this);
}

void MainWindow::build_menus() {
  menuBar()->setCornerWidget(new QLabel("RAT Workbench", this), Qt::TopLeftCorner);
  QHash<int, QMenu*> menus;
  for (const ActionInfo& info : action_list()) {
    QMenu*& menu = menus[static_cast<int>(info.menu)];
    if (!menu) menu = menuBar()->addMenu(menu_title(info.menu));
    if (info.separator_before) menu->addSeparator();
    QAction* action = menu->addAction(info.text);
    action->setObjectName(info.id);
    action->setShortcuts(key_sequences(info));
    connect(action, &QAction::triggered, this, [this, id = info.id] { run_action(id); });
    actions_.insert(info.id, action);
    addAction(action);
  }
  // Del edits text elsewhere: it deletes runs only while the table has the focus.
  action("delete")->setShortcutContext(Qt::WidgetShortcut);
  action("rename")->setShortcutContext(Qt::WidgetShortcut);
  runs_->table().addAction(action("delete"));
  runs_->table().addAction(action("rename"));
  bar_->connect_actions(action("start"), action("pause"), action("step"), action("stop"), action("palette"));
  canvases_->set_figure_action(action("figure"));
  connect(&runs_->compare_button(), &QPushButton::clicked, action("compare"), &QAction::trigger);
}

void MainWindow::connect_panels() {
  connect(bench_.get(), &Workbench::status_changed, this, [this] {
    show_status();
    repaint_canvases();
  });
  connect(bench_.get(), &Workbench::trace_changed, this, [this] {
    repaint_canvases();
    update_actions_soon();
  });
  connect(bench_.get(), &Workbench::runs_changed, this, [this] {
    curves_->refresh();
    canvases_->tradeoff().refresh();
    update_actions();
    repaint_canvases();
  });
  connect(bench_.get(), &Workbench::subject_changed, this, [this] {
    show_subject();
    show_runs_in_curves();
    update_actions();
    repaint_canvases();
  });
  connect(bench_.get(), &Workbench::message, this, &MainWindow::say);
  connect(runs_, &RunsPanel::message, this, &MainWindow::say);
  connect(canvases_, &CanvasArea::current_changed, this, [this] { update_actions(); });
  connect(experiment_, &ExperimentPanel::spec_changed, this, [this] {
    canvases_->tradeoff().set_base_spec(experiment_->spec());
    update_actions();
  });
  connect(runs_, &RunsPanel::selection_changed, this, [this] {
    bench_->selection().runs = runs_->selected();
    canvases_->tradeoff().set_selected_run(bench_->selection().runs.empty() ? "" : bench_->selection().runs.back());
    show_runs_in_curves();
    update_actions();
    repaint_canvases();
  });
  connect(runs_, &RunsPanel::open_requested, this, [this](const QString& id) { bench_->open_run(id.toStdString()); });
  connect(runs_, &RunsPanel::menu_requested, this, [this](const QPoint& at) {
    QMenu menu(this);
    for (const char* id : {"open_run", "compare", "rename", "tag", "resume", "extend", "rerun", "delete"})
      menu.addAction(action(id));
    menu.exec(at);
  });
  connect(queue_, &QueuePanel::remove_requested, this,
          [this](const QString& id) { bench_->training().remove_queued(id.toStdString()); });
  connect(&runs_->undo_stack(), &QUndoStack::indexChanged, this, [this] { update_actions(); });
  connect(qApp, &QApplication::focusChanged, this, [this] { update_actions(); });
}

// The plots beside and among the canvases: what a click on them opens, what they export and queue.
void MainWindow::connect_plots() {
  const auto open = [this](const QString& id) {
    runs_->select({id.toStdString()});
    bench_->open_run(id.toStdString());
  };
  connect(curves_, &CurvesPanel::run_clicked, this, open);
  connect(curves_, &CurvesPanel::export_requested, this, [this](const Recipe& recipe) {
    open_figure({recipe, nullptr});
  });
  TradeoffCanvas& tradeoff = canvases_->tradeoff();
  connect(&tradeoff, &TradeoffCanvas::run_clicked, this, [this](const QString& id, const QStringList& seeds) {
    std::vector<std::string> ids;
    for (const QString& seed : seeds) ids.push_back(seed.toStdString());
    runs_->select(ids);
    canvases_->tradeoff().set_selected_run(id.toStdString());
    bench_->open_run(id.toStdString());
  });
  connect(&tradeoff, &TradeoffCanvas::export_requested, this, [this](const Recipe& recipe) {
    open_figure({recipe, nullptr});
  });
  connect(&tradeoff, &TradeoffCanvas::message, this, [this](const QString& text) { say(text, false); });
  connect(&tradeoff, &TradeoffCanvas::enqueue_requested, this,
          [this](const std::vector<RunSpec>& specs, const std::string& sweep) {
            bench_->show_live();
            for (const RunSpec& spec : specs) bench_->training().enqueue(spec, sweep);
          });
  tradeoff.set_base_spec(experiment_->spec());
}

void MainWindow::update_actions_soon() {
  if (!actions_timer_.isActive()) actions_timer_.start();
}

void MainWindow::start_timers() {
  actions_timer_.setSingleShot(true);
  actions_timer_.setInterval(actions_ms);
  connect(&actions_timer_, &QTimer::timeout, this, &MainWindow::update_actions);
  repaint_timer_.setSingleShot(true);
  connect(&repaint_timer_, &QTimer::timeout, this, [this] {
    painted_.start();
    canvases_->refresh_visible();
  });
  curves_timer_.setInterval(numbers_ms);
  connect(&curves_timer_, &QTimer::timeout, this, [this] {
    status_line_->update_numbers();
    if (!bench_->busy()) return;
    curves_->refresh();
    canvases_->tradeoff().refresh();
  });
  curves_timer_.start();
}

void MainWindow::repaint_canvases() {
  if (repaint_timer_.isActive()) return;
  double slowest = 0;
  for (const QString& id : canvases_->ids())
    if (const ImGuiCanvas* canvas = canvases_->canvas(id); canvas && canvas->isVisible())
      slowest = std::max(slowest, canvas->last_frame_ms());
  const double pause = std::max<double>(fastest_repaint_ms, repaint_share * slowest);
  const double since = painted_.isValid() ? static_cast<double>(painted_.elapsed()) : pause;
  const double wait = std::max(0.0, pause - since);
  // A drawing in software takes as long as the answer the user waits for: it comes after it.
  repaint_timer_.start(static_cast<int>(bench_->awaits_answer() ? std::max(wait, answer_first_ms) : wait));
}

void MainWindow::show_status() {
  const TrainingStatus& status = bench_->status();
  bar_->show_status(status);
  queue_->show_status(status);
  if (status.tokens_per_s_median > 0) {
    const CostEstimate cost = estimate_cost(status.spec.model, status.spec.train.seq_len, status.spec.train.batch);
    experiment_->set_measured_speed(status.tokens_per_s_median * cost.train_flops_per_token);
  }
  if (shown_run_ != status.run_id) {
    shown_run_ = status.run_id;
    show_runs_in_curves();
  }
  if (std::exchange(shown_activity_, status.activity) != status.activity)
    update_actions();
  else
    update_actions_soon();
  if (closing_ && !bench_->busy()) close();
}

void MainWindow::show_subject() {
  const RunRow* stored = bench_->stored_run();
  const std::string shown = stored ? stored->name + " (stored)" : bench_->status().run_name;
  const QString file = QString::fromStdString(bench_->database().filename().string());
  setWindowTitle(QString("RAT Workbench \u2013 %1").arg(file) +
                 (shown.empty() ? QString() : " \u2013 " + QString::fromStdString(shown)));
}

void MainWindow::show_runs_in_curves() {
  std::vector<std::string> ids = runs_->selected();
  if (ids.empty() && bench_->stored_run()) ids.push_back(bench_->stored_run()->id);
  curves_->set_runs(std::move(ids),
                    bench_->subject() == views::Subject::live ? bench_->status().run_id : std::string());
}

void MainWindow::say(const QString& sentence, bool is_error) {
  log_->add(sentence, is_error);
  if (is_error) {
    banner_->show_error(sentence);
  } else {
    statusBar()->showMessage(sentence, 8000);
  }
}

void MainWindow::set_theme(ThemeKind kind) {
  theme_kind_ = kind;
  const Theme& chosen = theme(kind);
  apply_qt_theme(*qApp, chosen);
  bar_->update_icons();
  runs_->set_theme(chosen);
  canvases_->set_theme(chosen);
  curves_->set_theme(chosen);
  QSettings().setValue("theme", kind == ThemeKind::light ? "light" : "dark");
}

void MainWindow::closeEvent(QCloseEvent* event) {
  if (bench_->busy()) {
    // Nothing is asked and nothing is lost: the run stops at a checkpoint and can be resumed.
    event->ignore();
    if (std::exchange(closing_, true)) return;
    bar_->show_pending("Stopping...");
    say("Saving a checkpoint; the window closes when it is on disk.", false);
    statusBar()->showMessage("Saving a checkpoint; the window closes when it is on disk.");
    bench_->training().stop_all();
    return;
  }
  save_layout();
  event->accept();
  if (next_database_.isEmpty())
    emit closed();
  else
    emit database_requested(next_database_);
}

}  // namespace rat::app
