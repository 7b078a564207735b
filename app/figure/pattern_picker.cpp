#include "app/figure/pattern_picker.h"

#include <QHBoxLayout>
#include <QLabel>
#include <QVBoxLayout>
#include <algorithm>

namespace rat::app {
namespace {

void clear(QHBoxLayout* row) {
  while (QLayoutItem* item = row->takeAt(0)) {
    if (item->widget()) item->widget()->hide(), item->widget()->deleteLater();
    delete item;
  }
}

std::string id_of(const RunSpec& base) {
  RunSpec without_layers = base;
  without_layers.model.layers.assign(base.model.layers.size(), LayerConfig{});
  return "tradeoff-" + spec_hash(without_layers).substr(0, 12);
}

}  // namespace

Result<std::vector<LayerConfig>> repeat_to_depth(const std::string& pattern, std::size_t depth) {
  RAT_ASSIGN(const std::vector<LayerConfig> period, parse_layers(pattern));
  if (period.empty() || depth % period.size() != 0)
    return fail(ErrorCode::invalid_argument,
                "The pattern '{}' has {} layers, which do not fill a model of {}; change the depth or the pattern.",
                pattern, period.size(), depth);
  std::vector<LayerConfig> layers;
  while (layers.size() < depth) layers.insert(layers.end(), period.begin(), period.end());
  return layers;
}

PatternPicker::PatternPicker(QWidget* parent) : QWidget(parent) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(4);
  chunk_row_ = new QHBoxLayout;
  other_row_ = new QHBoxLayout;
  auto* last_row = new QHBoxLayout;
  for (QHBoxLayout* row : {chunk_row_, other_row_, last_row}) {
    row->setSpacing(4);
    column->addLayout(row);
  }
  custom_ = new QLineEdit(this);
  custom_->setPlaceholderText("more patterns: rat:32; rat:16,attention");
  custom_->setToolTip("Patterns apart by semicolons; each is repeated to the model's depth");
  custom_->setAccessibleName("more layer patterns");
  custom_->setClearButtonEnabled(true);
  seeds_ = new QSpinBox(this);
  seeds_->setRange(1, 20);
  seeds_->setAccessibleName("seeds");
  seeds_->setToolTip("Seeds 1 to n of each pattern: the interval over them is drawn");
  train_ = new QPushButton(this);
  last_row->addWidget(custom_, 1);
  last_row->addSpacing(4);
  last_row->addWidget(new QLabel("Seeds", this));
  last_row->addWidget(seeds_);
  last_row->addSpacing(4);
  last_row->addWidget(train_);
  connect(custom_, &QLineEdit::textChanged, this, [this] { update_button(); });
  connect(seeds_, &QSpinBox::valueChanged, this, [this] { update_button(); });
  connect(train_, &QPushButton::clicked, this, &PatternPicker::train_requested);
  sweep_id_ = id_of(base_);
  rebuild_chips();
}

void PatternPicker::add_chip(QHBoxLayout* row, const std::string& pattern, const QString& text, const QString& tip) {
  auto* chip = new QPushButton(text, this);
  chip->setCheckable(true);
  chip->setToolTip(tip);
  chip->setAccessibleName(QString::fromStdString(pattern));
  row->addWidget(chip);
  chips_.emplace_back(pattern, chip);
  connect(chip, &QPushButton::toggled, this, [this] { update_button(); });
}

void PatternPicker::rebuild_chips() {
  const std::vector<std::string> before = selected_patterns();
  const bool first_time = chips_.empty();
  chips_.clear();
  clear(chunk_row_);
  clear(other_row_);
  chunk_row_->addWidget(new QLabel("rat, L =", this));
  const int64_t tokens = base_.train.seq_len;
  for (int64_t chunk = 1; chunk < tokens; chunk *= 4)
    add_chip(chunk_row_, fmt::format("rat:{}", chunk), QString::number(chunk),
             chunk == 1 ? "Every token its own chunk: attention over gated keys"
                        : QString("Chunks of %1 tokens").arg(chunk));
  add_chip(chunk_row_, fmt::format("rat:{}", tokens), QString("T = %1").arg(tokens),
           "One chunk: a gated recurrence over the whole sequence");
  chunk_row_->addStretch(1);
  other_row_->addWidget(new QLabel("others", this));
  add_chip(other_row_, "attention", "attention", "Softmax attention over all tokens");
  add_chip(other_row_, "rnn", "rnn", "The gated recurrence alone");
  const int64_t window = std::max<int64_t>(1, std::min<int64_t>(128, tokens / 4));
  add_chip(other_row_, fmt::format("swa:{}", window), QString("swa %1").arg(window),
           QString("Attention over a sliding window of %1 tokens").arg(window));
  if (base_.model.layers.size() % 2 == 0) {
    add_chip(other_row_, fmt::format("rat:16,swa:{}", window), QString("rat 16 + swa %1").arg(window),
             "Alternating layers");
    add_chip(other_row_, "rat:16,attention", "rat 16 + attention", "Alternating layers");
  }
  other_row_->addStretch(1);
  select_patterns(first_time ? std::vector<std::string>{"rat:4", "rat:16", "rat:64", "attention", "rnn"} : before);
}

void PatternPicker::select_patterns(const std::vector<std::string>& patterns) {
  for (const auto& [pattern, chip] : chips_)
    chip->setChecked(std::find(patterns.begin(), patterns.end(), pattern) != patterns.end());
  update_button();
}

void PatternPicker::set_base_spec(const RunSpec& spec) {
  if (to_json(spec) == to_json(base_)) return;
  base_ = spec;
  sweep_id_ = id_of(base_);
  rebuild_chips();
}

void PatternPicker::set_trained(std::set<TrainedKey> trained) {
  trained_ = std::move(trained);
  update_button();
}

std::vector<std::string> PatternPicker::selected_patterns() const {
  std::vector<std::string> patterns;
  for (const auto& [pattern, chip] : chips_)
    if (chip->isChecked()) patterns.push_back(pattern);
  for (const QString& part : custom_->text().split(';', Qt::SkipEmptyParts))
    if (!part.trimmed().isEmpty()) patterns.push_back(part.trimmed().toStdString());
  return patterns;
}

Result<std::vector<RunSpec>> PatternPicker::selected_specs() const {
  std::vector<RunSpec> specs;
  std::set<TrainedKey> listed = trained_;
  for (const std::string& pattern : selected_patterns()) {
    RunSpec spec = base_;
    RAT_ASSIGN(spec.model.layers, repeat_to_depth(pattern, base_.model.layers.size()));
    for (int seed = 1; seed <= seeds_->value(); ++seed) {
      spec.train.seed = static_cast<uint64_t>(seed);
      spec.name = fmt::format("{} seed {}", format_layers(spec.model.layers), seed);
      RAT_TRY(validate(spec));
      if (listed.insert({spec_hash(spec), spec.train.seed}).second) specs.push_back(spec);
    }
  }
  return specs;
}

void PatternPicker::update_button() {
  const std::size_t wanted = selected_patterns().size() * static_cast<std::size_t>(seeds_->value());
  const auto specs = selected_specs();
  if (!specs) {
    train_->setText("Train selected");
    train_->setEnabled(false);
    train_->setToolTip(QString::fromStdString(specs.error().message));
    return;
  }
  train_->setEnabled(!specs->empty());
  train_->setText(specs->empty() ? (wanted > 0 ? QString("All %1 are trained").arg(wanted) : QString("Train selected"))
                                 : QString("Train %1 run%2").arg(specs->size()).arg(specs->size() == 1 ? "" : "s"));
  train_->setToolTip(
      QString("One after another, in the queue. %1 of %2 are there already.").arg(wanted - specs->size()).arg(wanted));
}

}  // namespace rat::app
