// The Curves dock: stacked plots of stored metrics with one shared cursor. It reads the database on its own thread and
// only what is new; the window never waits for it.
#pragma once

#include <QVariantMap>
#include <QWidget>
#include <memory>
#include <string>
#include <vector>

#include "views/plots/recipe.h"
#include "views/theme/theme.h"

namespace rat::app {

class CurvesPanel : public QWidget {
  Q_OBJECT

 public:
  // `database` is opened read-only by the panel's thread.
  explicit CurvesPanel(const std::filesystem::path& database, QWidget* parent = nullptr);
  ~CurvesPanel() override;

  // The runs to show, in order; `live_id` (may be empty) is added when missing. Reads in the background.
  void set_runs(std::vector<std::string> ids, const std::string& live_id);
  void set_database(const std::filesystem::path& database);
  // Asks for news; returns at once. Call it from a timer (about twice a second) while something trains.
  void refresh();
  void set_theme(const Theme& theme);
  // What the user chose here, to be kept from one start to the next.
  QVariantMap choices() const;
  void set_choices(const QVariantMap& choices);
  // The plot that the user touched last, as a figure.
  Recipe recipe() const;

 signals:
  void export_requested(rat::Recipe recipe);
  void run_clicked(QString run_id);
  void updated();  // new numbers are on screen

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat::app
