#include "app/figure/svg_text.h"

#include <QFont>
#include <QPainterPath>
#include <QXmlStreamReader>
#include <QXmlStreamWriter>

namespace rat::app {
namespace {

QString path_data(const QPainterPath& path) {
  QString d;
  const auto point = [&d](const char* command, const QPainterPath::Element& e) {
    d += QString("%1%2 %3 ").arg(command).arg(e.x, 0, 'f', 1).arg(e.y, 0, 'f', 1);
  };
  for (int i = 0; i < path.elementCount(); ++i) {
    const QPainterPath::Element e = path.elementAt(i);
    if (e.isMoveTo())
      point("M", e);
    else if (e.isLineTo())
      point("L", e);
    else if (e.isCurveTo()) {
      point("C", e);
      point("", path.elementAt(++i));
      point("", path.elementAt(++i));
    }
  }
  return d.trimmed();
}

void write_outline(const QXmlStreamAttributes& text, const QString& content, QXmlStreamWriter& out) {
  QFont font(text.value("font-family").toString());
  font.setPixelSize(std::max(1, static_cast<int>(text.value("font-size").toDouble() + 0.5)));
  font.setWeight(static_cast<QFont::Weight>(std::clamp(text.value("font-weight").toInt(), 100, 900)));
  font.setItalic(text.value("font-style") == QLatin1String("italic"));
  font.setHintingPreference(QFont::PreferNoHinting);
  QPainterPath path;
  path.setFillRule(Qt::WindingFill);
  path.addText(text.value("x").toDouble(), text.value("y").toDouble(), font, content);
  out.writeStartElement("path");
  out.writeAttribute("fill", text.value("fill").toString());
  out.writeAttribute("fill-opacity", text.value("fill-opacity").toString());
  out.writeAttribute("stroke", "none");
  out.writeAttribute("d", path_data(path));
  out.writeTextElement("title", content);
  out.writeEndElement();
}

}  // namespace

QByteArray outline_svg_text(const QByteArray& svg) {
  QByteArray result;
  QXmlStreamReader in(svg);
  QXmlStreamWriter out(&result);
  while (!in.atEnd()) {
    in.readNext();
    if (in.isStartElement() && in.name() == QLatin1String("text")) {
      const QXmlStreamAttributes attributes = in.attributes();
      write_outline(attributes, in.readElementText(), out);
    } else if (in.tokenType() != QXmlStreamReader::Invalid && in.tokenType() != QXmlStreamReader::NoToken) {
      out.writeCurrentToken(in);
    }
  }
  return in.hasError() ? svg : result;
}

}  // namespace rat::app
