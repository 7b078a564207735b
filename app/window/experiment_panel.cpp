#include "app/window/experiment_panel.h"

#include <QComboBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QLabel>
#include <QLineEdit>
#include <QScrollArea>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QStyle>
#include <QToolButton>
#include <QVBoxLayout>
#include <limits>

#include "app/window/chunk_slider.h"
#include "app/window/cost_table.h"
#include "app/window/layer_chips.h"
#include "app/window/preset_menu.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {

constexpr int label_width = 92;
constexpr int margin = 12;

// Entries of the data list; the ones that ask carry no value of their own.
enum DataEntry { own_source = 0, mqar_task, choose_file, choose_folder, chosen_path };

QSpinBox* spin(int low, int high, const QString& name, QWidget* parent) {
  auto* box = new QSpinBox(parent);
  box->setRange(low, high);
  box->setGroupSeparatorShown(true);
  box->setAccessibleName(name);
  box->setToolTip(name);
  box->setKeyboardTracking(true);
  box->setMinimumWidth(48);
  box->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  return box;
}

QHBoxLayout* row(const QString& name, std::initializer_list<QWidget*> fields, const QString& between = {}) {
  auto* line = new QHBoxLayout;
  line->setSpacing(6);
  auto* title = label(name, "secondary");
  title->setFixedWidth(label_width);
  line->addWidget(title);
  bool first = true;
  for (QWidget* field : fields) {
    if (!first && !between.isEmpty()) line->addWidget(label(between, "secondary"));
    line->addWidget(field, 1);
    first = false;
  }
  return line;
}

void section(QVBoxLayout& column, const QString& title) {
  column.addSpacing(4);
  column.addWidget(hairline());
  column.addSpacing(4);
  column.addWidget(heading(title));
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

ExperimentPanel::ExperimentPanel(QWidget* parent) : QWidget(parent) {
  build();
  connect_fields();
  set_spec(default_spec());
}

void ExperimentPanel::build() {
  auto* content = new QWidget;
  auto* column = new QVBoxLayout(content);
  column->setContentsMargins(margin, 4, margin, margin);
  column->setSpacing(4);
  build_data(*column);
  build_model(*column);
  build_training(*column);
  column->addStretch(1);
  auto* scroll = new QScrollArea(this);
  scroll->setWidget(content);
  scroll->setWidgetResizable(true);
  scroll->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  scroll->setFrameShape(QFrame::NoFrame);
  message_ = label("", "warning", this);
  message_->setWordWrap(true);
  message_->setContentsMargins(margin, 6, margin, 8);
  message_->hide();
  auto* outer = new QVBoxLayout(this);
  outer->setContentsMargins(0, 0, 0, 0);
  outer->setSpacing(0);
  outer->addWidget(scroll, 1);
  outer->addWidget(message_);
  setMinimumWidth(258);
}

void ExperimentPanel::build_data(QVBoxLayout& column) {
  name_ = new QLineEdit(this);
  name_->setAccessibleName("Name of the run");
  data_ = new QComboBox(this);
  data_->setAccessibleName("Data");
  data_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  data_->addItems({"own source", "mqar: associative recall", "Choose a text file...", "Choose a folder..."});
  pairs_ = spin(1, 4096, "Key-value pairs", this);
  queries_ = spin(1, 4096, "Queries", this);
  column.addLayout(row("Name", {name_}));
  column.addLayout(row("Data", {data_}));
  mqar_ = new QWidget(this);
  auto* line = row("Pairs, queries", {pairs_, queries_}, ",");
  line->setContentsMargins(0, 0, 0, 0);
  mqar_->setLayout(line);
  column.addWidget(mqar_);
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
  width_ = spin(2, 65536, "Model width D", this);
  heads_ = spin(1, 1024, "Heads H", this);
  groups_ = spin(1, 1024, "Shared query and key groups G", this);
  context_ = spin(1, 1 << 24, "Context T, tokens", this);
  column.addLayout(row("Layers", {layers_}));
  auto* stack = new QHBoxLayout;
  stack->setSpacing(6);
  stack->addWidget(chips_, 1);
  stack->addWidget(presets_button_);
  column.addLayout(stack);
  column.addLayout(row("Width, heads", {width_, heads_}, "\u00d7"));
  column.addLayout(row("T, q/k groups", {context_, groups_}, ","));
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

void ExperimentPanel::build_training(QVBoxLayout& column) {
  constexpr int most = std::numeric_limits<int>::max();
  steps_ = spin(1, most, "Steps", this);
  batch_ = spin(1, 1 << 20, "Sequences a step", this);
  lr_ = new QLineEdit(this);
  lr_->setAccessibleName("Peak learning rate");
  warmup_ = spin(0, most, "Warm-up steps", this);
  seed_ = spin(0, most, "Seed", this);
  eval_ = spin(0, most, "Evaluate every so many steps", this);
  checkpoint_ = spin(0, most, "Save a checkpoint every so many steps", this);
  dtype_ = new QComboBox(this);
  dtype_->setAccessibleName("Precision of matrix products");
  dtype_->setToolTip(
      "Precision of matrix products; weights, sums and statistics are f32 in all of them. Only what the device can do "
      "is listed: bf16x6 is as accurate as f32, bf16x3 nearly, tf32 less, bf16 is the fastest.");
  device_ = new QComboBox(this);
  device_->setAccessibleName("Device that trains");
  for (const Device& device : devices_)
    if (device.problem.empty()) device_->addItem(QString::fromStdString(device.name));
  QStringList about;
  for (const Device& device : devices_)
    about << QString::fromStdString(device.name + ": " + (device.problem.empty() ? device.description : device.problem));
  device_->setToolTip("What trains. " + about.join("; ") + ".");
  section(column, "Training");
  column.addLayout(row("Steps, batch", {steps_, batch_}, "\u00d7"));
  column.addLayout(row("Rate, warm-up", {lr_, warmup_}, ","));
  column.addLayout(row("Evaluate, save", {eval_, checkpoint_}, ","));
  column.addLayout(row("Device, dtype", {device_, dtype_}, ","));
  column.addLayout(row("Seed", {seed_}));
}

void ExperimentPanel::connect_fields() {
  for (QSpinBox* box :
       {pairs_, queries_, width_, heads_, groups_, context_, steps_, batch_, warmup_, seed_, eval_, checkpoint_})
    connect(box, &QSpinBox::valueChanged, this, [this] { read_form(); });
  for (QLineEdit* field : {name_, layers_, lr_}) connect(field, &QLineEdit::textChanged, this, [this] { read_form(); });
  connect(data_, &QComboBox::activated, this, &ExperimentPanel::choose_data);
  connect(dtype_, &QComboBox::activated, this, [this] { read_form(); });
  connect(device_, &QComboBox::activated, this, [this] {
    offer_dtypes();
    read_form();
  });
  connect(slider_, &ChunkSlider::chunk_changed, this, &ExperimentPanel::rewrite_chunks);
}

void ExperimentPanel::choose_data(int index) {
  if (index == choose_file || index == choose_folder) {
    show_data();  // until something is chosen, the list shows what is in force
    auto* dialog = new QFileDialog(this, index == choose_file ? "Text to train on" : "Folder of text to train on");
    dialog->setAttribute(Qt::WA_DeleteOnClose);
    dialog->setFileMode(index == choose_file ? QFileDialog::ExistingFile : QFileDialog::Directory);
    connect(dialog, &QFileDialog::fileSelected, this, [this](const QString& path) {
      spec_.data.kind = "text";
      spec_.data.path = path.toStdString();
      fill_form();
      check();
    });
    dialog->open();
    return;
  }
  if (index == mqar_task) spec_.data.kind = "mqar";
  if (index == own_source) {
    spec_.data.kind = "text";
    spec_.data.path.clear();
  }
  fill_form();
  check();
}

void ExperimentPanel::show_data() {
  const QSignalBlocker quiet(data_);
  while (data_->count() > chosen_path) data_->removeItem(chosen_path);
  int index = own_source;
  if (spec_.data.kind == "mqar") {
    index = mqar_task;
  } else if (!spec_.data.path.empty()) {
    const QString path = QString::fromStdString(spec_.data.path);
    data_->addItem(QFileInfo(path).fileName().isEmpty() ? path : QFileInfo(path).fileName());
    index = chosen_path;
  }
  data_->setCurrentIndex(index);
  data_->setToolTip(spec_.data.path.empty() ? data_->currentText() : QString::fromStdString(spec_.data.path));
  mqar_->setVisible(spec_.data.kind == "mqar");
}

void ExperimentPanel::set_spec(const RunSpec& spec) {
  spec_ = spec;
  layers_problem_.clear();
  number_problem_.clear();
  fill_form();
  check();
}

void ExperimentPanel::fill_form() {
  filling_ = true;
  const auto put = [](QSpinBox* box, auto value) { box->setValue(static_cast<int>(value)); };
  name_->setText(QString::fromStdString(spec_.name));
  layers_->setText(QString::fromStdString(format_layers(spec_.model.layers)));
  lr_->setText(QString::number(spec_.train.optimizer.lr, 'g', 6));
  put(pairs_, spec_.data.pairs);
  put(queries_, spec_.data.queries);
  put(width_, spec_.model.d_model);
  put(heads_, spec_.model.heads);
  put(groups_, spec_.model.groups);
  put(context_, spec_.train.seq_len);
  put(steps_, spec_.train.steps);
  put(batch_, spec_.train.batch);
  put(warmup_, spec_.train.warmup);
  put(seed_, spec_.train.seed);
  put(eval_, spec_.train.eval_every);
  put(checkpoint_, spec_.train.checkpoint_every);
  // What another machine has is shown too: starting it says what this one lacks.
  const auto choose = [](QComboBox* box, const std::string& value) {
    const QString text = QString::fromStdString(value);
    if (box->findText(text) < 0) box->addItem(text);
    box->setCurrentText(text);
  };
  choose(device_, spec_.device);
  offer_dtypes();
  choose(dtype_, spec_.train.dtype);
  show_data();
  filling_ = false;
}

void ExperimentPanel::offer_dtypes() {
  const QString chosen = dtype_->currentText();
  dtype_->clear();
  for (const Device& device : devices_)
    if (device.name == device_->currentText().toStdString())
      for (const std::string& dtype : device.dtypes) dtype_->addItem(QString::fromStdString(dtype));
  dtype_->setCurrentIndex(std::max(0, dtype_->findText(chosen)));
}

void ExperimentPanel::read_form() {
  if (filling_) return;
  spec_.name = name_->text().trimmed().toStdString();
  spec_.data.pairs = pairs_->value();
  spec_.data.queries = queries_->value();
  spec_.model.d_model = width_->value();
  spec_.model.heads = heads_->value();
  spec_.model.groups = groups_->value();
  spec_.train.seq_len = context_->value();
  spec_.train.steps = steps_->value();
  spec_.train.batch = batch_->value();
  spec_.train.warmup = warmup_->value();
  spec_.train.seed = static_cast<uint64_t>(seed_->value());
  spec_.device = device_->currentText().toStdString();
  spec_.train.dtype = dtype_->currentText().toStdString();
  spec_.train.eval_every = eval_->value();
  spec_.train.checkpoint_every = checkpoint_->value();
  const Result<std::vector<LayerConfig>> layers = parse_layers(layers_->text().toStdString());
  layers_problem_ = layers ? QString() : QString::fromStdString(layers.error().message);
  if (layers) spec_.model.layers = *layers;
  bool is_number = false;
  const double lr = lr_->text().toDouble(&is_number);
  number_problem_ =
      is_number ? QString() : QString("The learning rate \"%1\" is not a number; write it like 8e-4.").arg(lr_->text());
  if (is_number) spec_.train.optimizer.lr = lr;
  check();
}

void ExperimentPanel::rewrite_chunks(int64_t chunk) {
  for (LayerConfig& layer : spec_.model.layers)
    if (layer.kind == "rat") layer.chunk = chunk;
  const QSignalBlocker quiet(layers_);
  layers_->setText(QString::fromStdString(format_layers(spec_.model.layers)));
  check();
}

void ExperimentPanel::check() {
  problem_ = layers_problem_.isEmpty() ? number_problem_ : layers_problem_;
  if (problem_.isEmpty())
    if (const Status sound = validate(spec_); !sound) problem_ = QString::fromStdString(sound.error().message);
  layers_->setProperty("wrong", !layers_problem_.isEmpty());
  lr_->setProperty("wrong", !number_problem_.isEmpty());
  for (QLineEdit* field : {layers_, lr_}) {
    field->style()->unpolish(field);
    field->style()->polish(field);
  }
  message_->setText(problem_);
  message_->setVisible(!problem_.isEmpty());
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

void ExperimentPanel::set_measured_speed(double flops_per_s) {
  if (flops_per_s_ > 0 && std::abs(flops_per_s - flops_per_s_) < 0.05 * flops_per_s_) return;  // a steady number
  flops_per_s_ = flops_per_s;
  if (validate(spec_.model)) cost_->show_cost(spec_, flops_per_s_);
}

}  // namespace rat::app
