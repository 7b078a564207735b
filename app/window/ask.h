// Questions to the user that do not stop the window's event loop.
#pragma once

#include <QString>
#include <functional>

class QWidget;

namespace rat::app {

void ask_file(QWidget* parent, const QString& title, const QString& filter, bool save, const QString& suffix,
              std::function<void(const QString&)> use);
void ask_number(QWidget* parent, const QString& title, const QString& label, int value, std::function<void(int)> use);

}  // namespace rat::app
