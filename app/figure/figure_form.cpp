#include "app/figure/figure_form.h"

#include <QFormLayout>
#include <QHBoxLayout>
#include <cmath>

#include "experiments/statistics.h"
#include "views/plots/exporters.h"
#include "views/plots/venues.h"

namespace rat::app {
namespace {

// Even steps of the slider are even steps of log(1 - s).
int slider_of(double smoothing) { return static_cast<int>(std::lround(-100 * std::log10(1 - smoothing))); }

}  // namespace

FigureForm::FigureForm(const Recipe& recipe, QWidget* parent) : QWidget(parent), recipe_(recipe) {
  auto* form = new QFormLayout(this);
  form->setContentsMargins(0, 0, 0, 0);
  form->setHorizontalSpacing(12);
  form->setVerticalSpacing(6);
  form->setFieldGrowthPolicy(QFormLayout::AllNonFixedFieldsGrow);
  add_paper(*form);
  if (draws_map())
    add_map(*form);
  else
    add_axes(*form);
  if (recipe_.kind == FigureKind::curves) add_curves(*form);
}

void FigureForm::add_paper(QFormLayout& form) {
  venue_ = new QComboBox(this);
  for (const Venue& venue : venues())
    venue_->addItem(QString::fromUtf8(venue.name.data(), static_cast<qsizetype>(venue.name.size())),
                    QString::fromUtf8(venue.id.data(), static_cast<qsizetype>(venue.id.size())));
  venue_->setCurrentIndex(venue_->findData(QString::fromStdString(recipe_.venue)));
  width_ = new QComboBox(this);
  width_->addItems({"one column", "full width"});
  width_->setCurrentIndex(recipe_.full_width ? 1 : 0);
  height_ = new QDoubleSpinBox(this);
  height_->setRange(0, 12);
  height_->setSingleStep(0.1);
  height_->setSuffix(" in");
  height_->setSpecialValueText("golden ratio");
  height_->setValue(recipe_.height_in);
  legend_ = new QComboBox(this);
  legend_->addItems({"inside", "below", "none"});
  legend_->setCurrentText(QString::fromStdString(recipe_.legend));
  form.addRow("Venue", venue_);
  form.addRow("Width", width_);
  form.addRow("Height", height_);
  if (!draws_map() && recipe_.kind != FigureKind::throughput)
    form.addRow("Legend", legend_);
  else
    legend_->hide();
  for (QComboBox* box : {venue_, width_, legend_})
    connect(box, &QComboBox::currentIndexChanged, this, &FigureForm::changed);
  connect(height_, &QDoubleSpinBox::valueChanged, this, &FigureForm::changed);
}

FigureForm::AxisRow FigureForm::add_axis(QFormLayout& form, const QString& name, const Axis& axis) {
  AxisRow row{new QLineEdit(this), new QLineEdit(this), new QComboBox(this)};
  row.scale->addItems({"linear", "log 10", "log 2", "symlog"});
  row.scale->setCurrentIndex(static_cast<int>(axis.scale));
  row.low->setPlaceholderText("from");
  row.high->setPlaceholderText("to");
  row.low->setAccessibleName(name + " from");
  row.high->setAccessibleName(name + " to");
  if (axis.limits)
    row.low->setText(QString::number(axis.limits->first, 'g', 5)),
        row.high->setText(QString::number(axis.limits->second, 'g', 5));
  auto* line = new QHBoxLayout;
  line->setSpacing(4);
  line->addWidget(row.scale);
  line->addWidget(row.low);
  line->addWidget(row.high);
  form.addRow(name, line);
  connect(row.scale, &QComboBox::currentIndexChanged, this, &FigureForm::changed);
  for (QLineEdit* edit : {row.low, row.high}) connect(edit, &QLineEdit::textChanged, this, &FigureForm::changed);
  return row;
}

void FigureForm::add_axes(QFormLayout& form) {
  x_ = add_axis(form, "x axis", recipe_.x);
  if (recipe_.kind != FigureKind::throughput) y_ = add_axis(form, "y axis", recipe_.y);
}

void FigureForm::add_curves(QFormLayout& form) {
  smoothing_ = new QSlider(Qt::Horizontal, this);
  smoothing_->setRange(0, 300);
  smoothing_->setValue(slider_of(recipe_.smoothing));
  smoothing_text_ = new QLabel(this);
  raw_ = new QCheckBox("unsmoothed values, faint", this);
  raw_->setChecked(recipe_.show_raw);
  seeds_ = new QCheckBox("mean and deviation over seeds", this);
  seeds_->setChecked(recipe_.collapse_seeds);
  form.addRow("Smoothing", smoothing_);
  form.addRow("", smoothing_text_);
  form.addRow("", raw_);
  form.addRow("", seeds_);
  const auto say = [this] {
    const double s = recipe() ? recipe()->smoothing : 0;
    smoothing_text_->setText(
        s > 0 ? QString("s = %1, half-life %2 points").arg(s, 0, 'g', 3).arg(smoothing_half_life(s), 0, 'g', 3)
              : "off");
  };
  say();
  connect(smoothing_, &QSlider::valueChanged, this, [this, say] {
    say();
    emit changed();
  });
  for (QCheckBox* box : {raw_, seeds_}) connect(box, &QCheckBox::toggled, this, &FigureForm::changed);
}

void FigureForm::add_map(QFormLayout& form) {
  map_ = new QComboBox(this);
  for (const ColorMap map : {ColorMap::viridis, ColorMap::cividis, ColorMap::magma, ColorMap::diverging})
    map_->addItem(QString::fromUtf8(color_map_name(map).data(), static_cast<qsizetype>(color_map_name(map).size())));
  map_->setCurrentIndex(static_cast<int>(recipe_.color_map));
  color_scale_ = new QComboBox(this);
  color_scale_->setAccessibleName("colour scale");
  color_scale_->addItems({"linear", "logarithmic", "gamma (square root)"});
  color_scale_->setCurrentIndex(recipe_.log_color ? 1 : recipe_.gamma_color ? 2 : 0);
  form.addRow("Colours", map_);
  form.addRow("Scale", color_scale_);
  connect(map_, &QComboBox::currentIndexChanged, this, &FigureForm::changed);
  connect(color_scale_, &QComboBox::currentIndexChanged, this, &FigureForm::changed);
}

Result<Axis> FigureForm::read_axis(const char* name, const AxisRow& row, const Axis& from) const {
  Axis axis = from;
  if (!row.scale) return axis;
  axis.scale = static_cast<Scale>(row.scale->currentIndex());
  axis.limits.reset();
  const QString low = row.low->text().trimmed(), high = row.high->text().trimmed();
  if (low.isEmpty() && high.isEmpty()) return axis;
  bool low_ok = false, high_ok = false;
  const double from_value = low.toDouble(&low_ok), to_value = high.toDouble(&high_ok);
  if (!low_ok || !high_ok || !(from_value < to_value))
    return fail(ErrorCode::invalid_argument,
                "The {} goes from '{}' to '{}'; type two numbers, the smaller first, or leave both empty.", name,
                low.toStdString(), high.toStdString());
  if ((axis.scale == Scale::log10 || axis.scale == Scale::log2) && !(from_value > 0))
    return fail(ErrorCode::invalid_argument,
                "The {} starts at {}, which a logarithmic axis cannot show; type a positive number.", name, from_value);
  axis.limits = {from_value, to_value};
  return axis;
}

Result<Recipe> FigureForm::recipe() const {
  Recipe recipe = recipe_;
  recipe.venue = venue_->currentData().toString().toStdString();
  recipe.full_width = width_->currentIndex() == 1;
  recipe.height_in = height_->value();
  recipe.legend = legend_->currentText().toStdString();
  RAT_ASSIGN(recipe.x, read_axis("x axis", x_, recipe.x));
  RAT_ASSIGN(recipe.y, read_axis("y axis", y_, recipe.y));
  // Slider steps are not exact: an untouched slider keeps the recipe's own value.
  if (smoothing_ && smoothing_->value() != slider_of(recipe_.smoothing))
    recipe.smoothing = std::min(0.999, 1 - std::pow(10, -smoothing_->value() / 100.0));
  if (raw_) recipe.show_raw = raw_->isChecked(), recipe.collapse_seeds = seeds_->isChecked();
  if (map_) {
    recipe.color_map = static_cast<ColorMap>(map_->currentIndex());
    recipe.log_color = color_scale_->currentIndex() == 1, recipe.gamma_color = color_scale_->currentIndex() == 2;
  }
  RAT_TRY(figure_size(recipe));
  return recipe;
}

}  // namespace rat::app
