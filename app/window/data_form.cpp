#include "app/window/data_form.h"

#include <QComboBox>
#include <QDateTime>
#include <QDir>
#include <QFileDialog>
#include <QFileInfo>
#include <QHBoxLayout>
#include <QLabel>
#include <QMenu>
#include <QSignalBlocker>
#include <QToolButton>
#include <QVBoxLayout>

#include "app/window/number_fields.h"
#include "app/window/widgets.h"
#include "experiments/data/sentencepiece_tokenizer.h"
#include "experiments/data/tokenizers.h"

namespace rat::app {
namespace {

constexpr int64_t largest_vocab = 1 << 24;
const std::string standard_input = "-";
constexpr const char* tokenizer_title = "SentencePiece model";

QString text_of(std::string_view text) { return QString::fromUtf8(text.data(), static_cast<qsizetype>(text.size())); }

// As `rat train` stores it: a run can be resumed from anywhere.
std::string absolute(const QString& typed) {
  if (typed.isEmpty() || typed == "-") return typed.toStdString();
  const QString path = typed == "~" || typed.startsWith("~/") ? QDir::homePath() + typed.mid(1) : typed;
  return QDir::cleanPath(QDir::current().absoluteFilePath(path)).toStdString();
}

}  // namespace

DataForm::DataForm(std::span<const DataKind> kinds, QWidget* parent) : QWidget(parent), kinds_(kinds) {
  build();
  connect_fields();
  show_all();
}

void DataForm::build() {
  column_ = new QVBoxLayout(this);
  column_->setContentsMargins(0, 0, 0, 0);
  column_->setSpacing(3);
  kind_ = new ElidedComboBox(this);
  kind_->setAccessibleName("Data");
  kind_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  for (const DataKind& kind : kinds_) {
    kind_->addItem(text_of(kind.title), text_of(kind.name));
    kind_->setItemData(kind_->count() - 1, text_of(kind.description), Qt::ToolTipRole);
  }
  description_ = label("", "secondary", this);
  description_->setWordWrap(true);
  numbers_ = new QWidget(this);
  path_row_ = build_file_row("Source", path_, path_button_);
  path_title_ = path_row_->findChild<QLabel*>();
  tokenizer_row_ = build_file_row("Tokenizer", tokenizer_, tokenizer_button_);
  column_->addWidget(form_row("Data", {kind_}));
  column_->addWidget(description_);
  column_->addWidget(path_row_);
  column_->addWidget(tokenizer_row_);
  column_->addWidget(numbers_);
  column_->addWidget(build_vocabulary_row());
}

QWidget* DataForm::build_file_row(const QString& title, QLineEdit*& line, QToolButton*& button) {
  line = new PathEdit(this);
  line->setAccessibleName(title);
  button = new QToolButton(this);
  button->setText("...");
  button->setFixedWidth(28);
  button->setAccessibleName("Choose: " + title);
  QWidget* row = form_row(title, {line});
  row->layout()->addWidget(button);
  return row;
}

QWidget* DataForm::build_vocabulary_row() {
  vocab_box_ = new IntegerBox(1, largest_vocab, "Vocabulary V: token ids are below it", this);
  share_ = new RealEdit("Validation share", this);
  share_->setPlaceholderText("0.1");
  share_->setToolTip("Share of the data, at their end, that is validated on and never trained on");
  QWidget* row = form_row("", {vocab_box_, share_}, ",");
  const QList<QLabel*> labels = row->findChildren<QLabel*>();
  vocab_title_ = labels.first();
  between_ = labels.last();
  return row;
}

void DataForm::connect_fields() {
  connect(kind_, &QComboBox::activated, this, &DataForm::choose_kind);
  connect(path_, &QLineEdit::textEdited, this, &DataForm::set_path);
  connect(tokenizer_, &QLineEdit::textEdited, this, &DataForm::set_tokenizer);
  connect(path_button_, &QToolButton::clicked, this, &DataForm::ask_data);
  connect(tokenizer_button_, &QToolButton::clicked, this,
          [this] { ask_file(tokenizer_title, false, &DataForm::set_tokenizer); });
  connect(vocab_box_, &IntegerBox::value_changed, this, [this](qlonglong value) {
    vocab_ = value;
    emit changed();
  });
  connect(share_, &RealEdit::value_changed, this, [this](double value) {
    data_.validation_fraction = value;
    emit changed();
  });
  connect(share_, &RealEdit::refused, this, &DataForm::changed);
}

const DataKind* DataForm::kind() const {
  for (const DataKind& kind : kinds_)
    if (kind.name == data_.kind) return &kind;
  return nullptr;
}

void DataForm::set(const DataConfig& data, int64_t vocab) {
  data_ = data;
  vocab_ = vocab;
  left_.clear();
  show_all();
}

void DataForm::choose_kind(int index) {
  const DataKind& chosen = kinds_[static_cast<std::size_t>(index)];
  if (chosen.name == data_.kind) return;
  left_[data_.kind] = {data_, vocab_};
  DataConfig fresh;
  fresh.kind = chosen.name;
  const auto before = left_.find(fresh.kind);
  data_ = before == left_.end() ? fresh : before->second.data;
  vocab_ = before == left_.end() ? chosen.vocab : before->second.vocab;
  show_all();
  emit changed();
}

void DataForm::show_all() {
  const DataKind* now = kind();
  if (!now) return;  // only a spec that is refused elsewhere has no kind
  kind_->setCurrentIndex(static_cast<int>(now - kinds_.data()));
  kind_->setToolTip(text_of(now->description));
  description_->setText(text_of(now->description));
  description_->setVisible(now->files == DataFiles::none);  // what a file is, its row says
  fields_ = {{"data.kind", kind_}, {"model.vocab", vocab_box_}};
  show_paths(*now);
  show_numbers(*now);
  vocab_box_->set_value(vocab_);
  share_->set_value(data_.validation_fraction);
}

void DataForm::show_paths(const DataKind& kind) {
  const bool reads = kind.files != DataFiles::none, text = kind.files == DataFiles::text;
  for (QWidget* widget : {path_row_, static_cast<QWidget*>(share_), static_cast<QWidget*>(between_)})
    widget->setVisible(reads);
  // Text is bytes most of the time: its tokenizer is one of the choices behind "...", and a row once there is one.
  tokenizer_row_->setVisible(kind.files == DataFiles::tokens || (text && !data_.tokenizer.empty()));
  vocab_title_->setText(reads ? "V, validation" : "Vocabulary V");
  if (!reads) return;
  path_title_->setText(text ? "Source" : "File");
  path_->setPlaceholderText(text ? "own source" : "uint16 ids");
  tokenizer_->setPlaceholderText("none");
  const auto show = [](QLineEdit* line, const std::string& path) {
    const QString shown = QString::fromStdString(path);
    if (line->text() != shown) line->setText(shown);
    line->setToolTip(shown);
  };
  show(path_, data_.path);
  show(tokenizer_, data_.tokenizer);
  if (data_.tokenizer.empty())
    tokenizer_->setToolTip("A SentencePiece model (.model), whose pieces are the vocabulary; none: ids are numbers");
  fields_.insert({{"data.path", path_}, {"data.tokenizer", tokenizer_}, {"data.validation_fraction", share_}});
}

// Two numbers a row, made anew for every kind.
void DataForm::show_numbers(const DataKind& kind) {
  QWidget* const before = numbers_;
  numbers_ = new QWidget(this);
  auto* rows = new QVBoxLayout(numbers_);
  rows->setContentsMargins(0, 0, 0, 0);
  rows->setSpacing(3);
  for (std::size_t i = 0; i < kind.numbers.size(); i += 2) {
    QStringList titles;
    std::vector<QWidget*> boxes;
    for (std::size_t j = i; j < std::min(i + 2, kind.numbers.size()); ++j) {
      const DataNumber& number = kind.numbers[j];
      auto* box = new IntegerBox(number.low, number.high, text_of(number.meaning), numbers_);
      box->set_lowest_text(text_of(number.lowest));
      box->set_value(data_.*number.value);
      connect(box, &IntegerBox::value_changed, this, [this, value = number.value](qlonglong typed) {
        data_.*value = typed;
        emit changed();
      });
      titles << (titles.isEmpty() ? text_of(number.title) : text_of(number.title).toLower());
      boxes.push_back(box);
      fields_[std::string(number.key)] = box;
    }
    rows->addWidget(form_row(titles.join(", "), boxes, ","));
  }
  delete column_->replaceWidget(before, numbers_);
  delete before;
  numbers_->setVisible(!kind.numbers.empty());
}

void DataForm::set_path(const QString& path) {
  data_.path = absolute(path);
  path_->setToolTip(QString::fromStdString(data_.path));
  emit changed();
}

// The vocabulary follows the tokenizer, as with `rat train --tokenizer`.
void DataForm::set_tokenizer(const QString& path) {
  data_.tokenizer = absolute(path);
  tokenizer_->setToolTip(QString::fromStdString(data_.tokenizer));
  if (path.isEmpty()) {
    if (const DataKind* now = kind(); now && now->files == DataFiles::text) vocab_ = now->vocab;
  } else if (QFileInfo(QString::fromStdString(data_.tokenizer)).isFile()) {
    if (const auto opened = open_sentencepiece(data_.tokenizer)) vocab_ = (*opened)->vocab();
  }
  vocab_box_->set_value(vocab_);
  emit changed();
}

void DataForm::ask_data() {
  const DataKind* now = kind();
  if (!now || now->files == DataFiles::tokens) return ask_file("Token file to train on", false, &DataForm::set_path);
  auto* menu = new QMenu(this);
  menu->setAttribute(Qt::WA_DeleteOnClose);
  menu->addAction("Text file...", this, [this] { ask_file("Text to train on", false, &DataForm::set_path); });
  menu->addAction("Folder...", this, [this] { ask_file("Folder of text to train on", true, &DataForm::set_path); });
  menu->addAction("Own source", this, [this] {
    set_path("");
    show_all();
  });
  menu->addSeparator();
  menu->addAction("Tokenizer...", this, [this] { ask_file(tokenizer_title, false, &DataForm::set_tokenizer); });
  menu->popup(path_button_->mapToGlobal(QPoint(0, path_button_->height())));
}

void DataForm::ask_file(const QString& title, bool folder, void (DataForm::*take)(const QString&)) {
  auto* dialog = new QFileDialog(this, title);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setFileMode(folder ? QFileDialog::Directory : QFileDialog::ExistingFile);
  connect(dialog, &QFileDialog::fileSelected, this, [this, take](const QString& path) {
    (this->*take)(path);
    show_all();
  });
  dialog->open();
}

std::vector<SpecProblem> DataForm::problems() const {
  std::vector<SpecProblem> found;
  const auto look = [&](const char* key, std::string message) {
    if (!message.empty()) found.push_back({key, std::move(message)});
  };
  const DataKind* now = kind();
  if (!now || now->files == DataFiles::none) return found;
  look("data.validation_fraction", share_->problem().toStdString());
  look("data.path", path_problem());
  look("data.tokenizer", tokenizer_problem());
  return found;
}

std::string DataForm::path_problem() const {
  if (data_.path.empty()) return "";  // the own source, or refused by the spec's own check
  const bool text = kind()->files == DataFiles::text;
  if (data_.path == standard_input)
    return text ? "The text was the standard input of a command, which a window has not; choose a file." : "";
  const QFileInfo info(QString::fromStdString(data_.path));
  if (!info.exists()) return fmt::format("There is no {} {}.", text ? "file or folder" : "file", data_.path);
  if (!text && !info.isFile()) return fmt::format("{} is not a file; a token file is one.", data_.path);
  if (!info.isReadable()) return fmt::format("{} cannot be read; look at its permissions.", data_.path);
  return "";
}

// Opens the tokenizer's file, so only when something about it is new.
const std::string& DataForm::tokenizer_problem() const {
  const QString path = QString::fromStdString(data_.tokenizer);
  const QString made_of =
      QString("%1|%2|%3").arg(path).arg(QFileInfo(path).lastModified().toMSecsSinceEpoch()).arg(vocab_);
  if (tokenizer_check_.made_of == made_of) return tokenizer_check_.problem;
  ModelConfig model;
  model.vocab = vocab_;
  const auto opened = tokenizer_of(data_, model);
  tokenizer_check_ = {made_of, opened ? "" : opened.error().message};
  return tokenizer_check_.problem;
}

}  // namespace rat::app
