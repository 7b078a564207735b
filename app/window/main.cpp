// rat-workbench: the window program.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <QFileDialog>
#include <QMessageBox>
#include <QPushButton>
#include <QSurfaceFormat>
#include <QTimer>
#include <csignal>
#include <cstdio>

#include "app/figure/rebuild.h"
#include "app/window/experiment_panel.h"
#include "app/window/main_window.h"
#include "app/window/theme_qt.h"
#include "app/window/tour.h"
#include "app/window/ui_watchdog.h"
#include "build_info.h"

namespace rat::app {
namespace {

struct Options {
  std::string database, tour, figure, out, format;
  bool demo = false;
};

void say_error(const std::string& sentence) { fmt::print(stderr, "rat-workbench: {}\n", sentence); }

// Ctrl+C and kill close the window as its close button does: at a checkpoint.
volatile std::sig_atomic_t interrupted = 0;
void on_signal(int) { interrupted = 1; }

class Program : public QObject {
 public:
  explicit Program(const Options& options) : options_(options) {
    QApplication::setQuitOnLastWindowClosed(false);  // another database opens in another window
    std::signal(SIGINT, on_signal);
    std::signal(SIGTERM, on_signal);
    connect(&signals_, &QTimer::timeout, this, [this] {
      if (!interrupted) return;
      if (window_)
        window_->close();
      else if (auto* const question = qobject_cast<QDialog*>(QApplication::activeModalWidget()))
        question->reject();
    });
    signals_.start(200);
  }

  // False when the user gave up on a refused database.
  bool open(std::filesystem::path database) {
    for (;;) {
      Result<std::unique_ptr<Workbench>> bench = Workbench::open(database);
      if (bench) {
        show(*std::move(bench));
        return true;
      }
      if (interrupted) return false;
      database = ask_other(database, bench.error().message);
      if (database.empty()) return false;
    }
  }

 private:
  void show(std::unique_ptr<Workbench> bench) {
    window_ = std::make_unique<MainWindow>(std::move(bench));
    connect(window_.get(), &MainWindow::closed, this, [] { QCoreApplication::quit(); });
    connect(window_.get(), &MainWindow::database_requested, this, [this](const QString& path) { reopen(path); });
    window_->show();
    if (std::exchange(options_.demo, false))
      window_->action("start")->trigger();
    else
      window_->open_newest_run();
  }

  void reopen(const QString& path) {
    QTimer::singleShot(0, this, [this, path] {
      window_.reset();
      if (!open(path.toStdString())) QCoreApplication::exit(1);
    });
  }

  static std::filesystem::path ask_other(const std::filesystem::path& refused, const std::string& sentence) {
    say_error(sentence);
    QMessageBox box(QMessageBox::Warning, "RAT Workbench", QString::fromStdString(sentence));
    box.setInformativeText(QString("The file %1 was not touched.").arg(QString::fromStdString(refused.string())));
    QPushButton* other = box.addButton("Open another...", QMessageBox::AcceptRole);
    QPushButton* fresh = box.addButton("New database...", QMessageBox::ActionRole);
    box.addButton("Quit", QMessageBox::RejectRole);
    box.exec();
    QString path;
    if (box.clickedButton() == other)
      path = QFileDialog::getOpenFileName(nullptr, "Open database", {}, "Run databases (*.db);;All files (*)");
    if (box.clickedButton() == fresh)
      path = QFileDialog::getSaveFileName(nullptr, "New database", "runs.db", "Run databases (*.db)");
    return path.toStdString();
  }

  Options options_;
  std::unique_ptr<MainWindow> window_;
  QTimer signals_;
};

int run_figure(const Options& options) {
  const std::filesystem::path database =
      options.database.empty() ? default_database_path() : std::filesystem::path(options.database);
  const Status done = rebuild_figure(options.figure, database, options.out, options.format);
  if (!done) {
    say_error(done.error().message);
    return 1;
  }
  fmt::print("{}\n", options.out);
  return 0;
}

int run(const Options& options) {
  if (!options.figure.empty()) return run_figure(options);
  apply_qt_theme(*qApp, theme(ThemeKind::dark));
  const std::filesystem::path database =
      options.database.empty() ? default_database_path() : std::filesystem::path(options.database);
  if (!options.tour.empty()) {
    const Status done = run_tour(database, options.tour);
    if (!done) say_error(done.error().message);
    return done ? 0 : 1;
  }
  Program program(options);
  if (!program.open(database)) return 1;
  return QCoreApplication::exec();
}

// OpenGL 3.3 core where there is one; software GL gives at least that.
void choose_gl() {
  QSurfaceFormat format;
  format.setVersion(3, 3);
  format.setProfile(QSurfaceFormat::CoreProfile);
  format.setSwapInterval(0);  // several canvases must not wait for each other
  QSurfaceFormat::setDefaultFormat(format);
}

}  // namespace
}  // namespace rat::app

int main(int argc, char** argv) {
  rat::app::Options options;
  CLI::App cli{"RAT Workbench: train, watch and compare chunked recurrent-attention models."};
  cli.set_version_flag("--version", std::string(rat::build_info::version) + " " + rat::build_info::commit);
  cli.add_option("database", options.database, "Run database (default: " + rat::default_database_path().string() + ")");
  cli.add_option("--db", options.database, "The same");
  cli.add_option("--tour", options.tour,
                 "Visit every canvas and dialog in both themes, save a PNG of each into this folder, exit");
  auto* figure =
      cli.add_option("--figure", options.figure, "Rebuild the figure of this recipe (.json), without a window");
  auto* out = cli.add_option("--out", options.out, "Where --figure writes it (.pdf, .svg, .png)");
  cli.add_option("--format", options.format, "Format of --figure, if the extension does not say it");
  cli.add_flag("--demo", options.demo, "Start training a small model on the default text at once");
  figure->needs(out);
  out->needs(figure);
  try {
    cli.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return cli.exit(error) == 0 ? 0 : 2;
  }
  if (!options.figure.empty() && qEnvironmentVariableIsEmpty("QT_QPA_PLATFORM"))
    qputenv("QT_QPA_PLATFORM", "offscreen");
  rat::app::choose_gl();
  rat::app::WindowApplication application(argc, argv);
  QCoreApplication::setOrganizationName("rat-workbench");
  QCoreApplication::setApplicationName("rat-workbench");
  try {
    return rat::app::run(options);
  } catch (const std::exception& error) {
    rat::app::say_error(error.what());
    return 1;
  }
}
