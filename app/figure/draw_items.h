// What QCustomPlot has no object for: a heat map as one lossless image, points of different sizes with intervals and
// labels, horizontal bars with quartiles, marks where a metric was not finite.
#pragma once

#include <qcustomplot.h>

#include <QImage>
#include <vector>

#include "views/plots/heat_map_image.h"
#include "views/plots/plot.h"

namespace rat::app {

QColor to_qt(const Color& color, double opacity = 1);

// Draws in the pixels of the axis rectangle; `px` turns points (1/72 in) into the plot's units.
class DrawItem : public QCPAbstractItem {
 public:
  DrawItem(QCustomPlot* plot, double px) : QCPAbstractItem(plot), px_(px) { setSelectable(false); }
  double selectTest(const QPointF&, bool, QVariant* = nullptr) const override { return -1; }

 protected:
  QPointF pixel(double x, double y) const;
  QRectF area() const { return parentPlot()->axisRect()->rect(); }
  double px_;
};

class HeatMapItem : public DrawItem {
 public:
  HeatMapItem(QCustomPlot* plot, double px, const HeatMap& map, const Color& masked);

 protected:
  void draw(QCPPainter* painter) override;

 private:
  QImage image_;
  QRectF extent_;  // data coordinates
  std::vector<double> column_lines_, row_lines_;
  QColor line_color_;
};

// All point series of a plot at once, so that their labels can avoid each other.
class PointsItem : public DrawItem {
 public:
  struct Style {
    QFont font;
    QColor text, background;
    std::vector<QColor> colors;  // by series
    std::string selected_run;    // ringed
    QColor accent;
  };
  PointsItem(QCustomPlot* plot, double px, std::vector<Series> series, std::vector<QLineF> avoid, Style style);

 protected:
  void draw(QCPPainter* painter) override;

 private:
  void draw_intervals(QCPPainter* painter, const Series& series, const QColor& color, std::vector<QLineF>& drawn) const;
  void draw_labels(QCPPainter* painter, std::vector<QLineF> avoid) const;

  std::vector<Series> series_;
  std::vector<QLineF> avoid_;  // data coordinates
  Style style_;
};

void draw_marker(QPainter* painter, Marker marker, const QPointF& at, double diameter, const QColor& color,
                 double line_width);

class BarsItem : public DrawItem {
 public:
  BarsItem(QCustomPlot* plot, double px, std::vector<Bar> bars, std::vector<QColor> colors, QColor text, QFont font);

 protected:
  void draw(QCPPainter* painter) override;

 private:
  std::vector<Bar> bars_;
  std::vector<QColor> colors_;
  QColor text_;
  QFont font_;
};

// Crosses on the lower edge.
class BadPointsItem : public DrawItem {
 public:
  BadPointsItem(QCustomPlot* plot, double px, std::vector<double> x, QColor color);

 protected:
  void draw(QCPPainter* painter) override;

 private:
  std::vector<double> x_;
  QColor color_;
};

}  // namespace rat::app
