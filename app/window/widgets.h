// Small pieces that the panels share: headings, hairlines, numbers with digits of equal width.
#pragma once

#include <QComboBox>
#include <QFrame>
#include <QLabel>
#include <QLineEdit>
#include <QStyledItemDelegate>
#include <QToolButton>
#include <vector>

class QVBoxLayout;

namespace rat::app {

QLabel* heading(const QString& text, QWidget* parent = nullptr);
QLabel* label(const QString& text, const char* role, QWidget* parent = nullptr);
void set_role(QWidget* widget, const char* role);  // a style-sheet role that may change while shown
QFrame* hairline(QWidget* parent = nullptr);
// A row of a form: its title, then the fields with equal shares of the width, `between` standing between them.
QWidget* form_row(const QString& title, const std::vector<QWidget*>& fields, const QString& between = {});

// Every digit takes the width of the widest one, so that numbers align and nothing jumps when they change.
int tabular_width(const QFontMetrics& metrics, const QString& text);
void draw_tabular(QPainter& painter, const QRectF& rect, Qt::Alignment alignment, const QString& text);

// A label for numbers. Its width never shrinks while shown unless `fit` is set.
class NumberLabel : public QWidget {
 public:
  explicit NumberLabel(Qt::Alignment alignment = Qt::AlignRight, QWidget* parent = nullptr);
  void set_text(const QString& text);
  void set_color_role(const char* role) {
    role_ = role;
    update();
  }  // "", "secondary", "ok", "warning"
  void set_bold(bool bold);
  const QString& text() const { return text_; }
  QSize sizeHint() const override;
  QSize minimumSizeHint() const override { return sizeHint(); }

 protected:
  void paintEvent(QPaintEvent* event) override;

 private:
  Qt::Alignment alignment_;
  QString text_, role_;
};

// A line for a path: while it is not edited its end is shown, the beginning elided.
class PathEdit : public QLineEdit {
 public:
  using QLineEdit::QLineEdit;

 protected:
  void paintEvent(QPaintEvent* event) override;
};

// A list whose choice ends in an ellipsis where it does not fit; plain ones cut it without a trace.
class ElidedComboBox : public QComboBox {
 public:
  using QComboBox::QComboBox;

 protected:
  void paintEvent(QPaintEvent* event) override;
};

// Numbers of a table: right-aligned cells are drawn with digits of equal width.
class TabularDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override;
};

// One sentence across the window that waits for nobody; the newest error wins.
class Banner : public QFrame {
  Q_OBJECT

 public:
  explicit Banner(QWidget* parent = nullptr);
  void show_error(const QString& sentence);
  QString sentence() const { return text_->text(); }

 private:
  QLabel* text_;
};

}  // namespace rat::app
