#include "app/window/cost_table.h"

#include <QGridLayout>
#include <QLabel>
#include <algorithm>

#include "app/window/run_bar.h"
#include "app/window/widgets.h"
#include "core/cost_model.h"

namespace rat::app {
namespace {

QString in_words(double seconds) {
  if (seconds < 1) return "< 1 s";
  if (seconds < 60) return QString("%1 s").arg(seconds, 0, 'f', 0);
  if (seconds < 3600)
    return QString("%1 min %2 s").arg(static_cast<int>(seconds) / 60).arg(static_cast<int>(seconds) % 60);
  return QString("%1 h %2 min").arg(static_cast<int>(seconds) / 3600).arg(static_cast<int>(seconds) / 60 % 60);
}

// The same model with attention in every layer: what the cache is compared with.
double attention_cache(const RunSpec& spec) {
  ModelConfig model = spec.model;
  for (LayerConfig& layer : model.layers) layer.kind = "attention";
  return static_cast<double>(estimate_cost(model, spec.train.seq_len, spec.train.batch).decode_cache_bytes);
}

}  // namespace

CostTable::CostTable(QWidget* parent) : QWidget(parent) {
  auto* grid = new QGridLayout(this);
  grid->setContentsMargins(0, 0, 0, 0);
  grid->setVerticalSpacing(1);
  grid->setHorizontalSpacing(6);
  int row = 0;
  const auto add = [&](const QString& name, NumberLabel*& value, NumberLabel** second = nullptr) {
    grid->addWidget(label(name, "secondary", this), row, 0);
    value = new NumberLabel(Qt::AlignRight, this);
    grid->addWidget(value, row, 1, 1, second ? 1 : 2);
    if (second) {
      *second = new NumberLabel(Qt::AlignRight, this);
      grid->addWidget(*second, row, 2);
    }
    ++row;
    grid->addWidget(hairline(this), row++, 0, 1, 3);
  };
  add("Parameters", parameters_);
  add("FLOPs / token, train", flops_);
  add("Cache at T", cache_, &ratio_);
  add("Training memory", memory_);
  add("Estimated time", time_);
  grid->setColumnStretch(1, 1);
  ratio_->set_color_role("ok");
  ratio_->setToolTip("against the same model with attention in every layer");
}

void CostTable::show_cost(const RunSpec& spec, double flops_per_s) {
  const CostEstimate cost =
      estimate_cost(spec.model, spec.train.seq_len,
                    std::max<int64_t>(1, spec.train.batch / std::max<int64_t>(1, spec.train.accumulate)));
  parameters_->set_text(format_rate(static_cast<double>(cost.parameters)));
  flops_->set_text(format_rate(cost.train_flops_per_token));
  cache_->set_text(format_bytes(static_cast<double>(cost.decode_cache_bytes)));
  const double ratio =
      cost.decode_cache_bytes > 0 ? attention_cache(spec) / static_cast<double>(cost.decode_cache_bytes) : 0;
  ratio_->set_text(ratio > 1.05 ? QString("\u00f7 %1").arg(ratio, 0, 'f', ratio < 10 ? 1 : 0) : QString());
  memory_->set_text(format_bytes(static_cast<double>(cost.training_bytes)));
  const double tokens = static_cast<double>(spec.train.steps) * static_cast<double>(spec.train.batch) *
                        static_cast<double>(spec.train.seq_len);
  time_->set_text(flops_per_s > 0 ? in_words(tokens * cost.train_flops_per_token / flops_per_s)
                                  : QString("not measured yet"));
}

void CostTable::clear() {
  for (NumberLabel* one : {parameters_, flops_, cache_, memory_, time_}) one->set_text("-");
  ratio_->set_text("");
}

}  // namespace rat::app
