// The Experiment dock: a form bound to one RunSpec, checked at every keystroke, with what it costs before Start.
#pragma once

#include <QWidget>

#include "core/devices.h"
#include "experiments/run_spec.h"

class QComboBox;
class QLabel;
class QLineEdit;
class QMenu;
class QSpinBox;
class QToolButton;
class QVBoxLayout;

namespace rat::app {

class ChunkSlider;
class CostTable;
class LayerChips;

class ExperimentPanel : public QWidget {
  Q_OBJECT

 public:
  explicit ExperimentPanel(QWidget* parent = nullptr);

  const RunSpec& spec() const { return spec_; }
  void set_spec(const RunSpec& spec);
  bool valid() const { return problem_.isEmpty(); }
  const QString& problem() const { return problem_; }  // one sentence; empty: sound
  void set_measured_speed(double flops_per_s);
  void open_presets();  // the menu of published layer stacks
  QMenu& presets() { return *presets_; }

 signals:
  void spec_changed();

 private:
  void build();
  void build_data(QVBoxLayout& column);
  void build_model(QVBoxLayout& column);
  void build_training(QVBoxLayout& column);
  void connect_fields();
  void choose_data(int index);
  void show_data();
  void read_form();  // widgets to spec
  void fill_form();  // spec to widgets
  void offer_dtypes();  // those of the chosen device
  void check();
  void rewrite_chunks(int64_t chunk);

  RunSpec spec_;
  QString problem_, layers_problem_, number_problem_;
  double flops_per_s_ = 0;
  bool filling_ = false;

  QLineEdit *name_, *layers_, *lr_;
  QComboBox *data_, *device_, *dtype_;
  std::vector<Device> devices_ = devices();  // of this build
  QWidget* mqar_;
  QSpinBox *pairs_, *queries_, *width_, *heads_, *groups_, *context_, *steps_, *batch_, *warmup_, *seed_, *eval_,
      *checkpoint_;
  LayerChips* chips_;
  QToolButton* presets_button_;
  QMenu* presets_;
  ChunkSlider* slider_;
  CostTable* cost_;
  QLabel* message_;
};

RunSpec default_spec();

}  // namespace rat::app
