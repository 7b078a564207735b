// The settings of a figure as a form. It edits a recipe and knows nothing of drawing or files.
#pragma once

#include <QCheckBox>
#include <QComboBox>
#include <QDoubleSpinBox>
#include <QLabel>
#include <QLineEdit>
#include <QSlider>
#include <QWidget>

#include "views/plots/recipe.h"

class QFormLayout;

namespace rat::app {

class FigureForm : public QWidget {
  Q_OBJECT

 public:
  explicit FigureForm(const Recipe& recipe, QWidget* parent = nullptr);
  // The recipe with the form's settings; an error names a limit that is not a number.
  Result<Recipe> recipe() const;

 signals:
  void changed();

 private:
  struct AxisRow {
    QLineEdit *low, *high;
    QComboBox* scale;
  };
  void add_paper(QFormLayout& form);
  void add_axes(QFormLayout& form);
  void add_curves(QFormLayout& form);
  void add_map(QFormLayout& form);
  AxisRow add_axis(QFormLayout& form, const QString& name, const Axis& axis);
  Result<Axis> read_axis(const char* name, const AxisRow& row, const Axis& from) const;
  bool draws_map() const { return recipe_.kind == FigureKind::attention || recipe_.kind == FigureKind::states; }

  Recipe recipe_;
  QComboBox *venue_, *width_, *legend_;
  QDoubleSpinBox* height_;
  AxisRow x_{}, y_{};
  QSlider* smoothing_ = nullptr;
  QLabel* smoothing_text_ = nullptr;
  QCheckBox *raw_ = nullptr, *seeds_ = nullptr;
  QComboBox *map_ = nullptr, *color_scale_ = nullptr;
};

}  // namespace rat::app
