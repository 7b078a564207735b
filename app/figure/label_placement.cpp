#include "app/figure/label_placement.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace rat::app {
namespace {

double overlap(const QRectF& a, const QRectF& b) {
  const QRectF both = a.intersected(b);
  return both.width() > 0 && both.height() > 0 ? both.width() * both.height() : 0;
}

bool crosses(const QLineF& line, const QRectF& box) {
  if (box.contains(line.p1()) || box.contains(line.p2())) return true;
  const std::array<QLineF, 4> edges{QLineF(box.topLeft(), box.topRight()), QLineF(box.topRight(), box.bottomRight()),
                                    QLineF(box.bottomRight(), box.bottomLeft()),
                                    QLineF(box.bottomLeft(), box.topLeft())};
  return std::any_of(edges.begin(), edges.end(),
                     [&](const QLineF& edge) { return line.intersects(edge, nullptr) == QLineF::BoundedIntersection; });
}

// Sixteen places around the marker at three distances, the preferred ones (right, upper right, left) first.
std::vector<QRectF> places(const LabelledPoint& point, double gap) {
  constexpr std::array<int, 16> order{0, 1, 15, 2, 14, 8, 7, 9, 6, 10, 4, 12, 3, 5, 13, 11};
  std::vector<QRectF> all;
  for (const double distance : {gap, 3 * gap, 6 * gap})
    for (const int k : order) {
      const double angle = k * 3.14159265358979 / 8;
      const double dx = std::cos(angle), dy = -std::sin(angle);
      const double reach = point.radius + distance;
      QPointF center(point.at.x() + dx * (reach + point.label.width() / 2),
                     point.at.y() + dy * (reach + point.label.height() / 2));
      all.emplace_back(center.x() - point.label.width() / 2, center.y() - point.label.height() / 2, point.label.width(),
                       point.label.height());
    }
  return all;
}

double cost(const QRectF& box, std::size_t self, std::size_t rank, const std::vector<LabelledPoint>& points,
            const std::vector<QRectF>& taken, const std::vector<QLineF>& lines, const QRectF& area, double gap) {
  const double own = box.width() * box.height();
  double sum = 0.01 * static_cast<double>(rank);
  sum += 20 * (own - overlap(box, area)) / own;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double r = points[i].radius;
    sum += 10 * overlap(box, QRectF(points[i].at.x() - r, points[i].at.y() - r, 2 * r, 2 * r)) / own;
    if (i != self && !taken[i].isEmpty())
      sum += 10 * (overlap(box, taken[i]) > 0 ? 0.3 + overlap(box, taken[i]) / own : 0);
  }
  const QRectF with_air = box.adjusted(-gap, 0, gap, 0);  // text that touches a line reads as part of it
  for (const QLineF& line : lines) sum += crosses(line, with_air) ? 0.35 : 0;
  return sum;
}

}  // namespace

std::vector<QRectF> place_labels(const std::vector<LabelledPoint>& points, const std::vector<QLineF>& lines,
                                 const QRectF& area, double gap) {
  std::vector<QRectF> taken(points.size());
  // Three rounds: the later ones repair what the first could not know.
  for (int round = 0; round < 3; ++round)
    for (std::size_t i = 0; i < points.size(); ++i) {
      if (points[i].label.isEmpty()) continue;
      double best = 1e300;
      QRectF chosen;
      const std::vector<QRectF> candidates = places(points[i], gap);
      for (std::size_t rank = 0; rank < candidates.size(); ++rank)
        if (const double c = cost(candidates[rank], i, rank, points, taken, lines, area, gap); c < best)
          best = c, chosen = candidates[rank];
      taken[i] = chosen;
    }
  return taken;
}

}  // namespace rat::app
