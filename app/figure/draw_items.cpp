#include "app/figure/draw_items.h"

#include <cmath>

#include "app/figure/label_placement.h"
#include "views/plots/metric_info.h"

namespace rat::app {

QColor to_qt(const Color& color, double opacity) {
  return QColor(color.r, color.g, color.b, static_cast<int>(std::lround(255 * opacity)));
}

QPointF DrawItem::pixel(double x, double y) const {
  return {parentPlot()->xAxis->coordToPixel(x), parentPlot()->yAxis->coordToPixel(y)};
}

HeatMapItem::HeatMapItem(QCustomPlot* plot, double px, const HeatMap& map, const Color& masked)
    : DrawItem(plot, px),
      extent_(map.x0, map.y0, map.x1 - map.x0, map.y1 - map.y0),
      column_lines_(map.column_lines),
      row_lines_(map.row_lines),
      line_color_(map.map == ColorMap::diverging ? QColor(0, 0, 0, 110) : QColor(255, 255, 255, 140)) {
  const IndexedImage indexed = heat_map_image(map, masked);
  image_ = QImage(static_cast<int>(map.cols), static_cast<int>(map.rows), QImage::Format_RGB32);
  for (int64_t y = 0; y < map.rows; ++y) {
    auto* line = reinterpret_cast<QRgb*>(image_.scanLine(static_cast<int>(y)));
    for (int64_t x = 0; x < map.cols; ++x) {
      const Color& c = indexed.palette[indexed.pixels[static_cast<std::size_t>(y * map.cols + x)]];
      line[x] = qRgb(c.r, c.g, c.b);
    }
  }
}

void HeatMapItem::draw(QCPPainter* painter) {
  const QRectF target(pixel(extent_.left(), extent_.top()), pixel(extent_.right(), extent_.bottom()));
  painter->save();
  painter->setClipRect(area());
  // Cells smaller than a pixel are averaged; larger ones keep hard edges. Vector output embeds the image as it is.
  const bool shrinks = image_.width() > target.width() || image_.height() > target.height();
  painter->setRenderHint(QPainter::SmoothPixmapTransform,
                         shrinks && !painter->modes().testFlag(QCPPainter::pmVectorized));
  painter->drawImage(target, image_, QRectF(image_.rect()));
  painter->setPen(QPen(line_color_, 0.4 * px_));
  for (const double x : column_lines_) painter->drawLine(QLineF(pixel(x, extent_.top()), pixel(x, extent_.bottom())));
  for (const double y : row_lines_) painter->drawLine(QLineF(pixel(extent_.left(), y), pixel(extent_.right(), y)));
  painter->restore();
}

PointsItem::PointsItem(QCustomPlot* plot, double px, std::vector<Series> series, std::vector<QLineF> avoid, Style style)
    : DrawItem(plot, px), series_(std::move(series)), avoid_(std::move(avoid)), style_(std::move(style)) {}

void PointsItem::draw_intervals(QCPPainter* painter, const Series& series, const QColor& color,
                                std::vector<QLineF>& drawn) const {
  painter->setPen(QPen(color, 0.7 * px_, Qt::SolidLine, Qt::FlatCap));
  const double cap = 1.6 * px_;
  const auto bar = [&](const QPointF& a, const QPointF& b) {
    const QLineF line(a, b);
    if (line.length() < 0.5 * px_) return;
    drawn.push_back(line);
    painter->drawLine(line);
    const QPointF across = std::abs(line.dx()) > std::abs(line.dy()) ? QPointF(0, cap) : QPointF(cap, 0);
    painter->drawLine(QLineF(a - across, a + across));
    painter->drawLine(QLineF(b - across, b + across));
  };
  for (std::size_t i = 0; i < series.x.size(); ++i) {
    if (i < series.y_low.size()) bar(pixel(series.x[i], series.y_low[i]), pixel(series.x[i], series.y_high[i]));
    if (i < series.x_low.size()) bar(pixel(series.x_low[i], series.y[i]), pixel(series.x_high[i], series.y[i]));
  }
}

namespace {

bool stands_for(const Series& series, std::size_t point, const std::string& run) {
  if (point < series.point_seeds.size()) {
    const std::vector<std::string>& seeds = series.point_seeds[point];
    return std::find(seeds.begin(), seeds.end(), run) != seeds.end();
  }
  return point < series.point_runs.size() && series.point_runs[point] == run;
}

}  // namespace

void PointsItem::draw(QCPPainter* painter) {
  std::vector<QLineF> avoid;
  for (const QLineF& line : avoid_) avoid.emplace_back(pixel(line.x1(), line.y1()), pixel(line.x2(), line.y2()));
  for (std::size_t s = 0; s < series_.size(); ++s) draw_intervals(painter, series_[s], style_.colors[s], avoid);
  for (std::size_t s = 0; s < series_.size(); ++s) {
    const Series& series = series_[s];
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      const QPointF at = pixel(series.x[i], series.y[i]);
      const double diameter = (i < series.size.size() ? series.size[i] : 5) * px_;
      draw_marker(painter, series.marker, at, diameter, style_.colors[s], 0.9 * px_);
      if (!style_.selected_run.empty() && stands_for(series, i, style_.selected_run)) {
        painter->setBrush(Qt::NoBrush);
        painter->setPen(QPen(style_.accent, 1.2 * px_));
        painter->drawEllipse(at, diameter / 2 + 2.5 * px_, diameter / 2 + 2.5 * px_);
      }
    }
  }
  draw_labels(painter, std::move(avoid));
}

void PointsItem::draw_labels(QCPPainter* painter, std::vector<QLineF> avoid) const {
  std::vector<LabelledPoint> points;
  std::vector<QString> texts;
  const QFontMetricsF metrics(style_.font);
  for (const Series& series : series_)
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      const QPointF at = pixel(series.x[i], series.y[i]);
      if (!area().contains(at)) continue;
      texts.push_back(i < series.labels.size() ? QString::fromStdString(series.labels[i]) : QString());
      const double radius = (i < series.size.size() ? series.size[i] : 5) * px_ / 2;
      points.push_back({at, radius,
                        texts.back().isEmpty()
                            ? QSizeF()
                            : QSizeF(metrics.horizontalAdvance(texts.back()) + px_, metrics.height())});
    }
  const std::vector<QRectF> boxes = place_labels(points, avoid, area().adjusted(px_, px_, -px_, -px_), 2 * px_);
  painter->setFont(style_.font);
  painter->setPen(QPen(style_.text, 0.4 * px_));
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    if (texts[i].isEmpty()) continue;
    // A label that had to move away says whose it is.
    const QPointF near(std::clamp(points[i].at.x(), boxes[i].left(), boxes[i].right()),
                       std::clamp(points[i].at.y(), boxes[i].top(), boxes[i].bottom()));
    const QLineF leader(points[i].at, near);
    if (leader.length() > points[i].radius + 9 * px_)
      painter->drawLine(QLineF(leader.pointAt(points[i].radius / leader.length()), near));
    painter->drawText(boxes[i], Qt::AlignCenter | Qt::TextDontClip, texts[i]);
  }
}

void draw_marker(QPainter* painter, Marker marker, const QPointF& at, double diameter, const QColor& color,
                 double line_width) {
  const double r = diameter / 2;
  painter->setBrush(color);
  painter->setPen(Qt::NoPen);
  switch (marker) {
    case Marker::none:
      return;
    case Marker::circle:
      painter->drawEllipse(at, r, r);
      return;
    case Marker::square:
      painter->drawRect(QRectF(at.x() - 0.89 * r, at.y() - 0.89 * r, 1.78 * r, 1.78 * r));
      return;  // equal areas
    case Marker::triangle: {
      const double h = 1.35 * r;
      painter->drawPolygon(QPolygonF{
          {at.x(), at.y() - h}, {at.x() + 1.15 * h, at.y() + 0.8 * h}, {at.x() - 1.15 * h, at.y() + 0.8 * h}});
      return;
    }
    case Marker::diamond: {
      const double h = 1.25 * r;
      painter->drawPolygon(
          QPolygonF{{at.x(), at.y() - h}, {at.x() + h, at.y()}, {at.x(), at.y() + h}, {at.x() - h, at.y()}});
      return;
    }
    case Marker::cross:
    case Marker::plus:
      break;
  }
  painter->setPen(QPen(color, std::min(2 * line_width, 0.5 * r), Qt::SolidLine, Qt::FlatCap));
  const double d = marker == Marker::cross ? 0.8 * r : 0, s = marker == Marker::plus ? 1.1 * r : 0;
  painter->drawLine(QPointF(at.x() - d - s, at.y() - d), QPointF(at.x() + d + s, at.y() + d));
  painter->drawLine(QPointF(at.x() - d, at.y() + d + s), QPointF(at.x() + d, at.y() - d - s));
}

BarsItem::BarsItem(QCustomPlot* plot, double px, std::vector<Bar> bars, std::vector<QColor> colors, QColor text,
                   QFont font)
    : DrawItem(plot, px), bars_(std::move(bars)), colors_(std::move(colors)), text_(text), font_(std::move(font)) {}

void BarsItem::draw(QCPPainter* painter) {
  const QFontMetricsF metrics(font_);
  for (std::size_t b = 0; b < bars_.size(); ++b) {
    const Bar& bar = bars_[b];
    const double row = static_cast<double>(b);
    const QRectF box =
        QRectF(QPointF(area().left(), pixel(bar.value, row - 0.32).y()), pixel(bar.value, row + 0.32)).normalized();
    painter->setPen(Qt::NoPen);
    painter->setBrush(colors_[b]);
    painter->drawRect(box);
    painter->setPen(QPen(text_, 0.7 * px_, Qt::SolidLine, Qt::FlatCap));
    const double right = std::max(box.right(), pixel(bar.high, row).x());
    if (bar.high > bar.low) painter->drawLine(QLineF(pixel(bar.low, row), pixel(bar.high, row)));
    painter->setFont(font_);
    painter->drawText(QRectF(right + 3 * px_, box.center().y() - metrics.height() / 2, 100 * px_, metrics.height()),
                      Qt::AlignLeft | Qt::AlignVCenter | Qt::TextDontClip,
                      QString::fromStdString(short_number(bar.value)));
  }
}

BadPointsItem::BadPointsItem(QCustomPlot* plot, double px, std::vector<double> x, QColor color)
    : DrawItem(plot, px), x_(std::move(x)), color_(color) {}

void BadPointsItem::draw(QCPPainter* painter) {
  const double y = area().bottom() - 3 * px_;
  double last = -1e300;
  for (const double x : x_) {
    const double at = parentPlot()->xAxis->coordToPixel(x);
    if (at - last < px_ || at < area().left() || at > area().right()) continue;  // drawn already, or out of sight
    last = at;
    draw_marker(painter, Marker::cross, {at, y}, 5 * px_, color_, 0.5 * px_);
  }
}

}  // namespace rat::app
