// The published layer stacks as a menu: name, what it is, and a picture of the stack.
#pragma once

#include <QMenu>
#include <functional>

namespace rat::app {

class PresetMenu : public QMenu {
 public:
  // `depth` gives the number of layers to fill, `chosen` gets the pattern: "rat-swa*6".
  PresetMenu(std::function<std::size_t()> depth, std::function<void(QString)> chosen, QWidget* parent);
};

}  // namespace rat::app
