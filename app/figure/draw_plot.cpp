#include "app/figure/draw_plot.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "app/figure/draw_items.h"
#include "app/figure/tickers.h"

namespace rat::app {
namespace {

QFont font_of(const DrawStyle& style, double points) {
  QFont font(style.family);
  font.setPixelSize(std::max(1, static_cast<int>(std::lround(points * style.px))));
  font.setHintingPreference(QFont::PreferNoHinting);
  return font;
}

QPen pen_of(const Series& series, const QColor& color, double width) {
  QPen pen(color, width, Qt::SolidLine, Qt::FlatCap, Qt::RoundJoin);
  switch (series.dash) {
    case Dash::solid:
      break;
    case Dash::dashed:
      pen.setDashPattern({5, 2.5});
      break;
    case Dash::dotted:
      pen.setDashPattern({1.2, 1.8});
      break;
    case Dash::dash_dot:
      pen.setDashPattern({6, 2, 1.2, 2});
      break;
  }
  return pen;
}

QCPScatterStyle scatter_of(const Series& series, const QColor& color, const DrawStyle& style) {
  using Shape = QCPScatterStyle;
  Shape::ScatterShape shape = Shape::ssNone;
  switch (series.marker) {
    case Marker::none:
      break;
    case Marker::circle:
      shape = Shape::ssDisc;
      break;
    case Marker::square:
      shape = Shape::ssSquare;
      break;
    case Marker::triangle:
      shape = Shape::ssTriangle;
      break;
    case Marker::diamond:
      shape = Shape::ssDiamond;
      break;
    case Marker::cross:
      shape = Shape::ssCross;
      break;
    case Marker::plus:
      shape = Shape::ssPlus;
      break;
  }
  return {shape, QPen(color, 0.8 * style.px), QBrush(color), 4.2 * style.px};
}

QSharedPointer<QCPAxisTicker> ticker_of(Scale scale, double symlog_constant) {
  switch (scale) {
    case Scale::linear:
      break;
    case Scale::log10:
      return QSharedPointer<LogTicker>::create(10);
    case Scale::log2:
      return QSharedPointer<LogTicker>::create(2);
    case Scale::symlog:
      return QSharedPointer<SymlogTicker>::create(symlog_constant);
  }
  return QSharedPointer<LinearTicker>::create();
}

// c from the transform itself: to_symlog(v, c) = log10(1 + v / c).
double constant_of(double at_one) { return 1 / (std::pow(10, at_one) - 1); }

void style_axis(QCPAxis* axis, const DrawStyle& style) {
  const Theme& colors = *style.colors;
  const bool paper = colors.kind == ThemeKind::paper;
  const double hair = (paper ? 0.6 : 0.75) * style.px;
  const QColor line = to_qt(paper ? colors.text : colors.hairline);
  axis->setBasePen(QPen(line, hair));
  axis->setTickPen(QPen(line, hair));
  axis->setSubTickPen(QPen(line, 0.7 * hair));
  axis->setTickLength(0, static_cast<int>(std::lround(2.5 * style.px)));
  axis->setSubTickLength(0, static_cast<int>(std::lround(1.4 * style.px)));
  axis->setTickLabelFont(font_of(style, style.tick_pt));
  axis->setLabelFont(font_of(style, style.label_pt));
  axis->setTickLabelColor(to_qt(paper ? colors.text : colors.secondary));
  axis->setLabelColor(to_qt(paper ? colors.text : colors.secondary));
  axis->setTickLabelPadding(static_cast<int>(std::lround(2 * style.px)));
  axis->setLabelPadding(static_cast<int>(std::lround(2.5 * style.px)));
  axis->setPadding(0);
  axis->setNumberFormat("gb");
  axis->grid()->setVisible(style.grid);
  axis->grid()->setPen(QPen(to_qt(colors.hairline, 0.7), 0.5 * style.px));
  axis->grid()->setZeroLinePen(Qt::NoPen);
}

void set_up_axes(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  target.axisRect()->setupFullAxesBox(true);
  target.axisRect()->setAutoMargins(QCP::msAll);
  target.axisRect()->setMinimumMargins({0, static_cast<int>(3 * style.px), static_cast<int>(5 * style.px), 0});
  for (QCPAxis* axis : {target.xAxis, target.yAxis, target.xAxis2, target.yAxis2}) style_axis(axis, style);
  for (QCPAxis* axis : {target.xAxis2, target.yAxis2})
    axis->setTicks(false), axis->setVisible(style.frame || plot.heat_map);
  const auto scale = [](QCPAxis* axis, const Axis& from, double at_one) {
    const bool log = from.scale == Scale::log10 || from.scale == Scale::log2;
    axis->setScaleType(log ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
    axis->setTicker(ticker_of(from.scale, constant_of(at_one)));
    axis->setLabel(QString::fromStdString(from.label));
  };
  scale(target.xAxis, plot.x, x_to_axis(plot, 1));
  scale(target.yAxis, plot.y, y_to_axis(plot, 1));
  target.yAxis->setRangeReversed(plot.heat_map.has_value() || !plot.bars.empty());
  target.xAxis->setRange(fitted_x_range(plot));
  target.yAxis->setRange(fitted_y_range(plot));
}

// A graph for lines whose x ascends, a curve otherwise (the staircase has vertical pieces).
QCPAbstractPlottable* add_line(QCustomPlot& target, const PlotDescription& plot, const Series& series,
                               const std::vector<double>& values) {
  const bool symlog = plot.x.scale == Scale::symlog || plot.y.scale == Scale::symlog;
  QVector<double> x(series.x.begin(), series.x.end()), y(values.begin(), values.end());
  if (symlog) {
    std::transform(x.begin(), x.end(), x.begin(), [&](double v) { return x_to_axis(plot, v); });
    std::transform(y.begin(), y.end(), y.begin(), [&](double v) { return y_to_axis(plot, v); });
  }
  const bool ascends = std::adjacent_find(x.begin(), x.end(), [](double a, double b) { return !(a < b); }) == x.end();
  if (ascends) {
    QCPGraph* graph = target.addGraph();
    graph->setData(x, y, true);
    return graph;
  }
  auto* curve = new QCPCurve(target.xAxis, target.yAxis);
  curve->setData(x, y);
  return curve;
}

void add_band(QCustomPlot& target, const PlotDescription& plot, const Series& series, const QColor& color) {
  auto* low = qobject_cast<QCPGraph*>(add_line(target, plot, series, series.y_low));
  auto* high = qobject_cast<QCPGraph*>(add_line(target, plot, series, series.y_high));
  for (QCPGraph* edge : {low, high})
    if (edge) edge->setPen(Qt::NoPen), edge->removeFromLegend();
  if (!low || !high) return;
  QColor fill = color;
  fill.setAlpha(46);
  high->setBrush(fill);
  high->setChannelFillGraph(low);
}

void add_series(QCustomPlot& target, const PlotDescription& plot, const Series& series, const DrawStyle& style) {
  const QColor color = to_qt(style.colors->series[static_cast<std::size_t>(series.color) % 8], series.opacity);
  if (!series.raw.empty()) {
    QColor faint = color;
    faint.setAlphaF(0.25f);
    QCPAbstractPlottable* raw = add_line(target, plot, series, series.raw);
    raw->setPen(QPen(faint, 0.5 * style.px));
    raw->removeFromLegend();
  }
  if (series.band && !series.y_low.empty()) add_band(target, plot, series, color);
  QCPAbstractPlottable* line = nullptr;
  if (series.line) {
    line = add_line(target, plot, series, series.y);
    line->setPen(pen_of(series, color, style.line_pt * style.px));
    if (auto* graph = qobject_cast<QCPGraph*>(line); graph && series.marker != Marker::none) {
      graph->setScatterStyle(scatter_of(series, color, style));
      graph->setScatterSkip(static_cast<int>(series.x.size() / 9));
    }
  } else {
    QCPGraph* key = target.addGraph();  // the points themselves are drawn by PointsItem
    key->setLineStyle(QCPGraph::lsNone);
    key->setScatterStyle(scatter_of(series, color, style));
    line = key;
  }
  line->setName(QString::fromStdString(series.name));
  if (series.name.empty()) line->removeFromLegend();
  if (!series.bad_x.empty()) new BadPointsItem(&target, style.px, series.bad_x, color);
}

void add_points(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  std::vector<Series> points;
  std::vector<QLineF> lines;
  PointsItem::Style look{
      font_of(style, style.tick_pt), to_qt(style.colors->text), to_qt(style.colors->pane), {}, style.selected_run,
      to_qt(style.colors->accent)};
  for (const Series& series : plot.series) {
    if (series.line) {
      for (std::size_t i = 0; i + 1 < series.x.size(); ++i)
        lines.emplace_back(series.x[i], series.y[i], series.x[i + 1], series.y[i + 1]);
      continue;
    }
    points.push_back(series);
    look.colors.push_back(to_qt(style.colors->series[static_cast<std::size_t>(series.color) % 8]));
  }
  if (!points.empty()) new PointsItem(&target, style.px, std::move(points), std::move(lines), std::move(look));
}

void add_bars(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  std::vector<std::pair<double, QString>> names;
  std::vector<QColor> colors;
  for (const Bar& bar : plot.bars) {
    names.emplace_back(static_cast<double>(names.size()), QString::fromStdString(bar.name));
    colors.push_back(to_qt(style.colors->series[static_cast<std::size_t>(bar.color) % 8]));
  }
  target.yAxis->setTicker(QSharedPointer<NameTicker>::create(names));
  target.yAxis->grid()->setVisible(false);
  target.yAxis->setTickPen(Qt::NoPen);
  new BarsItem(&target, style.px, plot.bars, colors, to_qt(style.colors->text), font_of(style, style.tick_pt));
}

void add_color_bar(QCustomPlot& target, const HeatMap& map, const DrawStyle& style) {
  auto* bar = new QCPColorScale(&target);
  target.plotLayout()->addElement(target.plotLayout()->rowCount() - 1, 1, bar);
  bar->setType(QCPAxis::atRight);
  bar->setBarWidth(static_cast<int>(std::lround(7 * style.px)));
  bar->setMinimumMargins({static_cast<int>(4 * style.px), 0, static_cast<int>(2 * style.px), 0});
  QCPColorGradient gradient;
  gradient.clearColorStops();
  constexpr int stops = 32;  // enough for the bend of a gamma scale
  for (int i = 0; i <= stops; ++i) {
    const float share = static_cast<float>(i) / stops;
    gradient.setColorStopAt(share, to_qt(color_at(map.map, color_position_on_bar(map, share))));
  }
  bar->setGradient(gradient);
  bar->setDataScaleType(map.log_color ? QCPAxis::stLogarithmic : QCPAxis::stLinear);
  bar->setDataRange({map.low, map.high});
  bar->axis()->setTicker(ticker_of(map.log_color ? Scale::log10 : Scale::linear, 1));
  style_axis(bar->axis(), style);
  bar->axis()->grid()->setVisible(false);
  bar->setLabel(QString::fromStdString(map.value_label));
  auto* group = new QCPMarginGroup(&target);
  target.axisRect()->setMarginGroup(QCP::msTop | QCP::msBottom, group);
  bar->setMarginGroup(QCP::msTop | QCP::msBottom, group);
}

void add_heat_map(QCustomPlot& target, const HeatMap& map, const DrawStyle& style) {
  new HeatMapItem(&target, style.px, map, style.colors->pane);
  for (QCPAxis* axis : {target.xAxis, target.yAxis}) axis->grid()->setVisible(false);
  const auto names_only = [](QCPAxis* axis, const std::vector<std::pair<double, std::string>>& labels) {
    const auto ticker = QSharedPointer<QCPAxisTickerText>::create();
    for (const auto& [at, name] : labels) ticker->addTick(at, QString::fromStdString(name));
    axis->setTicker(ticker);
  };
  if (!map.row_labels.empty()) {
    names_only(target.xAxis, map.column_labels);
    names_only(target.yAxis, map.row_labels);
  } else if (!map.column_labels.empty()) {
    // Chunk numbers end where the query's own state begins; that column has a name of its own.
    std::size_t columns = 0;
    while (columns < map.column_names.size() && !map.column_names[columns].empty()) ++columns;
    target.xAxis->setTicker(
        QSharedPointer<NamedEndTicker>::create(map.x0 + static_cast<double>(columns), map.column_labels));
  }
  add_color_bar(target, map, style);
}

// The corner of the plot that the fewest points lie in.
Qt::Alignment free_corner(QCustomPlot& target, const PlotDescription& plot) {
  std::array<double, 4> hits{};  // left top, right top, left bottom, right bottom
  const auto share = [](const QCPAxis* axis, double v) {
    const QCPRange r = axis->range();
    if (axis->scaleType() == QCPAxis::stLogarithmic) return std::log(v / r.lower) / std::log(r.upper / r.lower);
    return (v - r.lower) / r.size();
  };
  for (const Series& series : plot.series)
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      const double x = share(target.xAxis, x_to_axis(plot, series.x[i])),
                   y = share(target.yAxis, y_to_axis(plot, series.y[i]));
      const double weight = series.line ? 1.0 / static_cast<double>(series.x.size()) : 1.0;
      if (x < 0.45 && y > 0.6) hits[0] += weight;
      if (x > 0.55 && y > 0.6) hits[1] += weight;
      if (x < 0.45 && y < 0.4) hits[2] += weight;
      if (x > 0.55 && y < 0.4) hits[3] += weight;
    }
  constexpr std::array corners{Qt::AlignTop | Qt::AlignLeft, Qt::AlignTop | Qt::AlignRight,
                               Qt::AlignBottom | Qt::AlignLeft, Qt::AlignBottom | Qt::AlignRight};
  std::size_t best = 1;  // top right unless another is emptier
  for (const std::size_t k : {0u, 3u, 2u})
    if (hits[k] < hits[best] - 1e-9) best = k;
  return corners[best];
}

void add_legend(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  QCPLegend* legend = target.legend;
  std::size_t named = 0;
  for (const Series& series : plot.series) named += series.name.empty() ? 0 : 1;
  const bool wanted = style.legend != LegendPlace::none && named > 0 && !(named == 1 && plot.series.size() == 1);
  legend->setVisible(wanted);
  if (!wanted) return;
  const bool paper = style.colors->kind == ThemeKind::paper;
  legend->setFont(font_of(style, style.tick_pt));
  legend->setTextColor(to_qt(style.colors->text));
  legend->setBrush(to_qt(style.colors->pane, 0.82));
  legend->setBorderPen(Qt::NoPen);
  legend->setIconSize(static_cast<int>(16 * style.px), static_cast<int>(style.tick_pt * style.px));
  legend->setIconTextPadding(static_cast<int>(3 * style.px));
  legend->setRowSpacing(static_cast<int>((paper ? 0.5 : 1) * style.px));
  legend->setColumnSpacing(static_cast<int>(8 * style.px));
  const int pad = static_cast<int>(3 * style.px);
  legend->setMargins({pad, pad, pad, pad});
  if (style.legend == LegendPlace::inside) {
    target.axisRect()->insetLayout()->setInsetAlignment(0, free_corner(target, plot));
    target.axisRect()->insetLayout()->setMargins({pad, pad, pad, pad});
    return;
  }
  const double room = static_cast<double>(target.viewport().width());
  double widest = 1;
  const QFontMetricsF metrics(legend->font());
  for (const Series& series : plot.series)
    widest = std::max(widest, metrics.horizontalAdvance(QString::fromStdString(series.name)) + 30 * style.px);
  target.plotLayout()->addElement(target.plotLayout()->rowCount(), 0, legend);
  legend->setWrap(std::max(1, static_cast<int>(room / widest)));
  legend->setFillOrder(QCPLegend::foColumnsFirst, true);
  target.plotLayout()->setRowStretchFactor(target.plotLayout()->rowCount() - 1, 0.001);
}

void add_title(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  if (!style.title || plot.title.empty()) return;
  QFont font = font_of(style, style.label_pt);
  font.setWeight(QFont::DemiBold);
  auto* title = new QCPTextElement(&target, QString::fromStdString(plot.title), font);
  title->setTextColor(to_qt(style.colors->text));
  title->setTextFlags(Qt::AlignLeft | Qt::AlignVCenter);
  title->setMargins({static_cast<int>(4 * style.px), static_cast<int>(3 * style.px), 0, 0});
  target.plotLayout()->insertRow(0);
  target.plotLayout()->addElement(0, 0, title);
}

// Back to one axis rectangle with one legend.
void reset(QCustomPlot& target) {
  target.clearPlottables();
  target.clearItems();
  target.plotLayout()->clear();
  auto* rect = new QCPAxisRect(&target, true);
  target.plotLayout()->addElement(0, 0, rect);
  target.xAxis = rect->axis(QCPAxis::atBottom);
  target.yAxis = rect->axis(QCPAxis::atLeft);
  target.xAxis2 = rect->axis(QCPAxis::atTop);
  target.yAxis2 = rect->axis(QCPAxis::atRight);
  for (QCPAxis* axis : {target.xAxis, target.yAxis, target.xAxis2, target.yAxis2}) {
    axis->setLayer("axes");
    axis->grid()->setLayer("grid");
  }
  target.legend = new QCPLegend;
  target.legend->setVisible(false);
  rect->insetLayout()->addElement(target.legend, Qt::AlignRight | Qt::AlignTop);
  target.legend->setLayer("legend");
  rect->setLayer("background");
  target.setAutoAddPlottableToLegend(true);
}

}  // namespace

void draw_plot(QCustomPlot& target, const PlotDescription& plot, const DrawStyle& style) {
  reset(target);
  target.setBackground(QBrush(to_qt(style.colors->pane)));
  set_up_axes(target, plot, style);
  const int edge = static_cast<int>(std::lround((style.colors->kind == ThemeKind::paper ? 1 : 4) * style.px));
  target.plotLayout()->setMargins({edge, edge, edge, edge});
  target.plotLayout()->setRowSpacing(static_cast<int>(2 * style.px));
  target.plotLayout()->setColumnSpacing(0);
  if (plot.heat_map) add_heat_map(target, *plot.heat_map, style);
  if (!plot.bars.empty()) add_bars(target, plot, style);
  for (const Series& series : plot.series) add_series(target, plot, series, style);
  add_points(target, plot, style);
  add_legend(target, plot, style);
  add_title(target, plot, style);
}

}  // namespace rat::app
