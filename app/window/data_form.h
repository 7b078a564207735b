// What a run is trained on: the kind of data, its file or its numbers, the vocabulary. The kinds and their numbers are
// those of the list it is given, so a new one needs nothing here.
#pragma once

#include <QWidget>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "experiments/data/data_kinds.h"
#include "experiments/run_spec.h"

class QComboBox;
class QFileDialog;
class QLabel;
class QLineEdit;
class QToolButton;
class QVBoxLayout;

namespace rat::app {

class IntegerBox;
class RealEdit;

class DataForm : public QWidget {
  Q_OBJECT

 public:
  explicit DataForm(std::span<const DataKind> kinds, QWidget* parent = nullptr);

  void set(const DataConfig& data, int64_t vocab);  // quiet
  const DataConfig& data() const { return data_; }
  int64_t vocab() const { return vocab_; }
  // What the spec alone does not show: what the disk says of its files, and what is typed but no number.
  std::vector<SpecProblem> problems() const;
  // The fields in use, by key of the run spec.
  const std::map<std::string, QWidget*>& fields() const { return fields_; }

 signals:
  void changed();

 private:
  void build();
  QWidget* build_file_row(const QString& title, QLineEdit*& line, QToolButton*& button);
  QWidget* build_vocabulary_row();
  void connect_fields();
  const DataKind* kind() const;  // of data_; null: not in the list
  void choose_kind(int index);
  void show_all();
  void show_numbers(const DataKind& kind);
  void show_paths(const DataKind& kind);
  void set_path(const QString& path);
  void set_tokenizer(const QString& path);
  void ask_data();
  void ask_file(const QString& title, bool folder, void (DataForm::*take)(const QString&));
  std::string path_problem() const;
  const std::string& tokenizer_problem() const;

  std::span<const DataKind> kinds_;
  DataConfig data_;
  int64_t vocab_ = 256;
  struct Choice {
    DataConfig data;
    int64_t vocab;
  };
  std::map<std::string, Choice> left_;  // what a kind was set to when another one was chosen
  struct TokenizerCheck {
    QString made_of;  // file, its time, vocabulary
    std::string problem;
  };
  mutable TokenizerCheck tokenizer_check_;

  QVBoxLayout* column_;
  QComboBox* kind_;
  QLabel *description_, *path_title_, *vocab_title_, *between_;
  QWidget *numbers_, *path_row_, *tokenizer_row_;
  QLineEdit *path_, *tokenizer_;
  QToolButton *path_button_, *tokenizer_button_;
  IntegerBox* vocab_box_;
  RealEdit* share_;
  std::map<std::string, QWidget*> fields_;
};

}  // namespace rat::app
