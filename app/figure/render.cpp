#include "app/figure/render.h"

#include <qcustomplot.h>

#include <QBuffer>
#include <QFontDatabase>
#include <QFontInfo>
#include <QPageSize>
#include <QPdfWriter>
#include <QSvgGenerator>
#include <cmath>

#include "app/figure/draw_plot.h"
#include "app/figure/exporters.h"
#include "app/figure/svg_text.h"
#include "core/io/safetensors.h"
#include "views/plots/venues.h"

namespace rat::app {
namespace {

// The plot is laid out in tenths of a point, so that QCustomPlot's whole-number sizes do not round the text.
constexpr double units_per_pt = 10;
constexpr double png_dpi = 300;

Status paint(QCPPainter& painter, const PlotDescription& plot, const Recipe& recipe) {
  RAT_ASSIGN(const Venue venue, find_venue(recipe.venue));
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  DrawStyle style;
  style.colors = &theme(ThemeKind::paper);
  style.family = figure_font().family;
  style.px = units_per_pt;
  style.label_pt = venue.label_pt;
  style.tick_pt = venue.tick_pt;
  style.legend = recipe.legend == "below"  ? LegendPlace::below
                 : recipe.legend == "none" ? LegendPlace::none
                                           : LegendPlace::inside;
  const int width = static_cast<int>(size.width_pt * units_per_pt),
            height = static_cast<int>(size.height_pt * units_per_pt);
  QCustomPlot canvas;
  canvas.setViewport(QRect(0, 0, width, height));
  draw_plot(canvas, plot, style);
  canvas.toPainter(&painter, width, height);
  return ok();
}

QString metadata_xml(const PlotDescription& plot, const Recipe& recipe) {
  QString runs;
  for (const std::string& id : plot.run_ids)
    runs += QString("<rdf:li>%1</rdf:li>").arg(QString::fromStdString(id).toHtmlEscaped());
  return QString(R"(<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">%1</rdf:li></rdf:Alt></dc:title>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">%2</rdf:li></rdf:Alt></dc:description>
<dc:source>runs</dc:source><dc:relation><rdf:Bag>%3</rdf:Bag></dc:relation>
<xmp:CreatorTool>RAT Workbench, commit %4</xmp:CreatorTool>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="w"?>)")
      .arg(QString::fromStdString(plot.title).toHtmlEscaped(), QString::fromStdString(plot.note).toHtmlEscaped(), runs,
           QString::fromStdString(recipe.commit).toHtmlEscaped());
}

// "validation loss; runs 3f2a 9c1b": what `pdfinfo` shows.
QString document_title(const PlotDescription& plot) {
  QString title = QString::fromStdString(plot.title);
  if (!plot.run_ids.empty()) title += "; runs";
  for (const std::string& id : plot.run_ids) title += " " + QString::fromStdString(id);
  return title;
}

Status write_pdf(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path) {
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  QByteArray bytes;
  {
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    QPdfWriter writer(&buffer);
    writer.setResolution(static_cast<int>(72 * units_per_pt));
    writer.setPageSize(
        QPageSize(QSizeF(size.width_pt, size.height_pt), QPageSize::Point, QString(), QPageSize::ExactMatch));
    writer.setPageMargins(QMarginsF(0, 0, 0, 0));
    writer.setTitle(document_title(plot));
    writer.setCreator(QString("RAT Workbench, commit %1").arg(QString::fromStdString(recipe.commit)));
    writer.setDocumentXmpMetadata(metadata_xml(plot, recipe).toUtf8());
    QCPPainter painter;
    if (!painter.begin(&writer)) return fail(ErrorCode::io_failure, "Could not paint the PDF '{}'.", path.string());
    painter.setRenderHint(QPainter::LosslessImageRendering);  // otherwise images become JPEG
    painter.setMode(QCPPainter::pmVectorized);
    painter.setMode(QCPPainter::pmNoCaching);
    painter.setMode(QCPPainter::pmNonCosmetic);
    RAT_TRY(paint(painter, plot, recipe));
    painter.end();
  }
  return write_file_atomically(path, std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())));
}

Status write_svg(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path) {
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  QByteArray bytes;
  {
    QBuffer buffer(&bytes);
    buffer.open(QIODevice::WriteOnly);
    QSvgGenerator generator;
    generator.setOutputDevice(&buffer);
    generator.setResolution(static_cast<int>(72 * units_per_pt));
    generator.setSize(
        QSize(static_cast<int>(size.width_pt * units_per_pt), static_cast<int>(size.height_pt * units_per_pt)));
    generator.setViewBox(
        QRect(0, 0, static_cast<int>(size.width_pt * units_per_pt), static_cast<int>(size.height_pt * units_per_pt)));
    generator.setTitle(document_title(plot));
    generator.setDescription(QString::fromStdString(plot.note));
    QCPPainter painter;
    if (!painter.begin(&generator)) return fail(ErrorCode::io_failure, "Could not paint the SVG '{}'.", path.string());
    painter.setMode(QCPPainter::pmVectorized);
    painter.setMode(QCPPainter::pmNoCaching);
    painter.setMode(QCPPainter::pmNonCosmetic);
    RAT_TRY(paint(painter, plot, recipe));
    painter.end();
  }
  bytes = outline_svg_text(bytes);
  return write_file_atomically(path, std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())));
}

Status write_png(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path) {
  RAT_ASSIGN(QImage image, figure_image(plot, recipe, png_dpi));
  image.setText("Title", document_title(plot));
  image.setText("Software", QString("RAT Workbench, commit %1").arg(QString::fromStdString(recipe.commit)));
  QByteArray bytes;
  QBuffer buffer(&bytes);
  buffer.open(QIODevice::WriteOnly);
  if (!image.save(&buffer, "PNG")) return fail(ErrorCode::io_failure, "Could not encode the PNG '{}'.", path.string());
  return write_file_atomically(path, std::string_view(bytes.constData(), static_cast<std::size_t>(bytes.size())));
}

}  // namespace

std::span<const Exporter> figure_exporters() {
  static const std::vector<Exporter> all = [] {
    std::vector<Exporter> list{
        {"pdf", "vector, fonts embedded, heat maps lossless: for LaTeX", write_pdf},
        {"svg", "vector, for the web and for drawing programs", write_svg},
        {"png", "300 dots per inch", write_png},
    };
    list.insert(list.end(), data_exporters().begin(), data_exporters().end());
    return list;
  }();
  return all;
}

Result<QSizeF> figure_size_pt(const Recipe& recipe) {
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  return QSizeF(size.width_pt, size.height_pt);
}

Status render_figure(const PlotDescription& plot, const Recipe& recipe, const std::filesystem::path& path,
                     std::string_view format) {
  RAT_ASSIGN(const Exporter* exporter, find_exporter(figure_exporters(), format));
  return exporter->write(plot, recipe, path);
}

Result<QImage> figure_image(const PlotDescription& plot, const Recipe& recipe, double dpi) {
  RAT_ASSIGN(const FigureSize size, figure_size(recipe));
  const double scale = dpi / 72;
  QImage image(static_cast<int>(std::lround(size.width_pt * scale)),
               static_cast<int>(std::lround(size.height_pt * scale)), QImage::Format_RGB32);
  image.fill(Qt::white);
  image.setDotsPerMeterX(static_cast<int>(std::lround(dpi / 0.0254)));
  image.setDotsPerMeterY(static_cast<int>(std::lround(dpi / 0.0254)));
  QCPPainter painter(&image);
  painter.setRenderHints(QPainter::Antialiasing | QPainter::TextAntialiasing);
  painter.scale(scale / units_per_pt, scale / units_per_pt);
  painter.setMode(QCPPainter::pmNoCaching);
  RAT_TRY(paint(painter, plot, recipe));
  painter.end();
  return image;
}

FigureFont figure_font() {
  static const FigureFont font = [] {
    for (const char* family : {"Liberation Serif", "DejaVu Serif"})
      if (QFontDatabase::hasFamily(family)) return FigureFont{family, std::string_view(family) == "Liberation Serif"};
    return FigureFont{QFontInfo(QFont("serif")).family(), false};
  }();
  return font;
}

}  // namespace rat::app
