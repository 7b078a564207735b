#include "app/figure/metric_plot.h"

#include <QHBoxLayout>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "views/plots/metric_info.h"

namespace rat::app {
namespace {

constexpr int plot_height = 116;
constexpr int left_margin = 46;  // room for "1.25 k", the same in every plot: their axes line up

// The last point at or before x: what had been reached by then.
std::optional<double> value_at(const Series& series, double x) {
  const auto after = std::upper_bound(series.x.begin(), series.x.end(), x);
  if (after == series.x.begin()) return std::nullopt;
  return series.y[static_cast<std::size_t>(after - series.x.begin()) - 1];
}

}  // namespace

MetricPlot::MetricPlot(std::string metric, QWidget* parent)
    : QWidget(parent), metric_(std::move(metric)), theme_(&theme(ThemeKind::dark)) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  auto* row = new QHBoxLayout;
  row->setContentsMargins(8, 4, 8, 0);
  row->setSpacing(8);
  title_ = new QLabel(this);
  values_ = new QLabel(this);
  values_->setTextFormat(Qt::RichText);
  values_->setAlignment(Qt::AlignRight | Qt::AlignVCenter);
  values_->setMinimumWidth(0);
  values_->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
  log_ = new QToolButton(this);
  log_->setText("log");
  log_->setCheckable(true);
  log_->setAutoRaise(true);
  log_->setToolTip("Logarithmic y axis (L); Shift+L: x axis");
  row->addWidget(title_);
  row->addWidget(values_, 1);
  row->addWidget(log_);
  column->addLayout(row);
  plot_ = new PlotWidget(this);
  plot_->setMinimumHeight(plot_height);
  plot_->set_wheel_needs_modifier(true);
  plot_->set_legend_visible(false);
  plot_->set_title_visible(false);
  plot_->set_left_margin(left_margin);
  column->addWidget(plot_, 1);
  setAccessibleName(QString::fromStdString(metric_info(metric_).title));
  connect(log_, &QToolButton::toggled, this, [this](bool on) { plot_->set_log_y(on); });
  connect(plot_, &PlotWidget::scales_changed, this, [this] { log_->setChecked(plot_->log_y()); });
}

void MetricPlot::show(const PlotDescription& plot, const Theme& theme, bool with_x_label) {
  theme_ = &theme;
  PlotDescription drawn = plot;
  drawn.y.label.clear();  // in the heading
  if (!with_x_label) drawn.x.label.clear();
  const QString label = QString::fromStdString(plot.y.label);
  title_->setText("<b>" + label.left(1).toUpper() + label.mid(1).toHtmlEscaped() + "</b>");
  QString tip = QString::fromStdString(plot.note);
  for (const std::string& warning : plot.warnings) tip += "\n" + QString::fromStdString(warning);
  plot_->setToolTip(tip);
  plot_->set_empty_text({});
  plot_->show_plot(drawn, theme, true);
  read_out();
}

void MetricPlot::show_empty(const QString& text, const Theme& theme) {
  theme_ = &theme;
  const QString label = QString::fromStdString(metric_info(metric_).label());
  title_->setText("<b>" + label.left(1).toUpper() + label.mid(1).toHtmlEscaped() + "</b>");
  values_->clear();
  plot_->set_empty_text(text);
  plot_->show_plot({}, theme, true);
}

void MetricPlot::set_cursor(std::optional<double> x) {
  cursor_ = x;
  plot_->set_cursor(x);
  read_out();
}

void MetricPlot::resizeEvent(QResizeEvent* event) {
  QWidget::resizeEvent(event);
  read_out();
}

// As many values as fit; how many more there are is said, not cut off.
void MetricPlot::read_out() {
  QStringList parts;
  int left_out = 0;
  const int room = width() - title_->sizeHint().width() - log_->sizeHint().width() - 40;
  int used = fontMetrics().horizontalAdvance("+99");
  for (const Series& series : plot_->plot().series) {
    if (series.name.empty() || series.x.empty()) continue;
    const std::optional<double> value = cursor_ ? value_at(series, *cursor_) : series.y.back();
    if (!value) continue;
    const QString text = QString::fromStdString(short_number(*value));
    used += fontMetrics().horizontalAdvance(text + "   ");
    if (left_out > 0 || used > room) {
      ++left_out;
      continue;
    }
    const Color color = theme_->series[static_cast<std::size_t>(series.color) % 8];
    parts.push_back(QString("<span style='color:%1'>%2</span>").arg(QString::fromStdString(color.hex()), text));
  }
  if (left_out > 0) parts.push_back(QString("+%1").arg(left_out));
  values_->setText(parts.join("&nbsp; "));
}

}  // namespace rat::app
