// What the window remembers: where its parts are, and what was chosen in them.
#include <QDockWidget>
#include <QSettings>

#include "app/figure/curves_panel.h"
#include "app/figure/tradeoff_canvas.h"
#include "app/window/canvas_area.h"
#include "app/window/main_window.h"

namespace rat::app {

void MainWindow::save_layout() {
  QSettings settings;
  settings.setValue("window/geometry", saveGeometry());
  settings.setValue("window/docks", saveState(layout_version));
  settings.setValue("window/canvases", canvases_->saveState(layout_version));
  save_choices();
}

// What was chosen in the panels and canvases; resetting the layout leaves it.
void MainWindow::save_choices() const {
  QSettings settings;
  const auto save = [&](const QString& panel, const QVariantMap& choices) {
    for (auto at = choices.begin(); at != choices.end(); ++at)
      settings.setValue("choices/" + panel + "/" + at.key(), at.value());
  };
  save("curves", curves_->choices());
  save("tradeoff", canvases_->tradeoff().choices());
  for (const QString& id : canvases_->ids()) {
    ImGuiCanvas* canvas = canvases_->canvas(id);
    if (!canvas) continue;
    QVariantMap choices;
    for (const auto& [key, value] : canvas->view().options())
      choices.insert(QString::fromStdString(key), QString::fromStdString(value));
    save(id, choices);
  }
}

void MainWindow::restore_choices() {
  QSettings settings;
  const auto saved = [&](const QString& panel) {
    QVariantMap choices;
    settings.beginGroup("choices/" + panel);
    for (const QString& key : settings.childKeys()) choices.insert(key, settings.value(key));
    settings.endGroup();
    return choices;
  };
  if (const QVariantMap choices = saved("curves"); !choices.isEmpty()) curves_->set_choices(choices);
  if (const QVariantMap choices = saved("tradeoff"); !choices.isEmpty()) canvases_->tradeoff().set_choices(choices);
  for (const QString& id : canvases_->ids()) {
    ImGuiCanvas* canvas = canvases_->canvas(id);
    if (!canvas) continue;
    views::Options options;
    const QVariantMap choices = saved(id);
    for (auto at = choices.begin(); at != choices.end(); ++at)
      options[at.key().toStdString()] = at.value().toString().toStdString();
    canvas->view().set_options(options);
  }
}

void MainWindow::restore_layout() {
  const QSettings settings;
  restoreGeometry(settings.value("window/geometry").toByteArray());
  restoreState(settings.value("window/docks").toByteArray(), layout_version);
  canvases_->restoreState(settings.value("window/canvases").toByteArray(), layout_version);
}

void MainWindow::reset_layout() {
  QSettings().remove("window");
  restoreState(first_layout_, layout_version);
  for (QDockWidget* dock : docks_) dock->show();
  docks_["runs"]->raise();
  canvases_->reset_layout();
  resizeDocks({docks_["experiment"], docks_["curves"]}, {286, 340}, Qt::Horizontal);
  resizeDocks({docks_["runs"]}, {first_runs_height}, Qt::Vertical);
}

}  // namespace rat::app
