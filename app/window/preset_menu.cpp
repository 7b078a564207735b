#include "app/window/preset_menu.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QVBoxLayout>
#include <QWidgetAction>
#include <algorithm>

#include "app/window/layer_chips.h"
#include "app/window/widgets.h"
#include "core/presets.h"

namespace rat::app {
namespace {

constexpr int chips_width = 400, text_width = 500, row_height = 44, line_height = 18;

QString text_of(std::string_view view) { return QString::fromUtf8(view.data(), static_cast<qsizetype>(view.size())); }

// A button with the name and what it is at the left, and the stack at the right.
QPushButton* preset_row(const LayerPreset& preset, const std::vector<LayerConfig>& layers, QWidget* parent) {
  auto* button = new QPushButton(parent);
  button->setFlat(true);
  button->setAccessibleName(text_of(preset.name));
  button->setToolTip(text_of(preset.pattern));
  auto* row = new QHBoxLayout(button);
  row->setContentsMargins(10, 4, 10, 4);
  row->setSpacing(12);
  auto* words = new QVBoxLayout;
  words->setSpacing(0);
  QLabel* what = label(text_of(preset.description), "secondary", button);
  what->setFixedWidth(text_width);
  QLabel* name = label(text_of(preset.name), "", button);
  for (QLabel* line : {name, what}) {
    line->setStyleSheet("min-height: 0; padding: 0; margin: 0");
    line->setFixedHeight(line_height);
    words->addWidget(line);
  }
  auto* stack = new LayerChips(button);
  stack->set_layers(layers);
  stack->setFixedWidth(chips_width);
  row->addLayout(words);
  row->addWidget(stack, 0, Qt::AlignVCenter);
  // A button's own hint knows only of its text, and the window's style gives it the height of one line.
  button->setMinimumWidth(row->sizeHint().width());
  button->setStyleSheet(QString("min-height: %1px; max-height: %1px").arg(row_height));
  for (QWidget* part : button->findChildren<QWidget*>()) part->setAttribute(Qt::WA_TransparentForMouseEvents);
  return button;
}

}  // namespace

PresetMenu::PresetMenu(std::function<std::size_t()> depth, std::function<void(QString)> chosen, QWidget* parent)
    : QMenu(parent) {
  for (const LayerPreset& preset : layer_presets()) {
    const auto layers = parse_layers(preset.pattern);
    if (!layers) continue;
    auto* entry = new QWidgetAction(this);
    entry->setObjectName(text_of(preset.name));
    QPushButton* button = preset_row(preset, *layers, this);
    entry->setDefaultWidget(button);
    addAction(entry);
    const QString name = text_of(preset.name);
    connect(button, &QPushButton::clicked, this, [this, depth, chosen, name, period = layers->size()] {
      close();
      const std::size_t times = std::max<std::size_t>(1, depth() / period);
      chosen(times > 1 ? QString("%1*%2").arg(name).arg(times) : name);
    });
  }
}

}  // namespace rat::app
