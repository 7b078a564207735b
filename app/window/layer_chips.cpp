#include "app/window/layer_chips.h"

#include <QPainter>

#include "app/window/fonts.h"
#include "app/window/theme_qt.h"
#include "core/mixer_list.h"

namespace rat::app {
namespace {

constexpr double chip_height = 22, gap = 4, padding = 7;

// One colour a kind of mixer, in the order of the list.
Color chip_color(const Theme& theme, const std::string& kind) {
  std::size_t at = 0;
  for (const MixerType& type : mixer_types()) {
    if (type.name == kind) break;
    ++at;
  }
  return theme.series[at % theme.series.size()];
}

}  // namespace

LayerChips::LayerChips(QWidget* parent) : QWidget(parent) { setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed); }

void LayerChips::set_layers(std::vector<LayerConfig> layers) {
  layers_ = std::move(layers);
  QStringList names;
  for (const LayerConfig& layer : layers_) names.append(QString::fromStdString(format_layer(layer)));
  setToolTip(names.join(" \u2192 "));
  setAccessibleName("Layers: " + names.join(", "));
  update();
}

void LayerChips::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setFont(ui_font(QFont::Normal, 11));
  const Theme& theme = current_theme();
  const QFontMetricsF metrics(painter.font());
  double x = 0.5;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const QString name = QString::fromStdString(format_layer(layers_[i])).replace(':', ' ');
    const double width = metrics.horizontalAdvance(name) + 2 * padding;
    const QString more = QString("+%1").arg(layers_.size() - i);
    const bool last = i + 1 == layers_.size();
    const double reserve = last ? 0 : metrics.horizontalAdvance(more) + gap;
    if (x + width + reserve > this->width()) {
      painter.setPen(to_qt(theme.secondary));
      painter.drawText(QRectF(x, 2, 60, chip_height), Qt::AlignVCenter | Qt::AlignLeft, more);
      return;
    }
    const Color color = chip_color(theme, layers_[i].kind);
    painter.setPen(QPen(to_qt(color), 1));
    painter.setBrush(blend(theme.pane, color, 0.18));
    const QRectF box(x, 2.5, width, chip_height);
    painter.drawRoundedRect(box, 4, 4);
    painter.setPen(to_qt(theme.text));
    painter.drawText(box, Qt::AlignCenter, name);
    x += width + gap;
  }
}

}  // namespace rat::app
