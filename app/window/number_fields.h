// Fields for numbers that hold every value a run spec can: what they show is what the spec has, to the last digit.
#pragma once

#include <QAbstractSpinBox>
#include <QLineEdit>
#include <cstdint>
#include <optional>

namespace rat::app {

// A whole number of 64 bits with its digits in groups; QSpinBox holds 32 and cuts what is larger.
class IntegerBox : public QAbstractSpinBox {
  Q_OBJECT

 public:
  IntegerBox(int64_t low, int64_t high, const QString& name, QWidget* parent = nullptr);

  int64_t value() const { return value_; }
  void set_value(int64_t value);  // quiet; a value outside the range is shown as it is
  void set_lowest_text(const QString& text);  // shown for the lowest value, instead of its digits
  int64_t low() const { return low_; }
  int64_t high() const { return high_; }
  void stepBy(int steps) override;

 signals:
  void value_changed(qlonglong value);  // by the user

 protected:
  StepEnabled stepEnabled() const override;
  QValidator::State validate(QString& text, int& cursor) const override;
  void fixup(QString& text) const override;

 private:
  QString text_of(int64_t value) const;
  std::optional<int64_t> value_of(const QString& text) const;
  void take(const QString& text);

  int64_t low_, high_, value_;
  QString lowest_text_;
};

// The shortest text that reads back as `value`.
QString shortest_text(double value);
// A line for a real number, in C notation; problem() says what is wrong with what is typed.
class RealEdit : public QLineEdit {
  Q_OBJECT

 public:
  RealEdit(const QString& name, QWidget* parent = nullptr);
  void set_value(double value);  // quiet
  const QString& problem() const { return problem_; }  // one sentence; empty: it is a number

 signals:
  void value_changed(double value);  // by the user, to a number
  void refused();                    // by the user, to something else

 private:
  void take(const QString& text);

  QString problem_;
};

}  // namespace rat::app
