// The Trade-off canvas: choose layer patterns, train them one after another, watch the points arrive, see which are
// on the Pareto front, click one to open its run.
#pragma once

#include <QVariantMap>
#include <QWidget>
#include <memory>
#include <string>
#include <vector>

#include "experiments/run_spec.h"
#include "views/plots/recipe.h"
#include "views/theme/theme.h"

namespace rat::app {

class TradeoffCanvas : public QWidget {
  Q_OBJECT

 public:
  explicit TradeoffCanvas(const std::filesystem::path& database, QWidget* parent = nullptr);
  ~TradeoffCanvas() override;

  // Everything but the layer pattern and the seed of the runs to train; presets follow its T and depth.
  void set_base_spec(const RunSpec& spec);
  // The runs drawn: empty = every run of the newest sweep that was trained from here, else every finished run.
  void set_runs(std::vector<std::string> ids);
  void set_database(const std::filesystem::path& database);
  void refresh();  // returns at once; reads on the canvas's own thread
  void set_theme(const Theme& theme);
  // What the user chose here, to be kept from one start to the next.
  QVariantMap choices() const;
  void set_choices(const QVariantMap& choices);
  void set_selected_run(const std::string& run_id);  // ringed
  Recipe recipe() const;

 signals:
  void enqueue_requested(std::vector<rat::RunSpec> specs, std::string sweep_id);
  void run_clicked(QString run_id, QStringList seeds);  // the run to open; every seed of its configuration
  void export_requested(rat::Recipe recipe);
  void message(QString text);
  void updated();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat::app
