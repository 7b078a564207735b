#include "app/window/tour.h"

#include <fmt/format.h>

#include <QAction>
#include <QApplication>
#include <QDir>
#include <QDockWidget>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QTimer>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>

#include "app/figure/curves_panel.h"
#include "app/figure/figure_dialog.h"
#include "app/figure/tradeoff_canvas.h"
#include "app/window/canvas_area.h"
#include "app/window/experiment_panel.h"
#include "app/window/main_window.h"
#include "app/window/palette.h"
#include "app/window/runs_panel.h"

namespace rat::app {
namespace {

constexpr QSize window_size(1600, 1000);
constexpr int wait_ms = 60'000, training_wait_ms = 300'000, poll_ms = 20, settle_ms = 250;
constexpr int first_steps = 60;  // of the model that is trained when the database has none
constexpr int64_t generated_tokens = 32;

class Tour {
 public:
  Tour(MainWindow& window, std::filesystem::path folder) : window_(window), folder_(std::move(folder)) {}

  Status run() {
    RAT_TRY(prepare());
    for (const ThemeKind kind : {ThemeKind::dark, ThemeKind::light}) {
      theme_ = kind == ThemeKind::dark ? "dark" : "light";
      window_.set_theme(kind);
      RAT_TRY(empty_state());
      RAT_TRY(canvases());
      RAT_TRY(docks());
      RAT_TRY(overlays());
      RAT_TRY(dialogs());
    }
    return ok();
  }

 private:
  using Condition = std::function<bool()>;

  static void pause(int ms) {
    QEventLoop loop;
    QTimer::singleShot(ms, &loop, &QEventLoop::quit);
    loop.exec();
  }

  Status wait_for(const char* what, const Condition& done, int limit_ms = wait_ms) {
    QElapsedTimer timer;
    timer.start();
    while (!done()) {
      if (const InspectStatus& seen = window_.bench().inspect_status(); seen.message_is_error)
        return fail(ErrorCode::not_found, "The tour cannot show the opened run: {}", seen.message);
      if (timer.elapsed() > limit_ms)
        return fail(ErrorCode::io_failure,
                    "The tour waited {} s for {}; run it again on a quieter machine, or report it.", limit_ms / 1000,
                    what);
      pause(poll_ms);
    }
    return ok();
  }

  Status save(QWidget& widget, const std::string& name) {
    pause(settle_ms);
    const std::filesystem::path path = folder_ / fmt::format("{:02}-{}-{}.png", ++number_, name, theme_);
    if (!widget.grab().save(QString::fromStdString(path.string()), "PNG"))
      return fail(ErrorCode::io_failure, "Cannot write {}; choose a writable folder for --tour.", path.string());
    fmt::print("{}\n", path.string());
    std::fflush(stdout);
    return ok();
  }

  Status prepare() {
    Workbench& bench = window_.bench();
    bool read = false;
    QObject::connect(&bench, &Workbench::runs_changed, &window_, [&read] { read = true; });
    RAT_TRY(wait_for("the runs of the database", [&] { return read; }));
    if (!newest()) {
      fmt::print(stderr, "No run with a checkpoint in the database: training a small model for {} steps first.\n",
                 first_steps);
      RunSpec spec = default_spec();
      spec.name = "tour";
      spec.train.steps = first_steps;
      spec.train.warmup = 10;
      spec.train.eval_every = 20;
      bench.training().enqueue(spec);
      RAT_TRY(wait_for(
          "the first model", [&] { return newest() != nullptr && !bench.busy(); }, training_wait_ms));
    }
    return ok();
  }

  const RunRow* newest() const {
    if (window_.bench().busy()) return nullptr;
    for (const RunRow& run : *window_.bench().runs())
      if (!run.checkpoint.empty()) return &run;
    return nullptr;
  }

  Status empty_state() {
    if (!window_.bench().status().run_id.empty()) return ok();  // something was trained: the live subject is not empty
    window_.bench().show_live();
    window_.canvases().show_canvas("attention");
    return save(window_, "empty");
  }

  Status drawn(ImGuiCanvas& canvas) {
    const int64_t before = canvas.frames_drawn();
    canvas.refresh(4);
    return wait_for("a canvas to be drawn (OpenGL may be missing)",
                    [&] { return canvas.frames_drawn() >= before + 3; });
  }

  Status canvases() {
    Workbench& bench = window_.bench();
    const std::string run = newest()->id;
    window_.runs().select({run});
    bench.open_run(run);
    for (const QString& id : window_.canvases().ids()) {
      window_.canvases().show_canvas(id);
      ImGuiCanvas* canvas = window_.canvases().canvas(id);
      if (!canvas) {
        window_.canvases().tradeoff().refresh();
        pause(4 * settle_ms);
      } else {
        RAT_TRY(drawn(*canvas));
        RAT_TRY(data(id, *canvas));
        RAT_TRY(drawn(*canvas));
      }
      RAT_TRY(save(window_, "canvas-" + id.toStdString()));
    }
    return ok();
  }

  Status data(const QString& id, ImGuiCanvas& canvas) {
    Workbench& bench = window_.bench();
    const auto opened = [&] { return !bench.inspect_status().run_id.empty(); };
    // What the view asks for; an rnn has no attention, and the canvas then asks for nothing and says so.
    const auto answered = [&] {
      const std::optional<ModelConfig> model = bench.subject_model();
      if (!opened() || !model) return false;
      const TraceSnapshot& trace = *canvas.frame().trace;
      const ProbeRequest wanted = canvas.view().probes(bench.selection(), *model);
      return std::all_of(wanted.items.begin(), wanted.items.end(), [&](const ProbeRequest::Item& item) {
        return item.layer < 0 ? !trace.tensors.empty() : trace.find(item.probe, item.layer) != nullptr;
      });
    };
    if (id == "attention" || id == "states") return wait_for("the trace of the opened run", answered);
    if (id != "generate") return wait_for("the opened run", opened);
    GenerationConfig config;
    config.samples = 3;
    canvas.frame().commands->generate("#include <vector>\n\n// Returns the sum of all values.\n", generated_tokens,
                                      config);
    return wait_for("the generated text", [&] {
      const auto generation = canvas.frame().generation;
      return !generation->running &&
             static_cast<int64_t>(generation->tokens.size()) >= generation->prompt_tokens + generated_tokens;
    });
  }

  Status docks() {
    window_.canvases().show_canvas("attention");
    for (const char* id : {"queue", "log"}) {
      window_.findChild<QDockWidget*>(QString("dock_") + id)->raise();
      RAT_TRY(save(window_, id));
    }
    window_.findChild<QDockWidget*>("dock_runs")->raise();
    return ok();
  }

  Status overlays() {
    window_.palette().open();
    window_.palette().set_query("th");
    RAT_TRY(save(window_, "command-palette"));
    window_.palette().hide();
    window_.shortcut_sheet().open();
    RAT_TRY(save(window_, "shortcut-sheet"));
    window_.shortcut_sheet().hide();
    return ok();
  }

  Status dialogs() {
    for (const char* id : {"attention", "tradeoff"}) {
      window_.canvases().show_canvas(id);
      window_.canvases().setFocus();
      const auto source = window_.figure_source();
      if (!source) {
        fmt::print(stderr, "The canvas {} has nothing to export for this run.\n", id);
        continue;
      }
      RAT_TRY(dialog(window_.open_figure(*source), std::string("figure-") + id));
    }
    RAT_TRY(dialog(window_.open_figure({window_.curves().recipe(), nullptr}), "figure-curves"));
    std::vector<std::string> some;
    for (const RunRow& run : *window_.bench().runs())
      if (some.size() < 3) some.push_back(run.id);
    if (some.size() > 1) {
      window_.runs().select(some);
      window_.action("compare")->trigger();
      RAT_TRY(dialog(QApplication::activeModalWidget(), "compare"));
    } else {
      fmt::print(stderr, "One run only: there is nothing to compare.\n");
    }
    window_.action("about")->trigger();
    return dialog(QApplication::activeModalWidget(), "about");
  }

  Status dialog(QWidget* shown, const std::string& name) {
    if (!shown) return fail(ErrorCode::not_found, "The dialog {} did not open.", name);
    if (const auto* figure = dynamic_cast<const FigureDialog*>(shown))
      RAT_TRY(wait_for("the preview of a figure", [figure] { return figure->ready(); }));
    pause(4 * settle_ms);
    RAT_TRY(save(*shown, name));
    shown->close();
    pause(poll_ms);
    return ok();
  }

  MainWindow& window_;
  std::filesystem::path folder_;
  std::string theme_;
  int number_ = 0;
};

}  // namespace

Status run_tour(const std::filesystem::path& database, const std::filesystem::path& folder) {
  if (!QDir().mkpath(QString::fromStdString(folder.string())))
    return fail(ErrorCode::io_failure, "Cannot create the folder {}; choose a writable one for --tour.",
                folder.string());
  if (const QString problem = opengl_problem(); !problem.isEmpty())
    return fail(ErrorCode::unsupported, "{}", problem.toStdString());
  RAT_ASSIGN(std::unique_ptr<Workbench> bench, Workbench::open(database));
  MainWindow window(std::move(bench));
  window.reset_layout();
  window.resize(window_size);
  window.show();
  return Tour(window, folder).run();
}

}  // namespace rat::app
