// Ctrl+E: one figure at print size, its settings, what the doctor says, and Save.
#pragma once

#include <QDialog>
#include <functional>
#include <memory>
#include <optional>

#include "core/trace/snapshot.h"
#include "views/plots/recipe.h"

namespace rat::app {

class FigureDialog : public QDialog {
  Q_OBJECT

 public:
  using Build = std::function<Result<PlotDescription>(const Recipe&)>;

  // `build` gives what a recipe draws: from the store, or from `trace`, which is then saved beside the figure. It is
  // called on a thread of its own, one call at a time.
  FigureDialog(Recipe recipe, Build build, std::shared_ptr<const TraceSnapshot> trace = nullptr,
               QWidget* parent = nullptr);
  ~FigureDialog() override;

  Recipe recipe() const;                   // of the preview
  bool ready() const;                      // the preview shows what the form says
  void set_folder(const QString& folder);  // where Save starts
  // What Save does once it has a name; the path has no extension. Returns the files written.
  Result<std::vector<std::filesystem::path>> save_as(const std::filesystem::path& stem);

 signals:
  void previewed();
  void saved(QString message);  // "Wrote loss.pdf, loss.csv and loss.json to /home/..."

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace rat::app
