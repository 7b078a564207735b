// The Experiment dock: a form bound to one RunSpec, checked at every keystroke, with what it costs before Start. A field
// writes its own value and nothing else, so what the form does not show, or cannot, stays as it was.
#pragma once

#include <QWidget>
#include <functional>
#include <map>
#include <string>

#include "core/devices.h"
#include "experiments/data/data_kinds.h"
#include "experiments/run_spec.h"

class QComboBox;
class QLabel;
class QLineEdit;
class QMenu;
class QScrollArea;
class QToolButton;
class QVBoxLayout;

namespace rat::app {

class ChunkSlider;
class CostTable;
class DataForm;
class IntegerBox;
class LayerChips;
class RealEdit;

class ExperimentPanel : public QWidget {
  Q_OBJECT

 public:
  // `devices`: what this machine computes on; `kinds`: what can be trained on.
  explicit ExperimentPanel(std::vector<Device> devices, QWidget* parent = nullptr,
                           std::span<const DataKind> kinds = data_kinds());

  const RunSpec& spec() const { return spec_; }
  void set_spec(const RunSpec& spec);
  bool valid() const { return problem_.isEmpty(); }
  const QString& problem() const { return problem_; }  // one sentence; empty: sound
  // The sentence at a section, "data", "model" or "train", and the fields it names; empty: nothing is wrong there.
  QString note(const std::string& section) const;
  bool is_wrong(const std::string& key) const;
  void set_measured_speed(double flops_per_s);
  void open_presets();  // the menu of published layer stacks
  QMenu& presets() { return *presets_; }

 signals:
  void spec_changed();

 protected:
  bool event(QEvent* event) override;

 private:
  using Problems = std::vector<SpecProblem>;

  void build(std::span<const DataKind> kinds);
  void build_data(QVBoxLayout& column, std::span<const DataKind> kinds);
  void build_model(QVBoxLayout& column);
  void build_training(QVBoxLayout& column);
  QComboBox* build_devices();
  void add_note(QVBoxLayout& column, const std::string& section);
  IntegerBox* integer(const std::string& key, const QString& name, int64_t low, int64_t high,
                      std::function<int64_t(const RunSpec&)> get, std::function<void(RunSpec&, int64_t)> set);
  void connect_fields();
  void fill_form();  // spec to widgets
  void offer_dtypes();  // those of the chosen device, and the spec's own
  Problems find_problems() const;
  std::string device_problem() const;
  void check();
  void show_problems(const Problems& problems);
  void mark_fields(const std::map<std::string, QWidget*>& fields, const Problems& problems);
  void rewrite_chunks(int64_t chunk);

  RunSpec spec_;
  QString problem_, layers_problem_;
  double flops_per_s_ = 0;

  const std::vector<Device> devices_;
  std::vector<std::function<void()>> fillers_;  // each shows the spec's value of one field
  std::map<std::string, QWidget*> fields_;      // by key of the run spec; the data's are the DataForm's
  std::map<std::string, QLabel*> notes_;        // by section
  DataForm* data_;
  QLineEdit *name_, *layers_;
  RealEdit* lr_;
  QComboBox *device_, *dtype_;
  LayerChips* chips_;
  QToolButton* presets_button_;
  QMenu* presets_;
  ChunkSlider* slider_;
  CostTable* cost_;
  QScrollArea* scroll_;
};

RunSpec default_spec();

}  // namespace rat::app
