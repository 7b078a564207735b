#include "app/window/run_bar.h"

#include <QAction>
#include <QHBoxLayout>
#include <QLabel>
#include <QLocale>
#include <QProgressBar>
#include <QPushButton>
#include <cmath>

#include "app/window/theme_qt.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {

constexpr int progress_range = 1000;

QPushButton* make_button(const QString& text, const char* name, QWidget* parent) {
  auto* button = new QPushButton(text, parent);
  button->setObjectName(name);
  button->setFocusPolicy(Qt::TabFocus);
  return button;
}

void follow(QPushButton* button, QAction* action) {
  QObject::connect(button, &QPushButton::clicked, action, &QAction::trigger);
  const auto sync = [button, action] {
    button->setEnabled(action->isEnabled());
    button->setToolTip(QString("%1  %2").arg(action->text(), action->shortcut().toString(QKeySequence::NativeText)));
  };
  QObject::connect(action, &QAction::changed, button, sync);
  sync();
}

}  // namespace

RunBar::RunBar(QWidget* parent)
    : QWidget(parent),
      start_(make_button("Start", "start", this)),
      pause_(make_button("Pause", "pause", this)),
      step_(make_button("Step", "step", this)),
      stop_(make_button("Stop", "stop", this)),
      palette_(make_button("Ctrl+P   search actions", "palette", this)),
      badge_(label("", "badge", this)),
      progress_(new QProgressBar(this)),
      steps_(new NumberLabel(Qt::AlignRight, this)),
      speed_(new NumberLabel(Qt::AlignRight, this)),
      left_(new NumberLabel(Qt::AlignRight, this)) {
  start_->setProperty("primary", true);
  palette_->setProperty("pill", true);
  progress_->setRange(0, progress_range);
  progress_->setTextVisible(false);
  progress_->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  progress_->setMinimumWidth(80);
  progress_->setAccessibleName("Progress of the run");
  speed_->set_bold(true);
  left_->set_color_role("secondary");
  pause_->setMinimumWidth(112);  // "Continue" and "Pausing..." fit: the row never jumps
  stop_->setMinimumWidth(98);
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(0, 0, 0, 0);
  row->setSpacing(8);
  for (QWidget* one : {static_cast<QWidget*>(start_), static_cast<QWidget*>(pause_), static_cast<QWidget*>(step_),
                       static_cast<QWidget*>(stop_), static_cast<QWidget*>(badge_)})
    row->addWidget(one);
  row->addSpacing(8);
  row->addWidget(progress_, 1);
  row->addSpacing(8);
  row->addWidget(steps_);
  row->addSpacing(4);
  row->addWidget(speed_);
  row->addSpacing(4);
  row->addWidget(left_);
  row->addSpacing(4);
  row->addWidget(palette_);
  update_icons();
}

void RunBar::connect_actions(QAction* start, QAction* pause, QAction* step, QAction* stop, QAction* palette) {
  follow(start_, start);
  follow(pause_, pause);
  follow(step_, step);
  follow(stop_, stop);
  follow(palette_, palette);
}

QPushButton* RunBar::button(const char* name) const { return findChild<QPushButton*>(name); }

void RunBar::update_icons() {
  const Theme& theme = current_theme();
  const QColor text = to_qt(theme.text);
  const QColor on_accent = theme.kind == ThemeKind::dark ? to_qt(theme.background) : QColor(Qt::white);
  start_->setIcon(glyph_icon(Glyph::start, on_accent));
  pause_->setIcon(glyph_icon(paused_ ? Glyph::start : Glyph::pause, text));
  step_->setIcon(glyph_icon(Glyph::step, text));
  stop_->setIcon(glyph_icon(Glyph::stop, text));
}

void RunBar::show_pending(const QString& what) {
  QPushButton* button = what.startsWith("Stop") ? stop_ : pause_;
  button->setText(what);
  button->setEnabled(false);
}

void RunBar::show_status(const TrainingStatus& status) {
  const bool paused = status.activity == SessionActivity::paused;
  if (paused != paused_) {
    paused_ = paused;
    update_icons();
  }
  pause_->setText(paused ? "Continue" : "Pause");
  stop_->setText(status.activity == SessionActivity::stopping ? "Stopping..." : "Stop");
  start_->setText(status.activity == SessionActivity::idle ? "Start" : "Queue");
  const QString dtype = QString::fromStdString(status.spec.train.dtype);
  badge_->setVisible(!status.run_id.empty());  // of a run, not of the form
  badge_->setText(QString("%1 \u00b7 %2").arg(QString::fromStdString(status.spec.device), dtype));
  if (status.run_id.empty()) {
    progress_->setValue(0);
    steps_->set_text("not training");
    speed_->set_text("");
    left_->set_text("");
    return;
  }
  const double share =
      status.steps_total > 0 ? static_cast<double>(status.step) / static_cast<double>(status.steps_total) : 0;
  progress_->setValue(static_cast<int>(share * progress_range));
  steps_->set_text(QString("step %1 / %2").arg(format_count(status.step), format_count(status.steps_total)));
  const double rate = status.tokens_per_s_median > 0 ? status.tokens_per_s_median : status.last.tokens_per_s;
  speed_->set_text(rate > 0 ? format_rate(rate) + " tok/s train" : QString());
  const bool evaluates = status.activity == SessionActivity::evaluating && status.step < status.steps_total;
  if (status.activity == SessionActivity::training) {
    left_->set_text(status.remaining_s > 0 ? format_duration(status.remaining_s) + " left" : QString());
  } else {
    const std::string_view name = activity_name(status.activity);
    const bool done = status.activity == SessionActivity::idle && status.step >= status.steps_total;
    left_->set_text(evaluates ? "evaluating"
                    : done    ? QString("done")
                              : QString::fromUtf8(name.data(), static_cast<qsizetype>(name.size())));
  }
}

QString format_count(int64_t value) { return QLocale(QLocale::English).toString(static_cast<qlonglong>(value)); }

QString format_rate(double per_second) {
  if (!std::isfinite(per_second)) return "-";
  if (per_second >= 1e6) return QString::number(per_second / 1e6, 'f', per_second < 1e7 ? 2 : 1) + " M";
  if (per_second >= 1e3) return QString::number(per_second / 1e3, 'f', per_second < 1e5 ? 1 : 0) + " k";
  return QString::number(per_second, 'f', per_second < 10 ? 1 : 0);
}

QString format_bytes(double bytes) {
  if (!std::isfinite(bytes)) return "-";
  if (bytes >= 1e9) return QString::number(bytes / 1e9, 'f', 2) + " GB";
  if (bytes >= 1e5) return QString::number(bytes / 1e6, 'f', 2) + " MB";
  if (bytes >= 1e3) return QString::number(bytes / 1e3, 'f', 1) + " kB";
  return QString::number(bytes, 'f', 0) + " B";
}

QString format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s >= 3600)
    return QString("%1:%2:%3").arg(s / 3600).arg(s / 60 % 60, 2, 10, QChar('0')).arg(s % 60, 2, 10, QChar('0'));
  return QString("%1:%2").arg(s / 60).arg(s % 60, 2, 10, QChar('0'));
}

QString format_value(double value, int digits) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return QString::number(value, 'g', digits);
}

}  // namespace rat::app
