#include "app/window/status_line.h"

#include <QDateTime>
#include <QLabel>

#include "app/window/fonts.h"
#include "app/window/ui_watchdog.h"
#include "app/window/widgets.h"
#include "app/window/workbench.h"
#include "build_info.h"
#include "kernels/base/cpu_features.h"

namespace rat::app {
namespace {

constexpr double frame_window_s = 10;

NumberLabel* small_number(QWidget* parent) {
  auto* made = new NumberLabel(Qt::AlignLeft, parent);
  made->setFont(ui_font(QFont::Normal, 12));
  made->set_color_role("secondary");
  return made;
}

// "AVX3 kernels · oneDNN 2.6.3 (avx512_core_amx)": what this machine computes with.
QString machine_text() {
  static const kernels::CpuFeatures features = kernels::cpu_features();
  return QString("%1 kernels \u00b7 oneDNN %2, up to %3")
      .arg(QString::fromStdString(features.simd_target), QString::fromStdString(features.onednn_version),
           QString::fromStdString(features.onednn_isa));
}

}  // namespace

StatusLine::StatusLine(Workbench& bench, QWidget* parent)
    : QStatusBar(parent),
      bench_(bench),
      database_(small_number(this)),
      probes_(small_number(this)),
      frame_(small_number(this)),
      engine_(new QLabel(this)),
      commit_(new QLabel(this)) {
  setSizeGripEnabled(false);
  setContentsMargins(8, 0, 8, 0);
  for (NumberLabel* one : {database_, probes_, frame_}) addWidget(one);
  addPermanentWidget(engine_);
  addPermanentWidget(commit_);
  database_->setToolTip(QString::fromStdString(bench.database().string()));
  frame_->setToolTip("How long the window's event loop is busy with one event, over the last 10 s");
  engine_->setToolTip(
      "What computes the numbers: the path of the newest trace, the vector instructions of the kernels, and the "
      "library "
      "of the matrix products. `rat verify` measures their error against the float64 reference.");
  commit_->setText(
      QString("commit %1%2").arg(QString::fromUtf8(build_info::commit).left(7), build_info::dirty ? " + changes" : ""));
  update_numbers();
}

void StatusLine::update_numbers() {
  const StoreWriter::Health health = bench_.writer().health();
  const double age = static_cast<double>(QDateTime::currentMSecsSinceEpoch()) * 1e-3 - health.last_commit_at;
  QString saved = "nothing to save yet";
  if (health.last_commit_at > 0)
    saved =
        age < 60 ? QString("saved %1 s ago").arg(age, 0, 'f', 1) : QString("saved %1 min ago").arg(age / 60, 0, 'f', 0);
  if (health.queued > 0 && age > 2) saved += QString(", %1 points waiting").arg(health.queued);
  database_->set_text(QString::fromStdString(bench_.database().filename().string()) + " \u00b7 " + saved + "   ");
  database_->set_color_role(health.problem.empty() ? "secondary" : "warning");
  const TrainingStatus& status = bench_.status();
  probes_->set_text(status.step > 0
                        ? QString("probes cost %1 % of training   ").arg(status.probe_share * 100, 0, 'f', 1)
                        : QString());
  const UiWatchdog::Report report = WindowApplication::watchdog().recent(frame_window_s);
  frame_->set_text(report.events > 0
                       ? QString("UI %1 ms p99, %2 ms max").arg(report.p99_ms, 0, 'f', 1).arg(report.max_ms, 0, 'f', 0)
                       : QString());
  const auto trace = bench_.trace_of("");
  QString computed =
      trace && !trace->kernel_path.empty() ? QString::fromStdString(trace->kernel_path) + " \u00b7 " : "";
  engine_->setText(computed + machine_text());
}

}  // namespace rat::app
