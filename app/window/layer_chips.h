// The stack of layers as coloured chips, first layer first; long stacks say how many more there are.
#pragma once

#include <QWidget>
#include <vector>

#include "core/config.h"
#include "views/theme/theme.h"

namespace rat::app {

class LayerChips : public QWidget {
 public:
  explicit LayerChips(QWidget* parent = nullptr);
  void set_layers(std::vector<LayerConfig> layers);
  QSize sizeHint() const override { return {200, 26}; }
  QSize minimumSizeHint() const override { return {120, 26}; }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  std::vector<LayerConfig> layers_;
};

}  // namespace rat::app
