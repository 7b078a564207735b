#include "app/window/experiment_panel.h"

#include <QComboBox>
#include <QEvent>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QScrollArea>
#include <QSignalBlocker>
#include <QStyle>
#include <QTimer>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cctype>
#include <limits>

#include "app/window/chunk_slider.h"
#include "app/window/cost_table.h"
#include "app/window/data_form.h"
#include "app/window/layer_chips.h"
#include "app/window/number_fields.h"
#include "app/window/preset_menu.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {

constexpr int margin = 12;
constexpr int64_t most_counted = 1'000'000'000'000'000;  // what the run spec allows

void section(QVBoxLayout& column, const QString& title) {
  column.addSpacing(2);
  column.addWidget(hairline());
  column.addSpacing(2);
  column.addWidget(heading(title));
}

// "cuda \u00b7 H200": the name that a spec has, and the hardware where the description begins with it.
QString device_label(const Device& device) {
  const QString name = QString::fromStdString(device.name), about = QString::fromStdString(device.description);
  if (!about.contains(',')) return name;
  QString hardware = about.section(',', 0, 0);
  if (hardware.startsWith("NVIDIA ")) hardware.remove(0, 7);  // the row is narrow, and cuda says it
  return name + " \u00b7 " + hardware;
}

// Where a problem is shown: the section of the form that has the fields.
std::string section_of(const std::string& key) {
  if (key == "model.vocab" || key.starts_with("data")) return "data";
  if (key == "train.seq_len" || key.starts_with("model")) return "model";
  return "train";
}

// Whether the sentence is about the key: it names it, not only a longer one.
bool names(const std::string& sentence, const std::string& key) {
  for (std::size_t at = sentence.find(key); at != std::string::npos; at = sentence.find(key, at + 1)) {
    const std::size_t end = at + key.size();
    const auto goes_on = [&](std::size_t i) {
      return i < sentence.size() && (std::isalnum(static_cast<unsigned char>(sentence[i])) || sentence[i] == '_');
    };
    if (!goes_on(end) && (at == 0 || !goes_on(at - 1))) return true;
  }
  return false;
}

QString as_sentence(const std::string& message) {
  QString text = QString::fromStdString(message);
  const bool begins_with_key = text.section(' ', 0, 0).contains('.');
  if (!text.isEmpty() && !begins_with_key) text[0] = text[0].toUpper();
  return text.isEmpty() || text.endsWith('.') ? text : text + '.';
}

}  // namespace

RunSpec default_spec() {
  RunSpec spec;
  spec.name = "first-look";
  spec.model.d_model = 128;
  spec.model.layers = *parse_layers("rat:16*4");
  spec.train.steps = 1000;
  return spec;
}

ExperimentPanel::ExperimentPanel(std::vector<Device> devices, QWidget* parent, std::span<const DataKind> kinds)
    : QWidget(parent), devices_(std::move(devices)) {
  build(kinds);
  connect_fields();
  set_spec(default_spec());
}

void ExperimentPanel::build(std::span<const DataKind> kinds) {
  auto* content = new QWidget;
  auto* column = new QVBoxLayout(content);
  column->setContentsMargins(margin, 4, margin, margin / 2);
  column->setSpacing(3);
  build_data(*column, kinds);
  build_model(*column);
  build_training(*column);
  column->addStretch(1);
  scroll_ = new QScrollArea(this);
  scroll_->setWidget(content);
  scroll_->setWidgetResizable(true);
  scroll_->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll_->setFrameShape(QFrame::NoFrame);
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  outer->setSpacing(0);
  outer->addWidget(scroll_, 1);
  setMinimumWidth(258);
}

void ExperimentPanel::add_note(QVBoxLayout& column, const std::string& section) {
  QLabel* note = label("", "warning", this);
  note->setWordWrap(true);
  note->hide();
  column.addWidget(note);
  notes_[section] = note;
}

// A field for a whole number: shows get(spec), and writes with set what the user changes it to.
IntegerBox* ExperimentPanel::integer(const std::string& key, const QString& name, int64_t low, int64_t high,
                                     std::function<int64_t(const RunSpec&)> get,
                                     std::function<void(RunSpec&, int64_t)> set) {
  auto* box = new IntegerBox(low, high, name, this);
  fields_[key] = box;
  fillers_.push_back([this, box, get = std::move(get)] { box->set_value(get(spec_)); });
  connect(box, &IntegerBox::value_changed, this, [this, set = std::move(set)](qlonglong value) {
    set(spec_, value);
    check();
  });
  return box;
}

// The key, what it is called, its range and the member.
#define RAT_INTEGER(key, name, low, high)                                       \
  integer(#key, name, low, high, [](const RunSpec& spec) { return spec.key; }, \
          [](RunSpec& spec, int64_t value) { spec.key = value; })

void ExperimentPanel::build_data(QVBoxLayout& column, std::span<const DataKind> kinds) {
  name_ = new QLineEdit(this);
  name_->setAccessibleName("Name of the run");
  column.addWidget(form_row("Name", {name_}));
  data_ = new DataForm(kinds, this);
  column.addWidget(data_);
  add_note(column, "data");
}

void ExperimentPanel::build_model(QVBoxLayout& column) {
  layers_ = new QLineEdit(this);
  layers_->setAccessibleName("Layer pattern");
  layers_->setToolTip(
      "Kinds with their length, repeated: rat:16*4, or rat:16,swa:128*2, or (rat:16,swa:128)*2,attention");
  chips_ = new LayerChips(this);
  presets_button_ = new QToolButton(this);
  presets_button_->setText("Presets");
  presets_button_->setToolTip("Published layer stacks, repeated to the number of layers there are (Ctrl+Shift+L)");
  presets_ = new PresetMenu([this] { return spec_.model.layers.size(); },
                            [this](const QString& pattern) { layers_->setText(pattern); }, this);
  connect(presets_button_, &QToolButton::clicked, this, &ExperimentPanel::open_presets);
  fields_["model.layers"] = layers_;
  column.addWidget(form_row("Layers", {layers_}));
  auto* stack = new QHBoxLayout;
  stack->setSpacing(6);
  stack->addWidget(chips_, 1);
  stack->addWidget(presets_button_);
  column.addLayout(stack);
  column.addWidget(form_row("Width, heads",
                            {RAT_INTEGER(model.d_model, "Model width D", 1, 1 << 20),
                             RAT_INTEGER(model.heads, "Heads H", 1, 1 << 16)},
                            "\u00d7"));
  column.addWidget(form_row("T, q/k groups",
                            {RAT_INTEGER(train.seq_len, "Context T, tokens", 1, 1 << 28),
                             RAT_INTEGER(model.groups, "Shared query and key groups G", 1, 1 << 16)},
                            ","));
  add_note(column, "model");
  section(column, "Chunk length L");
  slider_ = new ChunkSlider(this);
  column.addWidget(slider_);
  section(column, "Cost before you start");
  cost_ = new CostTable(this);
  column.addWidget(cost_);
}

void ExperimentPanel::open_presets() {
  presets_->popup(presets_button_->mapToGlobal(QPoint(0, presets_button_->height())));
}

QComboBox* ExperimentPanel::build_devices() {
  auto* list = new ElidedComboBox(this);
  list->setAccessibleName("Device that trains");
  list->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  QStringList about;
  for (const Device& device : devices_) {
    if (device.problem.empty()) list->addItem(device_label(device), QString::fromStdString(device.name));
    about << QString::fromStdString(device.name + ": " + (device.problem.empty() ? device.description : device.problem));
  }
  list->setToolTip("What trains. " + about.join("; ") + ".");
  return list;
}

void ExperimentPanel::build_training(QVBoxLayout& column) {
  lr_ = new RealEdit("Peak learning rate", this);
  dtype_ = new QComboBox(this);
  dtype_->setAccessibleName("Precision of matrix products");
  dtype_->setToolTip(
      "Precision of matrix products; weights, sums and statistics are f32 in all of them. Only what the device can do "
      "is listed: bf16x6 is as accurate as f32, bf16x3 nearly, tf32 less, bf16 is the fastest.");
  device_ = build_devices();
  fields_.insert({{"train.lr", lr_}, {"train.dtype", dtype_}, {"device", device_}});
  IntegerBox* seed = integer(
      "train.seed", "Seed", 0, std::numeric_limits<int64_t>::max(),
      [](const RunSpec& spec) { return static_cast<int64_t>(spec.train.seed); },
      [](RunSpec& spec, int64_t value) { spec.train.seed = static_cast<uint64_t>(value); });
  section(column, "Training");
  column.addWidget(form_row("Steps, batch",
                            {RAT_INTEGER(train.steps, "Steps", 1, most_counted),
                             RAT_INTEGER(train.batch, "Sequences a step", 1, 1 << 24)},
                            "\u00d7"));
  column.addWidget(
      form_row("Rate, warm-up", {lr_, RAT_INTEGER(train.warmup, "Warm-up steps", 0, most_counted)}, ","));
  IntegerBox* save = RAT_INTEGER(train.checkpoint_every, "Save a checkpoint every so many steps", 0, most_counted);
  column.addWidget(form_row(
      "Evaluate, save", {RAT_INTEGER(train.eval_every, "Evaluate every so many steps", 0, most_counted), save}, ","));
  column.addWidget(form_row("Device", {device_}));
  column.addWidget(form_row("Dtype, seed", {dtype_, seed}, ","));
  add_note(column, "train");
}

#undef RAT_INTEGER

void ExperimentPanel::connect_fields() {
  connect(data_, &DataForm::changed, this, [this] {
    spec_.data = data_->data();
    spec_.model.vocab = data_->vocab();
    check();
  });
  connect(name_, &QLineEdit::textEdited, this, [this](const QString& text) {
    spec_.name = text.trimmed().toStdString();
    check();
  });
  connect(layers_, &QLineEdit::textChanged, this, [this](const QString& text) {
    const Result<std::vector<LayerConfig>> layers = parse_layers(text.toStdString());
    layers_problem_ = layers ? QString() : QString::fromStdString(layers.error().message);
    if (layers) spec_.model.layers = *layers;
    check();
  });
  connect(lr_, &RealEdit::value_changed, this, [this](double value) {
    spec_.train.optimizer.lr = value;
    check();
  });
  connect(lr_, &RealEdit::refused, this, &ExperimentPanel::check);
  connect(dtype_, &QComboBox::activated, this, [this] {
    spec_.train.dtype = dtype_->currentText().toStdString();
    check();
  });
  connect(device_, &QComboBox::activated, this, [this] {
    spec_.device = device_->currentData().toString().toStdString();
    offer_dtypes();
    check();
  });
  connect(slider_, &ChunkSlider::chunk_changed, this, &ExperimentPanel::rewrite_chunks);
}

// Files come and go while another window is in front.
bool ExperimentPanel::event(QEvent* event) {
  if (event->type() == QEvent::WindowActivate) check();
  return QWidget::event(event);
}

void ExperimentPanel::set_spec(const RunSpec& spec) {
  spec_ = spec;
  layers_problem_.clear();
  fill_form();
  check();
}

void ExperimentPanel::fill_form() {
  name_->setText(QString::fromStdString(spec_.name));
  {
    const QSignalBlocker quiet(layers_);
    layers_->setText(QString::fromStdString(format_layers(spec_.model.layers)));
  }
  lr_->set_value(spec_.train.optimizer.lr);
  data_->set(spec_.data, spec_.model.vocab);
  for (const auto& fill : fillers_) fill();
  // What another machine has is shown too, with what this one lacks.
  const QString device = QString::fromStdString(spec_.device);
  if (device_->findData(device) < 0) device_->addItem(device + " (not here)", device);
  device_->setCurrentIndex(device_->findData(device));
  offer_dtypes();
}

void ExperimentPanel::offer_dtypes() {
  const QString chosen = QString::fromStdString(spec_.train.dtype);
  dtype_->clear();
  for (const Device& device : devices_)
    if (device.name == spec_.device)
      for (const std::string& dtype : device.dtypes) dtype_->addItem(QString::fromStdString(dtype));
  if (dtype_->findText(chosen) < 0) dtype_->addItem(chosen);
  dtype_->setCurrentText(chosen);
}

void ExperimentPanel::rewrite_chunks(int64_t chunk) {
  for (LayerConfig& layer : spec_.model.layers)
    if (layer.kind == "rat") layer.chunk = chunk;
  const QSignalBlocker quiet(layers_);
  layers_->setText(QString::fromStdString(format_layers(spec_.model.layers)));
  check();
}

std::string ExperimentPanel::device_problem() const {
  const auto device = std::find_if(devices_.begin(), devices_.end(),
                                   [this](const Device& one) { return one.name == spec_.device; });
  std::vector<std::string> usable;
  for (const Device& one : devices_)
    if (one.problem.empty()) usable.push_back(one.name);
  if (device == devices_.end() || !device->problem.empty())
    return fmt::format("device is {}, which cannot compute here ({}); start this where it can, or choose {}.",
                       spec_.device, device == devices_.end() ? "it is no part of this build" : device->problem,
                       fmt::join(usable, " or "));
  const std::vector<std::string>& dtypes = device->dtypes;
  if (std::find(dtypes.begin(), dtypes.end(), spec_.train.dtype) != dtypes.end()) return "";
  return fmt::format("train.dtype is {}, in which this {} does not compute; choose one of {}.", spec_.train.dtype,
                     device->name, fmt::join(dtypes, ", "));
}

ExperimentPanel::Problems ExperimentPanel::find_problems() const {
  Problems found;
  if (!layers_problem_.isEmpty()) found.push_back({"model.layers", layers_problem_.toStdString()});
  if (!lr_->problem().isEmpty()) found.push_back({"train.lr", lr_->problem().toStdString()});
  for (SpecProblem& problem : problems(spec_)) found.push_back(std::move(problem));
  for (SpecProblem& problem : data_->problems()) found.push_back(std::move(problem));
  if (std::string device = device_problem(); !device.empty()) found.push_back({"device", std::move(device)});
  return found;
}

void ExperimentPanel::check() {
  show_problems(find_problems());
  chips_->set_layers(spec_.model.layers);
  int64_t chunk = 0;
  for (const LayerConfig& layer : spec_.model.layers)
    if (layer.kind == "rat" && chunk == 0) chunk = layer.chunk;
  slider_->set_context(spec_.train.seq_len);
  slider_->set_chunk(chunk);
  if (validate(spec_.model)) {
    cost_->show_cost(spec_, flops_per_s_);
  } else {
    cost_->clear();
  }
  emit spec_changed();
}

// A sentence stands below the fields of its section, and the fields it names are outlined.
void ExperimentPanel::show_problems(const Problems& problems) {
  const bool was_valid = valid();
  problem_ = problems.empty() ? QString() : as_sentence(problems.front().message);
  for (const auto& [section, note] : notes_) {
    const auto first = std::find_if(problems.begin(), problems.end(), [&section = section](const SpecProblem& problem) {
      return section_of(problem.key) == section;
    });
    note->setText(first == problems.end() ? QString() : as_sentence(first->message));
    note->setVisible(first != problems.end());
  }
  mark_fields(fields_, problems);
  mark_fields(data_->fields(), problems);
  if (!was_valid || valid()) return;
  QLabel* const place = notes_[section_of(problems.front().key)];
  QTimer::singleShot(0, place, [this, place] { scroll_->ensureWidgetVisible(place, 0, margin); });
}

void ExperimentPanel::mark_fields(const std::map<std::string, QWidget*>& fields, const Problems& problems) {
  for (const auto& [key, field] : fields) {
    const bool wrong = std::any_of(problems.begin(), problems.end(), [&, &key = key](const SpecProblem& problem) {
      return problem.key == key || names(problem.message, key);
    });
    if (field->property("wrong").toBool() == wrong) continue;
    field->setProperty("wrong", wrong);
    field->style()->unpolish(field);
    field->style()->polish(field);
  }
}

QString ExperimentPanel::note(const std::string& section) const { return notes_.at(section)->text(); }

bool ExperimentPanel::is_wrong(const std::string& key) const {
  for (const auto* fields : {&fields_, &data_->fields()})
    if (const auto at = fields->find(key); at != fields->end()) return at->second->property("wrong").toBool();
  return false;
}

void ExperimentPanel::set_measured_speed(double flops_per_s) {
  if (flops_per_s_ > 0 && std::abs(flops_per_s - flops_per_s_) < 0.05 * flops_per_s_) return;  // a steady number
  flops_per_s_ = flops_per_s;
  if (validate(spec_.model)) cost_->show_cost(spec_, flops_per_s_);
}

}  // namespace rat::app
