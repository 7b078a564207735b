#include "app/window/palette.h"

#include <QAction>
#include <QHeaderView>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QPainter>
#include <QTreeWidget>
#include <QVBoxLayout>
#include <algorithm>

#include "app/window/actions.h"
#include "app/window/fonts.h"
#include "app/window/theme_qt.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {

constexpr int palette_width = 560, palette_height = 420, recent_kept = 8, recent_bonus = 3;
constexpr int keys_role = Qt::UserRole + 1, menu_role = Qt::UserRole + 2;

// Text left, menu in secondary, keys right.
class ActionDelegate : public QStyledItemDelegate {
 public:
  using QStyledItemDelegate::QStyledItemDelegate;
  QSize sizeHint(const QStyleOptionViewItem&, const QModelIndex&) const override { return {100, 30}; }
  void paint(QPainter* painter, const QStyleOptionViewItem& option, const QModelIndex& index) const override {
    const Theme& theme = current_theme();
    painter->save();
    if (option.state & QStyle::State_Selected)
      painter->fillRect(option.rect, option.palette.color(QPalette::Highlight));
    const QRect inner = option.rect.adjusted(12, 0, -12, 0);
    const bool enabled = index.flags() & Qt::ItemIsEnabled;
    painter->setFont(ui_font());
    painter->setPen(enabled ? to_qt(theme.text) : blend(theme.raised, theme.secondary, 0.6));
    const QString text = index.data().toString();
    painter->drawText(inner, Qt::AlignVCenter | Qt::AlignLeft, text);
    painter->setPen(to_qt(theme.secondary));
    const int width = painter->fontMetrics().horizontalAdvance(text);
    painter->drawText(inner.adjusted(width + 10, 0, 0, 0), Qt::AlignVCenter | Qt::AlignLeft,
                      index.data(menu_role).toString());
    painter->drawText(inner, Qt::AlignVCenter | Qt::AlignRight, index.data(keys_role).toString());
    painter->restore();
  }
};

QString keys_text(const ActionInfo& action) {
  QStringList keys;
  for (const QKeySequence& key : key_sequences(action)) keys.append(key.toString(QKeySequence::NativeText));
  return keys.join("  or  ");
}

void show_over(QFrame& frame, const QSize& wanted) {
  QWidget* window = frame.parentWidget();
  const QSize size(std::min(wanted.width(), window->width() - 40), std::min(wanted.height(), window->height() - 120));
  frame.setGeometry((window->width() - size.width()) / 2, 72, size.width(), size.height());
  frame.raise();
  frame.show();
}

QLineEdit* search_field(const QString& hint, QFrame& frame) {
  auto* field = new QLineEdit(&frame);
  field->setPlaceholderText(hint);
  field->addAction(glyph_icon(Glyph::search, to_qt(current_theme().secondary)), QLineEdit::LeadingPosition);
  field->installEventFilter(&frame);
  return field;
}

}  // namespace

Palette::Palette(const QHash<QString, QAction*>& actions, QWidget* window)
    : QFrame(window), actions_(actions), query_(search_field("Search actions", *this)), list_(new QListWidget(this)) {
  set_role(this, "overlay");
  list_->setItemDelegate(new ActionDelegate(list_));
  list_->setFocusPolicy(Qt::NoFocus);
  list_->setStyleSheet("background: transparent;");
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(8, 8, 8, 8);
  column->addWidget(query_);
  column->addWidget(list_, 1);
  connect(query_, &QLineEdit::textChanged, this, &Palette::update_list);
  connect(list_, &QListWidget::itemClicked, this, &Palette::run_current);
  hide();
}

void Palette::open() {
  query_->clear();
  update_list();
  show_over(*this, {palette_width, palette_height});
  query_->setFocus(Qt::PopupFocusReason);
}

void Palette::set_query(const QString& text) { query_->setText(text); }

void Palette::update_list() {
  struct Hit {
    const ActionInfo* action;
    int score;
  };
  std::vector<Hit> hits;
  for (const ActionInfo& action : action_list()) {
    const int by_text = match_score(query_->text(), action.text);
    const int by_words = match_score(query_->text(), action.words + " " + menu_title(action.menu));
    int score = std::max(by_text < 0 ? -1 : 2 * by_text, by_words);
    if (score < 0) continue;
    if (recent_.contains(action.id)) score += recent_bonus + recent_kept - static_cast<int>(recent_.indexOf(action.id));
    hits.push_back({&action, score});
  }
  std::stable_sort(hits.begin(), hits.end(), [](const Hit& a, const Hit& b) { return a.score > b.score; });
  list_->clear();
  for (const Hit& hit : hits) {
    auto* item = new QListWidgetItem(QString(hit.action->text).remove("..."), list_);
    item->setData(Qt::UserRole, hit.action->id);
    item->setData(keys_role, keys_text(*hit.action));
    item->setData(menu_role, menu_title(hit.action->menu));
    const QAction* action = actions_.value(hit.action->id);
    if (!action || !action->isEnabled()) item->setFlags(item->flags() & ~Qt::ItemIsEnabled);
  }
  list_->setCurrentRow(0);
}

QStringList Palette::shown() const {
  QStringList ids;
  for (int row = 0; row < list_->count(); ++row) ids.append(list_->item(row)->data(Qt::UserRole).toString());
  return ids;
}

void Palette::run_current() {
  const QListWidgetItem* item = list_->currentItem();
  if (!item || !(item->flags() & Qt::ItemIsEnabled)) return;
  const QString id = item->data(Qt::UserRole).toString();
  recent_.removeAll(id);
  recent_.prepend(id);
  while (recent_.size() > recent_kept) recent_.removeLast();
  hide();
  parentWidget()->setFocus();
  if (QAction* action = actions_.value(id)) action->trigger();
}

bool Palette::eventFilter(QObject* watched, QEvent* event) {
  if (event->type() == QEvent::FocusOut) hide();
  if (event->type() == QEvent::KeyPress) {
    const int key = static_cast<QKeyEvent*>(event)->key();
    if (key == Qt::Key_Escape) hide(), parentWidget()->setFocus();
    if (key == Qt::Key_Return || key == Qt::Key_Enter) run_current();
    const int step = key == Qt::Key_Down       ? 1
                     : key == Qt::Key_Up       ? -1
                     : key == Qt::Key_PageDown ? 10
                     : key == Qt::Key_PageUp   ? -10
                                               : 0;
    if (step != 0) list_->setCurrentRow(std::clamp(list_->currentRow() + step, 0, list_->count() - 1));
    if (key == Qt::Key_Escape || key == Qt::Key_Return || key == Qt::Key_Enter || step != 0) return true;
  }
  return QFrame::eventFilter(watched, event);
}

ShortcutSheet::ShortcutSheet(QWidget* window)
    : QFrame(window), query_(search_field("Search shortcuts", *this)), list_(new QTreeWidget(this)) {
  set_role(this, "overlay");
  list_->setColumnCount(2);
  list_->setHeaderHidden(true);
  list_->setRootIsDecorated(false);
  list_->setIndentation(12);
  list_->setFocusPolicy(Qt::NoFocus);
  list_->setSelectionMode(QAbstractItemView::NoSelection);
  list_->setStyleSheet("background: transparent;");
  list_->header()->setStretchLastSection(true);
  list_->header()->resizeSection(0, 230);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(12, 12, 12, 12);
  column->addWidget(heading("Keyboard and mouse", this));
  column->addWidget(query_);
  column->addWidget(list_, 1);
  connect(query_, &QLineEdit::textChanged, this, [this] { update_list(); });
  hide();
}

void ShortcutSheet::open() {
  query_->clear();
  update_list();
  show_over(*this, {640, 680});
  query_->setFocus(Qt::PopupFocusReason);
}

void ShortcutSheet::update_list() {
  list_->clear();
  QTreeWidgetItem* group = nullptr;
  const auto add = [&](const QString& title, const QString& keys, const QString& what) {
    if (match_score(query_->text(), keys + " " + what) < 0) return;
    if (!group || group->text(0) != title.toUpper()) {
      group = new QTreeWidgetItem(list_, {title.toUpper()});
      group->setFont(0, heading_font());
      group->setForeground(0, to_qt(current_theme().secondary));
    }
    auto* line = new QTreeWidgetItem(group, {keys, what});
    line->setForeground(0, to_qt(current_theme().secondary));
    line->setFont(0, ui_font(QFont::Medium));
  };
  for (const Menu menu : {Menu::file, Menu::run, Menu::view, Menu::inspect, Menu::export_, Menu::help})
    for (const ActionInfo& action : action_list())
      if (action.menu == menu && !action.keys.isEmpty())
        add(menu_title(menu), keys_text(action), QString(action.text).remove("..."));
  for (const KeyHint& hint : key_hints()) add("In a " + hint.where.toLower() + " panel", hint.keys, hint.what);
  list_->expandAll();
}

bool ShortcutSheet::eventFilter(QObject* watched, QEvent* event) {
  if (event->type() == QEvent::FocusOut) hide();
  if (event->type() == QEvent::KeyPress && static_cast<QKeyEvent*>(event)->key() == Qt::Key_Escape) {
    hide();
    parentWidget()->setFocus();
    return true;
  }
  return QFrame::eventFilter(watched, event);
}

}  // namespace rat::app
