// "Cost before you start": what a spec costs, from core/cost_model.h and the speed measured last.
#pragma once

#include <QWidget>

#include "experiments/run_spec.h"

namespace rat::app {

class NumberLabel;

class CostTable : public QWidget {
 public:
  explicit CostTable(QWidget* parent = nullptr);
  // `flops_per_s`: measured on this machine, 0 when nothing has been trained yet.
  void show_cost(const RunSpec& spec, double flops_per_s);
  void clear();

 private:
  NumberLabel *parameters_, *flops_, *cache_, *ratio_, *memory_, *time_;
};

}  // namespace rat::app
