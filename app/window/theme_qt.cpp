#include "app/window/theme_qt.h"

#include <QApplication>
#include <QPainter>
#include <QPainterPath>
#include <QPalette>
#include <QStyleFactory>

#include "app/window/fonts.h"
#include "app/window/style_sheet.h"

// The icons live in a static library: nothing links them unless they are asked for.
static void init_icons() { Q_INIT_RESOURCE(icons); }

namespace rat::app {
namespace {

const Theme* current = &theme(ThemeKind::dark);

QPalette palette_of(const Theme& theme) {
  QPalette palette;
  const QColor text = to_qt(theme.text), secondary = to_qt(theme.secondary);
  palette.setColor(QPalette::Window, to_qt(theme.pane));
  palette.setColor(QPalette::WindowText, text);
  palette.setColor(QPalette::Base, to_qt(theme.pane));
  palette.setColor(QPalette::AlternateBase, to_qt(theme.raised));
  palette.setColor(QPalette::Text, text);
  palette.setColor(QPalette::PlaceholderText, secondary);
  palette.setColor(QPalette::Button, to_qt(theme.raised));
  palette.setColor(QPalette::ButtonText, text);
  palette.setColor(QPalette::BrightText, Qt::white);
  palette.setColor(QPalette::ToolTipBase, to_qt(theme.raised));
  palette.setColor(QPalette::ToolTipText, text);
  palette.setColor(QPalette::Link, to_qt(theme.accent));
  palette.setColor(QPalette::Highlight, blend(theme.pane, theme.accent, 0.22));
  palette.setColor(QPalette::HighlightedText, text);
  palette.setColor(QPalette::Light, to_qt(theme.raised));
  palette.setColor(QPalette::Mid, to_qt(theme.hairline));
  palette.setColor(QPalette::Dark, to_qt(theme.hairline));
  palette.setColor(QPalette::Shadow, to_qt(theme.background));
  for (const auto role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
    palette.setColor(QPalette::Disabled, role, blend(theme.pane, theme.secondary, 0.6));
  return palette;
}

void draw_glyph(QPainter& p, Glyph glyph, const QColor& color) {
  // On a 16 x 16 grid.
  p.setPen(Qt::NoPen);
  p.setBrush(color);
  switch (glyph) {
    case Glyph::start:
      p.drawPolygon(QPolygonF({{4, 2.5}, {13.5, 8}, {4, 13.5}}));
      return;
    case Glyph::pause:
      p.drawRect(QRectF(4, 3, 3, 10));
      p.drawRect(QRectF(9.5, 3, 3, 10));
      return;
    case Glyph::step:
      p.drawPolygon(QPolygonF({{3, 3}, {10, 8}, {3, 13}}));
      p.drawRect(QRectF(11, 3, 2.5, 10));
      return;
    case Glyph::stop:
      p.drawRect(QRectF(3.5, 3.5, 9, 9));
      return;
    default:
      break;
  }
  p.setPen(QPen(color, 1.5, Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin));
  p.setBrush(Qt::NoBrush);
  switch (glyph) {
    case Glyph::figure:
      p.drawLine(QPointF(8, 2.5), QPointF(8, 10));
      p.drawPolyline(QPolygonF({{4.5, 7}, {8, 10.5}, {11.5, 7}}));
      p.drawLine(QPointF(3, 13.5), QPointF(13, 13.5));
      return;
    case Glyph::search:
      p.drawEllipse(QRectF(3, 3, 7.5, 7.5));
      p.drawLine(QPointF(9.5, 9.5), QPointF(13.5, 13.5));
      return;
    case Glyph::close:
      p.drawLine(QPointF(4, 4), QPointF(12, 12));
      p.drawLine(QPointF(12, 4), QPointF(4, 12));
      return;
    default:
      p.drawPolyline(QPolygonF({{4, 6}, {8, 10}, {12, 6}}));
      return;
  }
}

}  // namespace

QColor to_qt(const Color& color) { return QColor(color.r, color.g, color.b); }

QColor blend(const Color& a, const Color& b, double share) {
  const auto mix = [share](int x, int y) { return static_cast<int>(x + (y - x) * share + 0.5); };
  return QColor(mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b));
}

const Theme& current_theme() { return *current; }

void apply_qt_theme(QApplication& application, const Theme& theme) {
  current = &theme;
  static const bool styled = [&application] {
    application.setStyle(QStyleFactory::create("Fusion"));
    application.setFont(ui_font());
    init_icons();
    return true;
  }();
  (void)styled;
  application.setPalette(palette_of(theme));
  application.setStyleSheet(style_sheet(theme));
}

QIcon glyph_icon(Glyph glyph, const QColor& color) {
  QIcon icon;
  for (const double scale : {1.0, 2.0, 3.0}) {
    QPixmap pixmap(static_cast<int>(16 * scale), static_cast<int>(16 * scale));
    pixmap.setDevicePixelRatio(scale);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    painter.setRenderHint(QPainter::Antialiasing);
    draw_glyph(painter, glyph, color);
    painter.end();
    icon.addPixmap(pixmap);
  }
  return icon;
}

}  // namespace rat::app
