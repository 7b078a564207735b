// Where the labels of scattered points go: beside their point, inside the plot, on nothing else where that is possible.
#pragma once

#include <QLineF>
#include <QRectF>
#include <vector>

namespace rat::app {

struct LabelledPoint {
  QPointF at;
  double radius = 0;  // of the marker
  QSizeF label;       // empty: no label
};

// One rectangle for each point. `lines` (error bars, the front) are avoided where possible, markers and other labels
// always, unless every place collides; then the least bad one.
std::vector<QRectF> place_labels(const std::vector<LabelledPoint>& points, const std::vector<QLineF>& lines,
                                 const QRectF& area, double gap);

}  // namespace rat::app
