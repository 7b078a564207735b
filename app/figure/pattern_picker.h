// Which layer patterns to train against each other: chunk lengths, the two limits, windows, hybrids, or any pattern.
#pragma once

#include <QLineEdit>
#include <QPushButton>
#include <QSpinBox>
#include <QWidget>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "experiments/run_spec.h"

class QHBoxLayout;

namespace rat::app {

// A spec hash and a seed: what identifies a result.
using TrainedKey = std::pair<std::string, uint64_t>;

// One pattern for every layer of a model of `depth` layers: "rat:16" -> "rat:16*4", "rat:16,swa:128" -> the two in
// turn.
Result<std::vector<LayerConfig>> repeat_to_depth(const std::string& pattern, std::size_t depth);

class PatternPicker : public QWidget {
  Q_OBJECT

 public:
  explicit PatternPicker(QWidget* parent = nullptr);

  void set_base_spec(const RunSpec& spec);
  void set_trained(std::set<TrainedKey> trained);
  const std::string& sweep_id() const { return sweep_id_; }  // the same for the same base: later points join the plot
  // The runs that are selected and not there yet; an error for a pattern that does not fit.
  Result<std::vector<RunSpec>> selected_specs() const;
  void select_patterns(const std::vector<std::string>& patterns);

 signals:
  void train_requested();

 private:
  void add_chip(QHBoxLayout* row, const std::string& pattern, const QString& text, const QString& tip);
  void rebuild_chips();
  void update_button();
  std::vector<std::string> selected_patterns() const;

  RunSpec base_;
  std::string sweep_id_;
  std::set<TrainedKey> trained_;
  std::vector<std::pair<std::string, QPushButton*>> chips_;
  QHBoxLayout *chunk_row_, *other_row_;
  QLineEdit* custom_;
  QSpinBox* seeds_;
  QPushButton* train_;
};

}  // namespace rat::app
