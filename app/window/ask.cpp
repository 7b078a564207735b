#include "app/window/ask.h"

#include <QFileDialog>
#include <QInputDialog>
#include <QSettings>
#include <limits>

namespace rat::app {

void ask_file(QWidget* parent, const QString& title, const QString& filter, bool save, const QString& suffix,
              std::function<void(const QString&)> use) {
  auto* dialog = new QFileDialog(parent, title, QSettings().value("folder").toString(), filter);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setAcceptMode(save ? QFileDialog::AcceptSave : QFileDialog::AcceptOpen);
  dialog->setFileMode(save ? QFileDialog::AnyFile : QFileDialog::ExistingFile);
  dialog->setDefaultSuffix(suffix);
  QObject::connect(dialog, &QFileDialog::fileSelected, parent, [use = std::move(use)](const QString& path) {
    QSettings().setValue("folder", QFileInfo(path).absolutePath());
    use(path);
  });
  dialog->open();
}

void ask_number(QWidget* parent, const QString& title, const QString& label, int value, std::function<void(int)> use) {
  auto* ask = new QInputDialog(parent);
  ask->setAttribute(Qt::WA_DeleteOnClose);
  ask->setWindowTitle(title);
  ask->setLabelText(label);
  ask->setInputMode(QInputDialog::IntInput);
  ask->setIntRange(1, std::numeric_limits<int>::max());
  ask->setIntValue(value);
  QObject::connect(ask, &QInputDialog::intValueSelected, parent, std::move(use));
  ask->open();
}

}  // namespace rat::app
