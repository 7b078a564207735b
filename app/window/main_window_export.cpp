// What leaves the window: figures, pictures of itself, its frame times.
#include <QAction>
#include <QApplication>

#include "app/figure/curves_panel.h"
#include "app/figure/figure_dialog.h"
#include "app/figure/render.h"
#include "app/figure/tradeoff_canvas.h"
#include "app/window/ask.h"
#include "app/window/canvas_area.h"
#include "app/window/main_window.h"
#include "app/window/ui_watchdog.h"

namespace rat::app {

void MainWindow::frame_times() {
  const UiWatchdog::Report report = WindowApplication::watchdog().report();
  say(QString("The window was busy with an event for %1 ms (median), %2 ms (p99), %3 ms (longest) over %4 events.")
          .arg(report.median_ms, 0, 'f', 2)
          .arg(report.p99_ms, 0, 'f', 1)
          .arg(report.max_ms, 0, 'f', 0)
          .arg(report.events),
      false);
}

void MainWindow::export_frame_times() {
  ask_file(this, "Save frame times", "CSV (*.csv)", true, "csv", [this](const QString& path) {
    const Status done = WindowApplication::watchdog().write_csv(path.toStdString());
    say(done ? "Wrote " + path : QString::fromStdString(done.error().message), !done);
  });
}

std::optional<MainWindow::FigureSource> MainWindow::figure_source() const {
  const QWidget* focus = QApplication::focusWidget();
  if (focus && curves_->isAncestorOf(focus)) return FigureSource{curves_->recipe(), nullptr};
  const QString id = canvases_->current();
  if (id == "tradeoff") return FigureSource{canvases_->tradeoff().recipe(), nullptr};
  ImGuiCanvas* canvas = canvases_->canvas(id);
  if (!canvas) return std::nullopt;
  const views::Frame frame = canvas->frame();
  std::optional<Recipe> recipe = canvas->view().recipe(frame);
  if (!recipe) return std::nullopt;
  const bool from_trace = recipe->kind == FigureKind::attention || recipe->kind == FigureKind::states;
  return FigureSource{*std::move(recipe), from_trace ? frame.trace : nullptr};
}

FigureDialog* MainWindow::open_figure(const FigureSource& source) {
  // Called by the dialog, off and on the UI thread: each call has its own reader.
  const auto build = [database = bench_->database(),
                      trace = source.trace](const Recipe& recipe) -> Result<PlotDescription> {
    if (trace) return build_plot(recipe, *trace);
    RAT_ASSIGN(const StoreReader reader, StoreReader::open(database));
    return build_plot(recipe, reader);
  };
  auto* dialog = new FigureDialog(source.recipe, build, source.trace, this);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  connect(dialog, &FigureDialog::saved, this, [this](const QString& text) { say(text, false); });
  dialog->open();
  return dialog;
}

void MainWindow::figure() {
  if (const auto source = figure_source()) open_figure(*source);
}

void MainWindow::quick_figure(const QString& format) {
  const auto source = figure_source();
  if (!source) return;
  ask_file(this, "Save figure", format.toUpper() + QString(" (*.%1)").arg(format), true, format,
           [this, source, format](const QString& path) {
             bench_->store().query<std::shared_ptr<Result<PlotDescription>>>(
                 this,
                 [source](const StoreReader& reader) {
                   return std::make_shared<Result<PlotDescription>>(
                       source->trace ? build_plot(source->recipe, *source->trace) : build_plot(source->recipe, reader));
                 },
                 [this, source, format, path](const std::shared_ptr<Result<PlotDescription>>& plot) {
                   Status done = *plot ? render_figure(**plot, source->recipe, path.toStdString(), format.toStdString())
                                       : Status((*plot).error());
                   say(done ? "Wrote " + path : QString::fromStdString(done.error().message), !done);
                 });
           });
}

void MainWindow::figure_png() { quick_figure("png"); }
void MainWindow::figure_svg() { quick_figure("svg"); }

void MainWindow::screenshot() {
  const QPixmap shot = grab();
  ask_file(this, "Save the window", "PNG (*.png)", true, "png", [this, shot](const QString& path) {
    const bool saved = shot.save(path, "PNG");
    say(saved ? "Wrote " + path : "Cannot write " + path + "; choose a writable folder.", !saved);
  });
}

}  // namespace rat::app
