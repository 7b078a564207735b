#include "app/window/widgets.h"

#include <QApplication>
#include <QHBoxLayout>
#include <QPainter>
#include <QStyle>
#include <QStyleOption>
#include <QStylePainter>
#include <cmath>

#include "app/window/fonts.h"
#include "app/window/theme_qt.h"

namespace rat::app {
namespace {

constexpr int form_title_width = 92;

double digit_width(const QFontMetricsF& metrics) {
  double widest = 0;
  for (char16_t c = u'0'; c <= u'9'; ++c) widest = std::max(widest, metrics.horizontalAdvance(QChar(c)));
  return widest;
}

double width_of(const QFontMetricsF& metrics, const QString& text) {
  const double digit = digit_width(metrics);
  double width = 0;
  for (const QChar c : text) width += c.isDigit() ? digit : metrics.horizontalAdvance(c);
  return width;
}

}  // namespace

QLabel* heading(const QString& text, QWidget* parent) {
  auto* made = label(text, "heading", parent);
  made->setFont(heading_font());
  return made;
}

QLabel* label(const QString& text, const char* role, QWidget* parent) {
  auto* made = new QLabel(text, parent);
  made->setProperty("role", role);
  return made;
}

void set_role(QWidget* widget, const char* role) {
  if (widget->property("role").toString() == role) return;
  widget->setProperty("role", role);
  widget->style()->unpolish(widget);
  widget->style()->polish(widget);
}

QFrame* hairline(QWidget* parent) {
  auto* line = new QFrame(parent);
  line->setProperty("role", "hairline");
  return line;
}

QWidget* form_row(const QString& title, const std::vector<QWidget*>& fields, const QString& between) {
  auto* row = new QWidget;
  auto* line = new QHBoxLayout(row);
  line->setContentsMargins(0, 0, 0, 0);
  line->setSpacing(6);
  auto* name = label(title, "secondary", row);
  name->setFixedWidth(form_title_width);
  line->addWidget(name);
  for (QWidget* field : fields) {
    if (field != fields.front() && !between.isEmpty()) line->addWidget(label(between, "secondary", row));
    line->addWidget(field, 1);
  }
  return row;
}

int tabular_width(const QFontMetrics& metrics, const QString& text) {
  return static_cast<int>(std::ceil(width_of(QFontMetricsF(metrics), text)));
}

void draw_tabular(QPainter& painter, const QRectF& rect, Qt::Alignment alignment, const QString& text) {
  const QFontMetricsF metrics(painter.font(), painter.device());
  const double digit = digit_width(metrics), width = width_of(metrics, text);
  double x = rect.left();
  if (alignment & Qt::AlignRight) x = rect.right() - width;
  if (alignment & Qt::AlignHCenter) x = rect.center().x() - width / 2;
  const double baseline = rect.center().y() + (metrics.ascent() - metrics.descent()) / 2;
  // Runs of other characters are drawn whole (kerning, surrogates); digits each in their own cell.
  for (qsizetype i = 0; i < text.size();) {
    if (text[i].isDigit()) {
      const double own = metrics.horizontalAdvance(text[i]);
      painter.drawText(QPointF(x + (digit - own) / 2, baseline), QString(text[i++]));
      x += digit;
      continue;
    }
    qsizetype end = i;
    while (end < text.size() && !text[end].isDigit()) ++end;
    painter.drawText(QPointF(x, baseline), text.mid(i, end - i));
    for (; i < end; ++i) x += metrics.horizontalAdvance(text[i]);
  }
}

NumberLabel::NumberLabel(Qt::Alignment alignment, QWidget* parent) : QWidget(parent), alignment_(alignment) {
  setSizePolicy(QSizePolicy::Minimum, QSizePolicy::Fixed);
}

void NumberLabel::set_text(const QString& text) {
  if (text == text_) return;
  const QSize before = sizeHint();
  text_ = text;
  setAccessibleName(text);
  if (sizeHint() != before) updateGeometry();
  update();
}

void NumberLabel::set_bold(bool bold) { setFont(ui_font(bold ? QFont::DemiBold : QFont::Normal)); }

QSize NumberLabel::sizeHint() const { return {tabular_width(fontMetrics(), text_) + 2, fontMetrics().height() + 4}; }

void NumberLabel::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const Theme& theme = current_theme();
  QColor color = to_qt(theme.text);
  if (role_ == "secondary") color = to_qt(theme.secondary);
  if (role_ == "ok") color = to_qt(theme.ok);
  if (role_ == "warning") color = to_qt(theme.warning);
  painter.setPen(color);
  painter.setFont(font());
  draw_tabular(painter, rect(), alignment_, text_);
}

void PathEdit::paintEvent(QPaintEvent* event) {
  QStyleOptionFrame option;
  initStyleOption(&option);
  const QRect inside = style()->subElementRect(QStyle::SE_LineEditContents, &option, this).adjusted(2, 0, -2, 0);
  if (hasFocus() || fontMetrics().horizontalAdvance(text()) <= inside.width()) {
    QLineEdit::paintEvent(event);
    return;
  }
  QPainter painter(this);
  style()->drawPrimitive(QStyle::PE_PanelLineEdit, &option, &painter, this);
  painter.setPen(palette().color(QPalette::Text));
  painter.drawText(inside, Qt::AlignVCenter | Qt::AlignLeft,
                   fontMetrics().elidedText(text(), Qt::ElideLeft, inside.width()));
}

void ElidedComboBox::paintEvent(QPaintEvent*) {
  QStylePainter painter(this);
  QStyleOptionComboBox option;
  initStyleOption(&option);
  painter.drawComplexControl(QStyle::CC_ComboBox, option);
  const QRect inside = style()->subControlRect(QStyle::CC_ComboBox, &option, QStyle::SC_ComboBoxEditField, this);
  option.currentText = fontMetrics().elidedText(option.currentText, Qt::ElideRight, inside.width() - 2);
  painter.drawControl(QStyle::CE_ComboBoxLabel, option);
}

void TabularDelegate::paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const {
  QStyleOptionViewItem item = option;
  initStyleOption(&item, index);
  if (!(item.displayAlignment & Qt::AlignRight)) {
    QStyledItemDelegate::paint(painter, option, index);
    return;
  }
  const QString text = std::exchange(item.text, QString());
  const QStyle* style = item.widget ? item.widget->style() : QApplication::style();
  style->drawControl(QStyle::CE_ItemViewItem, &item, painter, item.widget);
  painter->save();
  painter->setFont(item.font);
  const bool enabled = item.state & QStyle::State_Enabled;
  painter->setPen(item.palette.color(enabled ? QPalette::Normal : QPalette::Disabled, QPalette::Text));
  draw_tabular(*painter, QRectF(item.rect).adjusted(8, 0, -10, 0), Qt::AlignRight, text);
  painter->restore();
}

Banner::Banner(QWidget* parent) : QFrame(parent), text_(new QLabel(this)) {
  setProperty("role", "banner");
  auto* row = new QHBoxLayout(this);
  row->setContentsMargins(12, 6, 6, 6);
  text_->setWordWrap(true);
  text_->setTextInteractionFlags(Qt::TextSelectableByMouse);
  auto* close = new QToolButton(this);
  close->setText("Dismiss");
  connect(close, &QToolButton::clicked, this, &QWidget::hide);
  row->addWidget(text_, 1);
  row->addWidget(close);
  hide();
}

void Banner::show_error(const QString& sentence) {
  text_->setText(sentence);
  show();
}

}  // namespace rat::app
