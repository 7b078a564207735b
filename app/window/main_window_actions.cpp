// What each action does, and when it can be used. The list itself is in actions.cpp.
#include <QAction>
#include <QApplication>
#include <QDockWidget>
#include <QFile>
#include <QMessageBox>
#include <QSaveFile>
#include <algorithm>

#include "app/window/ask.h"
#include "app/window/canvas_area.h"
#include "app/window/compare_dialog.h"
#include "app/window/experiment_panel.h"
#include "app/window/main_window.h"
#include "app/window/palette.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "build_info.h"
#include "views/canvases/layer_dial.h"

namespace rat::app {
namespace {

bool resumable(const RunRow& run) {
  return !run.checkpoint.empty() && run.state != RunState::running && run.state != RunState::queued;
}

}  // namespace

const QHash<QString, MainWindow::Handler>& MainWindow::handlers() {
  using W = MainWindow;
  static const QHash<QString, Handler> table{{"open_database", &W::open_database},
                                             {"new_database", &W::new_database},
                                             {"backup_database", &W::backup_database},
                                             {"check_database", &W::check_database},
                                             {"load_spec", &W::load_spec},
                                             {"save_spec", &W::save_spec},
                                             {"quit", &W::quit},
                                             {"start", &W::start},
                                             {"pause", &W::pause},
                                             {"step", &W::step},
                                             {"stop", &W::stop},
                                             {"stop_all", &W::stop_all},
                                             {"resume", &W::resume},
                                             {"extend", &W::extend},
                                             {"rerun", &W::rerun},
                                             {"rename", &W::rename},
                                             {"tag", &W::tag},
                                             {"delete", &W::delete_runs},
                                             {"undo", &W::undo},
                                             {"redo", &W::redo},
                                             {"theme", &W::toggle_theme},
                                             {"full_screen", &W::full_screen},
                                             {"save_layout", &W::save_layout_now},
                                             {"reset_layout", &W::reset_layout_now},
                                             {"open_run", &W::open_run},
                                             {"follow_live", &W::follow_live},
                                             {"dial_up", &W::dial_up},
                                             {"dial_down", &W::dial_down},
                                             {"dial_reset", &W::dial_reset},
                                             {"presets", &W::presets},
                                             {"compare", &W::compare},
                                             {"filter", &W::filter},
                                             {"clear_selection", &W::clear_selection},
                                             {"frame_times", &W::frame_times},
                                             {"figure", &W::figure},
                                             {"figure_png", &W::figure_png},
                                             {"figure_svg", &W::figure_svg},
                                             {"screenshot", &W::screenshot},
                                             {"export_frame_times", &W::export_frame_times},
                                             {"palette", &W::show_palette},
                                             {"shortcuts", &W::show_shortcuts},
                                             {"about", &W::about}};
  return table;
}

bool MainWindow::has_handler(const QString& id) const {
  if (id.startsWith("show_")) return canvases_->ids().contains(id.mid(5));
  return handlers().contains(id) || (id.startsWith("view_") && docks_.contains(id.mid(5)));
}

void MainWindow::run_action(const QString& id) {
  if (run_show_action(id)) return;
  if (const Handler handler = handlers().value(id)) (this->*handler)();
}

// show_<canvas> and view_<dock> follow from the lists of canvases and docks.
bool MainWindow::run_show_action(const QString& id) {
  if (id.startsWith("show_")) {
    canvases_->show_canvas(id.mid(5));
    return true;
  }
  QDockWidget* dock = id.startsWith("view_") ? docks_.value(id.mid(5)) : nullptr;
  if (!dock) return false;
  const bool in_front = dock->isVisible() && !dock->visibleRegion().isEmpty();
  dock->setVisible(!in_front);
  if (!in_front) dock->raise();
  return true;
}

const RunRow* MainWindow::single_selected() const {
  const std::vector<std::string> ids = runs_->selected();
  return ids.size() == 1 ? bench_->find_run(ids.front()) : nullptr;
}

bool MainWindow::is_enabled(Enabled rule) const {
  const TrainingStatus& status = bench_->status();
  const SessionActivity activity = status.activity;
  const bool stopping = activity == SessionActivity::stopping;
  const std::size_t chosen = runs_->selected().size();
  const RunRow* one = single_selected();
  switch (rule) {
    case Enabled::always:
      return true;
    case Enabled::spec_valid:
      return experiment_->valid() && !closing_;
    case Enabled::can_pause:
      return bench_->busy() && !stopping && activity != SessionActivity::preparing;
    case Enabled::can_step:
      return activity == SessionActivity::paused || activity == SessionActivity::training ||
             activity == SessionActivity::evaluating;
    case Enabled::can_stop:
      return bench_->busy() && !stopping;
    case Enabled::queue_not_empty:
      return !status.queue.empty();
    case Enabled::one_run:
      return one != nullptr;
    case Enabled::any_run:
      return chosen > 0;
    case Enabled::several_runs:
      return chosen > 1;
    case Enabled::resumable_run:
      return one && resumable(*one) && !(bench_->busy() && one->id == status.run_id);
    case Enabled::openable_run:
      return one != nullptr;
    case Enabled::stored_subject:
      return bench_->subject() == views::Subject::stored;
    case Enabled::dial:
      return views::layer_dial(bench_->inspect_status(), bench_->inspected_tokens()).has_value();
    case Enabled::figure:
      return figure_source().has_value();
    case Enabled::can_undo:
      return runs_->undo_stack().canUndo();
    case Enabled::can_redo:
      return runs_->undo_stack().canRedo();
  }
  return false;
}

void MainWindow::update_actions() {
  for (const ActionInfo& info : action_list()) action(info.id)->setEnabled(is_enabled(info.enabled));
  const QString undo = runs_->undo_stack().undoText();
  action("undo")->setText(undo.isEmpty() ? QString("Undo") : "Undo " + undo);
  action("pause")->setText(bench_->status().activity == SessionActivity::paused ? "Continue" : "Pause");
}

void MainWindow::start() {
  bench_->show_live();
  bench_->training().enqueue(experiment_->spec());
  say(QString("Queued %1.").arg(QString::fromStdString(experiment_->spec().name)), false);
}

void MainWindow::pause() {
  bench_->expect_answer();
  if (bench_->status().activity == SessionActivity::paused) {
    bench_->training().unpause();
    bar_->show_pending("Continuing...");
  } else {
    bench_->training().pause();
    bar_->show_pending("Pausing...");
  }
}

void MainWindow::step() {
  bench_->expect_answer();
  bench_->training().step();
}

void MainWindow::stop() {
  bench_->expect_answer();
  bench_->training().stop();
  bar_->show_pending("Stopping...");
}

void MainWindow::stop_all() {
  bench_->expect_answer();
  bench_->training().stop_all();
  bar_->show_pending("Stopping...");
}

void MainWindow::resume() {
  const RunRow* run = single_selected();
  if (!run) return;
  if (run->steps_done >= run->steps_total) {
    extend();
    return;
  }
  bench_->show_live();
  bench_->training().resume_run(*run);
}

void MainWindow::extend() {
  const RunRow* run = single_selected();
  if (!run) return;
  ask_number(this, "Train further",
             QString("Total steps of %1 (now %2):").arg(QString::fromStdString(run->name)).arg(run->steps_done),
             static_cast<int>(2 * run->steps_total), [this, row = *run](int steps) {
               bench_->show_live();
               bench_->training().resume_run(row, steps);
             });
}

void MainWindow::rerun() {
  const RunRow* run = single_selected();
  if (!run) return;
  Result<RunSpec> spec = parse_spec(run->spec_json);
  if (!spec) {
    say(QString::fromStdString(spec.error().message), true);
    return;
  }
  experiment_->set_spec(*spec);
  docks_["experiment"]->show();
  say(QString("The form shows the spec of %1.").arg(QString::fromStdString(run->name)), false);
}

void MainWindow::request_database(const QString& path) {
  next_database_ = path;
  close();
}

void MainWindow::open_database() {
  ask_file(this, "Open database", "Run databases (*.db);;All files (*)", false, "db", [this](const QString& path) {
    // What cannot be read leaves this window as it is.
    if (const auto readable = StoreReader::open(path.toStdString()); !readable)
      return say(QString::fromStdString(readable.error().message), true);
    request_database(path);
  });
}

void MainWindow::new_database() {
  ask_file(this, "New database", "Run databases (*.db)", true, "db",
           [this](const QString& path) { request_database(path); });
}

void MainWindow::backup_database() {
  ask_file(this, "Back up the database to", "Run databases (*.db)", true, "db", [this](const QString& path) {
    bench_->store().query<std::string>(
        this,
        [to = path.toStdString()](const StoreReader& reader) {
          const Status done = reader.backup(to);
          return done ? std::string() : done.error().message;
        },
        [this, path](const std::string& problem) {
          say(problem.empty() ? "Backed up to " + path : QString::fromStdString(problem), !problem.empty());
        });
  });
}

void MainWindow::check_database() {
  bench_->store().query<std::string>(
      this,
      [](const StoreReader& reader) {
        const Status sound = reader.check();
        return sound ? std::string() : sound.error().message;
      },
      [this](const std::string& problem) {
        say(problem.empty() ? QString("The database is sound and every checkpoint is there.")
                            : QString::fromStdString(problem),
            !problem.empty());
      });
}

void MainWindow::load_spec() {
  ask_file(this, "Load spec", "Run specs (*.json);;All files (*)", false, "json", [this](const QString& path) {
    QFile file(path);
    if (!file.open(QIODevice::ReadOnly)) {
      say(QString("Cannot read %1: %2.").arg(path, file.errorString()), true);
      return;
    }
    Result<RunSpec> spec = parse_spec(file.readAll().toStdString());
    if (spec)
      experiment_->set_spec(*spec);
    else
      say(QString::fromStdString(spec.error().message), true);
  });
}

void MainWindow::save_spec() {
  ask_file(this, "Save spec", "Run specs (*.json)", true, "json", [this](const QString& path) {
    QSaveFile file(path);
    const bool written =
        file.open(QIODevice::WriteOnly) && file.write(QByteArray::fromStdString(to_json(experiment_->spec(), 2))) >= 0;
    const bool saved = written && file.commit();
    say(saved ? "Wrote " + path : QString("Cannot write %1: %2.").arg(path, file.errorString()), !saved);
  });
}

void MainWindow::quit() { close(); }
void MainWindow::rename() { runs_->begin_rename(); }
void MainWindow::tag() { runs_->ask_tags(); }
void MainWindow::delete_runs() { runs_->delete_selected(); }
void MainWindow::undo() { runs_->undo_stack().undo(); }
void MainWindow::redo() { runs_->undo_stack().redo(); }
void MainWindow::toggle_theme() { set_theme(theme_kind_ == ThemeKind::dark ? ThemeKind::light : ThemeKind::dark); }
void MainWindow::full_screen() { isFullScreen() ? showNormal() : showFullScreen(); }

void MainWindow::save_layout_now() {
  save_layout();
  say("Layout saved.", false);
}

void MainWindow::reset_layout_now() { reset_layout(); }

void MainWindow::open_run() {
  if (const RunRow* run = single_selected()) bench_->open_run(run->id);
}

// So that a database with runs does not greet with empty canvases; unless something was begun or chosen meanwhile.
void MainWindow::open_newest_run() {
  const std::vector<RunRow>& runs = *bench_->runs();
  if (runs.empty()) {  // not read yet
    connect(bench_.get(), &Workbench::runs_changed, this, &MainWindow::open_newest_run, Qt::SingleShotConnection);
    return;
  }
  const bool untouched = !bench_->busy() && bench_->status().run_id.empty() && bench_->selection().runs.empty();
  const auto newest = std::find_if(runs.begin(), runs.end(), [](const RunRow& run) { return !run.checkpoint.empty(); });
  if (!untouched || newest == runs.end()) return;
  const std::string id = newest->id;
  runs_->select({id});
  bench_->open_run(id);
}

void MainWindow::follow_live() { bench_->show_live(); }

void MainWindow::dial_up() { bench_->turn_layer_dial(1); }
void MainWindow::dial_down() { bench_->turn_layer_dial(-1); }
void MainWindow::dial_reset() { bench_->turn_layer_dial(0); }

void MainWindow::presets() {
  docks_["experiment"]->show();
  experiment_->open_presets();
}

void MainWindow::compare() {
  std::vector<RunRow> rows;
  for (const std::string& id : runs_->selected())
    if (const RunRow* run = bench_->find_run(id)) rows.push_back(*run);
  if (rows.size() < 2) return;
  auto* dialog = new CompareDialog(rows, this);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->open();
}

void MainWindow::filter() {
  docks_["runs"]->show();
  docks_["runs"]->raise();
  runs_->focus_filter();
}

void MainWindow::clear_selection() {
  bench_->selection().clear_pins();
  canvases_->refresh_visible();
}

void MainWindow::show_palette() { palette_->open(); }
void MainWindow::show_shortcuts() { shortcuts_->open(); }

void MainWindow::about() {
  auto* box = new QMessageBox(this);
  box->setAttribute(Qt::WA_DeleteOnClose);
  box->setWindowTitle("About");
  const ImGuiCanvas* canvas = canvases_->canvas(canvases_->ids().front());
  box->setText(QString("<b>RAT Workbench %1</b><br>commit %2%3, %4, %5<br>Qt %6; %7<br><br>GPL-3.0-or-later")
                   .arg(build_info::version, build_info::commit, build_info::dirty ? " with changes" : "",
                        build_info::build_type, build_info::compiler, qVersion(),
                        canvas ? canvas->gl_description() : QString()));
  box->open();
}

}  // namespace rat::app
