#include "app/figure/plot_widget.h"

#include <cmath>

#include "app/figure/draw_items.h"
#include "app/figure/draw_plot.h"
#include "app/figure/tickers.h"
#include "views/plots/series_math.h"

namespace rat::app {
namespace {

constexpr double wheel_factor = 0.85;
constexpr double hit_px = 8;

Scale toggled(Scale scale, bool log) {
  if (!log) return scale == Scale::symlog ? scale : Scale::linear;
  return scale == Scale::log2 ? Scale::log2 : Scale::log10;
}

bool is_log(Scale scale) { return scale == Scale::log10 || scale == Scale::log2; }

}  // namespace

PlotWidget::PlotWidget(QWidget* parent) : QCustomPlot(parent), theme_(&theme(ThemeKind::dark)) {
  setMouseTracking(true);
  setFocusPolicy(Qt::ClickFocus);
  setAccessibleName("plot");
  setSelectionRectMode(QCP::srmNone);
  // The cursor moves without redrawing the curves below it.
  addLayer("cursor", layer("overlay"), QCustomPlot::limBelow);
  layer("cursor")->setMode(QCPLayer::lmBuffered);
  rebuild(false);
}

void PlotWidget::show_plot(const PlotDescription& plot, const Theme& theme, bool keep_zoom) {
  plot_ = plot;
  theme_ = &theme;
  if (!scales_touched_x_) log_x_ = is_log(plot.x.scale);
  if (!scales_touched_y_) log_y_ = is_log(plot.y.scale);
  const bool nothing = plot.series.empty() && plot.bars.empty() && !plot.heat_map;
  rebuild(keep_zoom && shown_ && !following_);
  shown_ = !nothing;
}

void PlotWidget::set_empty_text(const QString& text) {
  empty_text_ = text;  // seen with the next show_plot
}

void PlotWidget::rebuild(bool keep_zoom) {
  const QCPRange x_before = xAxis->range(), y_before = yAxis->range();
  PlotDescription drawn = plot_;
  drawn.x.scale = toggled(plot_.x.scale, log_x_);
  drawn.y.scale = toggled(plot_.y.scale, log_y_);
  apply_scales(drawn);
  DrawStyle style;
  style.colors = theme_;
  style.family = font().family();
  style.px = 96.0 / 72;
  style.label_pt = 9;
  style.tick_pt = 8.25;
  style.line_pt = 1.1;
  style.grid = true;
  style.title = title_visible_;
  style.legend = legend_visible_ ? LegendPlace::inside : LegendPlace::none;
  style.selected_run = selected_run_;
  draw_plot(*this, drawn, style);
  if (left_margin_ > 0) {
    axisRect()->setAutoMargins(QCP::msTop | QCP::msRight | QCP::msBottom);
    QMargins margins = axisRect()->margins();
    margins.setLeft(left_margin_);
    axisRect()->setMargins(margins);
  }
  if (keep_zoom) xAxis->setRange(x_before), yAxis->setRange(y_before);
  const bool nothing = plot_.series.empty() && plot_.bars.empty() && !plot_.heat_map;
  if (nothing)
    for (QCPAxis* axis : {xAxis, yAxis})
      axis->setTickLabels(false), axis->setTicks(false), axis->grid()->setVisible(false);
  if (nothing && !empty_text_.isEmpty()) {
    auto* text = new QCPItemText(this);
    text->setText(empty_text_);
    text->setColor(to_qt(theme_->secondary));
    text->setFont(font());
    text->setTextAlignment(Qt::AlignCenter);
    text->position->setType(QCPItemPosition::ptAxisRectRatio);
    text->position->setCoords(0.5, 0.5);
  }
  place_cursor();
  replot(QCustomPlot::rpQueuedReplot);
}

void PlotWidget::place_cursor() {
  cursor_line_ = nullptr;
  if (!cursor_) return;
  cursor_line_ = new QCPItemStraightLine(this);
  cursor_line_->setLayer("cursor");
  cursor_line_->setSelectable(false);
  cursor_line_->setPen(QPen(to_qt(theme_->secondary), 1, Qt::DotLine));
  const double x = x_to_axis(plot_, *cursor_);
  cursor_line_->point1->setCoords(x, yAxis->range().lower);
  cursor_line_->point2->setCoords(x, yAxis->range().upper);
}

void PlotWidget::set_cursor(std::optional<double> x) {
  if (cursor_ == x) return;
  cursor_ = x;
  if (cursor_line_) removeItem(cursor_line_);
  place_cursor();
  layer("cursor")->replot();
}

void PlotWidget::set_x_range(double low, double high) {
  following_ = false;
  xAxis->setRange(low, high);
  replot(QCustomPlot::rpQueuedReplot);
}

void PlotWidget::set_follow(bool follow) {
  if (following_ == follow) return;
  following_ = follow;
  if (follow) rebuild(false);
  emit following_changed(follow);
}

void PlotWidget::fit() {
  following_ = false;  // so that set_follow rebuilds
  set_follow(true);
}

void PlotWidget::set_log_y(bool on) {
  scales_touched_y_ = true;
  if (log_y_ == on) return;
  log_y_ = on;
  following_ = true;  // an old range may not exist on the new scale
  rebuild(false);
  emit scales_changed();
}

void PlotWidget::set_log_x(bool on) {
  scales_touched_x_ = true;
  if (log_x_ == on) return;
  log_x_ = on;
  following_ = true;
  rebuild(false);
  emit scales_changed();
}

void PlotWidget::set_legend_visible(bool visible) {
  legend_visible_ = visible;
  rebuild(!following_);
}

void PlotWidget::set_title_visible(bool visible) {
  title_visible_ = visible;
  rebuild(!following_);
}

void PlotWidget::set_left_margin(int pixels) {
  left_margin_ = pixels;
  rebuild(!following_);
}

void PlotWidget::set_selected_run(const std::string& run_id) {
  if (selected_run_ == run_id) return;
  selected_run_ = run_id;
  rebuild(!following_);
}

std::optional<std::pair<double, double>> PlotWidget::x_limits() const {
  if (following_ || plot_.x.scale == Scale::symlog) return std::nullopt;
  return std::pair(xAxis->range().lower, xAxis->range().upper);
}

std::optional<std::pair<double, double>> PlotWidget::y_limits() const {
  if (following_ || plot_.y.scale == Scale::symlog) return std::nullopt;
  return std::pair(yAxis->range().lower, yAxis->range().upper);
}

PlotWidget::Hit PlotWidget::hit(const QPointF& position) const {
  Hit best;
  double nearest = hit_px;
  for (const Series& series : plot_.series)
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (series.run_id.empty() && series.point_runs.empty()) break;
      const QPointF at(xAxis->coordToPixel(x_to_axis_fast(series.x[i])),
                       yAxis->coordToPixel(y_to_axis_fast(series.y[i])));
      const double radius = i < series.size.size() ? series.size[i] * 0.67 : 0;
      const double distance = std::max(0.0, std::hypot(at.x() - position.x(), at.y() - position.y()) - radius);
      if (distance < nearest) nearest = distance, best = {&series, i};
    }
  return best;
}

double PlotWidget::x_to_axis_fast(double value) const {
  return plot_.x.scale == Scale::symlog ? x_to_axis(plot_, value) : value;
}
double PlotWidget::y_to_axis_fast(double value) const {
  return plot_.y.scale == Scale::symlog ? y_to_axis(plot_, value) : value;
}

void PlotWidget::user_zoomed() {
  const bool was = following_;
  following_ = false;
  place_cursor_again();
  replot(QCustomPlot::rpQueuedReplot);
  if (was) emit following_changed(false);
  emit x_range_changed(xAxis->range().lower, xAxis->range().upper);
}

void PlotWidget::place_cursor_again() {
  if (cursor_line_) removeItem(cursor_line_);
  place_cursor();
}

void PlotWidget::mousePressEvent(QMouseEvent* event) {
  press_ = last_ = event->position();
  pressed_ = event->buttons() != Qt::NoButton && axisRect()->rect().contains(event->position().toPoint());
  setFocus(Qt::MouseFocusReason);
  emit mousePress(event);
}

void PlotWidget::mouseMoveEvent(QMouseEvent* event) {
  const QPointF at = event->position();
  const bool dragging = pressed_ && (at - press_).manhattanLength() > 4;
  if (dragging && event->buttons() & Qt::LeftButton && !plot_.heat_map) {
    pan(xAxis, last_.x(), at.x());
    pan(yAxis, last_.y(), at.y());
    last_ = at;
    user_zoomed();
    return;
  }
  last_ = at;
  const bool inside = axisRect()->rect().contains(at.toPoint());
  emit cursor_moved(inside ? xAxis->pixelToCoord(at.x()) : std::nan(""));
  const Hit found = inside ? hit(at) : Hit{};
  setCursor(found.series ? Qt::PointingHandCursor : Qt::ArrowCursor);
  if (!found.series) {
    emit point_hovered({}, {}, 0, 0);
    return;
  }
  const Series& s = *found.series;
  const std::string run = found.index < s.point_runs.size() ? s.point_runs[found.index] : s.run_id;
  const std::string label =
      found.index < s.details.size() ? s.labels[found.index] + "\n" + s.details[found.index] : s.name;
  emit point_hovered(QString::fromStdString(label), QString::fromStdString(run), s.x[found.index], s.y[found.index]);
}

void PlotWidget::pan(QCPAxis* axis, double from, double to) {
  const double a = axis->pixelToCoord(from), b = axis->pixelToCoord(to);
  if (axis->scaleType() == QCPAxis::stLogarithmic)
    axis->setRange(axis->range().lower * a / b, axis->range().upper * a / b);
  else
    axis->setRange(axis->range() + (a - b));
}

void PlotWidget::mouseReleaseEvent(QMouseEvent* event) {
  const bool click = pressed_ && (event->position() - press_).manhattanLength() <= 4;
  pressed_ = false;
  if (event->button() == Qt::LeftButton && click) {
    if (const Hit found = hit(event->position()); found.series) {
      const Series& s = *found.series;
      const std::string& run = found.index < s.point_runs.size() ? s.point_runs[found.index] : s.run_id;
      QStringList seeds;
      if (found.index < s.point_seeds.size())
        for (const std::string& seed : s.point_seeds[found.index]) seeds.push_back(QString::fromStdString(seed));
      if (seeds.empty() && !run.empty()) seeds.push_back(QString::fromStdString(run));
      emit point_clicked(QString::fromStdString(run), seeds);
    }
  } else if (event->button() == Qt::RightButton && !click && !plot_.heat_map) {
    QRectF box = QRectF(press_, event->position()).normalized();
    if (event->modifiers() & Qt::AltModifier) box.setLeft(axisRect()->left()), box.setRight(axisRect()->right());
    if (event->modifiers() & Qt::ShiftModifier) box.setTop(axisRect()->top()), box.setBottom(axisRect()->bottom());
    if (box.width() < 4 || box.height() < 4) return;
    const double x0 = xAxis->pixelToCoord(box.left()), x1 = xAxis->pixelToCoord(box.right());
    const double y0 = yAxis->pixelToCoord(box.bottom()), y1 = yAxis->pixelToCoord(box.top());
    xAxis->setRange(x0, x1);
    yAxis->setRange(y0, y1);
    user_zoomed();
  }
}

void PlotWidget::mouseDoubleClickEvent(QMouseEvent*) {
  pressed_ = false;
  fit();
}

void PlotWidget::wheelEvent(QWheelEvent* event) {
  const bool meant = !wheel_needs_modifier_ || event->modifiers() & (Qt::ControlModifier | Qt::AltModifier);
  if (!meant || plot_.heat_map) {
    event->ignore();  // the scroll area around us scrolls
    return;
  }
  const int turned =
      event->angleDelta().y() != 0 ? event->angleDelta().y() : event->angleDelta().x();  // Alt swaps the axes
  const double factor = std::pow(wheel_factor, turned / 120.0);
  xAxis->scaleRange(factor, xAxis->pixelToCoord(event->position().x()));
  if (!(event->modifiers() & Qt::ShiftModifier)) yAxis->scaleRange(factor, yAxis->pixelToCoord(event->position().y()));
  user_zoomed();
  event->accept();
}

void PlotWidget::leaveEvent(QEvent* event) {
  emit cursor_moved(std::nan(""));
  emit point_hovered({}, {}, 0, 0);
  QCustomPlot::leaveEvent(event);
}

void PlotWidget::keyPressEvent(QKeyEvent* event) {
  const bool plain = !(event->modifiers() & (Qt::ControlModifier | Qt::AltModifier | Qt::MetaModifier));
  if (plain && event->key() == Qt::Key_L && event->modifiers() & Qt::ShiftModifier)
    set_log_x(!log_x_);
  else if (plain && event->key() == Qt::Key_L)
    set_log_y(!log_y_);
  else if (plain && event->key() == Qt::Key_A)
    fit();
  else
    QCustomPlot::keyPressEvent(event);
}

}  // namespace rat::app
