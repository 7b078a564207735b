#include "app/window/number_fields.h"

#include <QLocale>
#include <QSignalBlocker>
#include <algorithm>
#include <optional>

namespace rat::app {

IntegerBox::IntegerBox(int64_t low, int64_t high, const QString& name, QWidget* parent)
    : QAbstractSpinBox(parent), low_(low), high_(high), value_(low) {
  setAccessibleName(name);
  setToolTip(name);
  setButtonSymbols(NoButtons);
  setMinimumWidth(48);
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
  set_value(low);
  connect(lineEdit(), &QLineEdit::textEdited, this, &IntegerBox::take);
  connect(this, &QAbstractSpinBox::editingFinished, this, [this] { set_value(value_); });
}

void IntegerBox::set_value(int64_t value) {
  value_ = value;
  const QSignalBlocker quiet(lineEdit());
  lineEdit()->setText(text_of(value));
}

void IntegerBox::set_lowest_text(const QString& text) {
  lowest_text_ = text;
  set_value(value_);
}

QString IntegerBox::text_of(int64_t value) const {
  if (value == low_ && !lowest_text_.isEmpty()) return lowest_text_;
  return QLocale(QLocale::English).toString(static_cast<qlonglong>(value));
}

std::optional<int64_t> IntegerBox::value_of(const QString& text) const {
  if (!lowest_text_.isEmpty() && text.trimmed() == lowest_text_) return low_;
  QString digits = text;
  digits.remove(',').remove(' ');
  bool is_number = false;
  const qlonglong value = digits.toLongLong(&is_number);
  return is_number ? std::optional<int64_t>(value) : std::nullopt;
}

QValidator::State IntegerBox::validate(QString& text, int&) const {
  const std::optional<int64_t> value = value_of(text);
  if (value && *value >= low_ && *value <= high_) return QValidator::Acceptable;
  if (value) return *value > high_ ? QValidator::Invalid : QValidator::Intermediate;
  const bool begun = std::all_of(text.begin(), text.end(), [](QChar c) { return c == ',' || c == ' '; });
  return begun || lowest_text_.contains(text) ? QValidator::Intermediate : QValidator::Invalid;
}

void IntegerBox::fixup(QString& text) const { text = text_of(value_); }

void IntegerBox::take(const QString& text) {
  const std::optional<int64_t> value = value_of(text);
  if (!value || *value < low_ || *value > high_ || *value == value_) return;
  value_ = *value;
  emit value_changed(value_);
}

void IntegerBox::stepBy(int steps) {
  const int64_t room = steps > 0 ? high_ - std::min(value_, high_) : std::max(value_, low_) - low_;
  const int64_t change = std::min<int64_t>(std::abs(static_cast<int64_t>(steps)), room);
  const int64_t next = std::clamp(value_, low_, high_) + (steps > 0 ? change : -change);
  if (next == value_) return;
  set_value(next);
  selectAll();
  emit value_changed(value_);
}

QAbstractSpinBox::StepEnabled IntegerBox::stepEnabled() const {
  return (value_ < high_ ? StepUpEnabled : StepNone) | (value_ > low_ ? StepDownEnabled : StepNone);
}

// As people write it, 0.0008, while six digits say it all; QLocale::FloatingPointShortest would say 8e-04.
QString shortest_text(double value) {
  constexpr int usual = 6, enough = 17;  // digits
  for (int digits = usual; digits < enough; ++digits)
    if (const QString text = QString::number(value, 'g', digits); text.toDouble() == value) return text;
  return QString::number(value, 'g', enough);
}

RealEdit::RealEdit(const QString& name, QWidget* parent) : QLineEdit(parent) {
  setAccessibleName(name);
  setToolTip(name);
  connect(this, &QLineEdit::textEdited, this, &RealEdit::take);
}

void RealEdit::set_value(double value) {
  problem_.clear();
  setText(shortest_text(value));
}

void RealEdit::take(const QString& text) {
  bool is_number = false;
  const double value = text.toDouble(&is_number);
  problem_ = is_number ? QString()
                       : QString("%1 \"%2\" is not a number; write it like %3.")
                             .arg(accessibleName(), text, placeholderText().isEmpty() ? "8e-4" : placeholderText());
  if (is_number)
    emit value_changed(value);
  else
    emit refused();
}

}  // namespace rat::app
