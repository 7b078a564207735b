#include "app/window/style_sheet.h"

#include <QHash>

#include "app/window/theme_qt.h"

namespace rat::app {
namespace {

// @names are replaced by the theme's colours.
constexpr const char* sheet = R"(
QMainWindow, QDialog { background: @pane; }
QMainWindow::separator { background: @hairline; width: 1px; height: 1px; }
QMainWindow::separator:hover { background: @accent; }
QToolTip { background: @raised; color: @text; border: 1px solid @hairline; padding: 4px 6px; }

QMenuBar { background: @pane; padding: 2px 4px; border-bottom: 1px solid @hairline; }
QMenuBar::item { padding: 4px 9px; background: transparent; color: @secondary; border-radius: 4px; }
QMenuBar::item:selected { background: @raised; color: @text; }
QMenu { background: @raised; border: 1px solid @hairline; padding: 4px; }
QMenu::item { padding: 5px 24px 5px 12px; border-radius: 4px; }
QMenu::item:selected { background: @selected; }
QMenu::item:disabled { color: @faint; }
QMenu::separator { height: 1px; background: @hairline; margin: 4px 8px; }

QToolBar { background: @pane; border: none; border-bottom: 1px solid @hairline; padding: 6px 10px; spacing: 8px; }
QDockWidget { color: @secondary; }

QPushButton { background: @raised; border: 1px solid @hairline; border-radius: 5px; padding: 0 12px; min-height: 26px; }
QPushButton:hover { border-color: @secondary; }
QPushButton:pressed { background: @hairline; }
QPushButton:focus { border-color: @accent; }
QPushButton:disabled { color: @faint; background: @pane; }
QPushButton:checked { color: @accent; border-color: @accent; background: @selected; }
QPushButton[primary="true"] { background: @accent; border-color: @accent; color: @on_accent; font-weight: 600; }
QPushButton[primary="true"]:hover { background: @accent_hover; }
QPushButton[primary="true"]:disabled { background: @raised; border-color: @hairline; color: @faint; }
QPushButton[pill="true"] { border-radius: 12px; min-height: 22px; padding: 0 10px; background: transparent; color: @secondary; font-size: 12px; }
QPushButton[pill="true"]:hover { color: @text; border-color: @secondary; }
QPushButton[pill="true"]:checked { color: @accent; border-color: @accent; }
QPushButton[flat="true"], QToolButton { background: transparent; border: none; color: @secondary; padding: 2px 6px; border-radius: 4px; }
QToolButton:checked { color: @accent; }
QToolButton:hover, QPushButton[flat="true"]:hover { color: @text; background: @raised; }

QLineEdit, QAbstractSpinBox, QComboBox { background: @raised; border: 1px solid @hairline; border-radius: 5px;
  padding: 0 6px; min-height: 26px; selection-background-color: @accent; selection-color: @on_accent; }
QLineEdit:focus, QAbstractSpinBox:focus, QComboBox:focus { border-color: @accent; }
QLineEdit:disabled, QAbstractSpinBox:disabled, QComboBox:disabled { color: @faint; }
QLineEdit[wrong="true"], QAbstractSpinBox[wrong="true"], QComboBox[wrong="true"] { border-color: @warning; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { width: 0; border: none; }
QComboBox::drop-down { border: none; width: 22px; }
QComboBox::down-arrow { image: url(:/icons/chevron.svg); width: 10px; height: 10px; }
QComboBox QAbstractItemView { background: @raised; border: 1px solid @hairline; selection-background-color: @selected;
  selection-color: @text; outline: none; padding: 2px; }
QCheckBox, QRadioButton { spacing: 6px; }
QCheckBox::indicator { width: 14px; height: 14px; border: 1px solid @faint; border-radius: 3px; background: @raised; }
QCheckBox::indicator:hover { border-color: @accent; }
QCheckBox::indicator:checked { background: @accent; border-color: @accent; image: url(:/icons/check.svg); }
QToolButton::menu-indicator { image: url(:/icons/chevron.svg); width: 9px; height: 9px; subcontrol-position: right center; }
QToolButton[popupMode="2"] { padding-right: 16px; }
QDialogButtonBox { dialogbuttonbox-buttons-have-icons: 0; }
QPlainTextEdit, QTextEdit, QListView, QTreeView { background: @pane; border: none; selection-background-color: @selected;
  selection-color: @text; outline: none; }

QSlider::groove:horizontal { height: 4px; background: @hairline; border-radius: 2px; }
QSlider::sub-page:horizontal { height: 4px; background: @accent; border-radius: 2px; }
QSlider::handle:horizontal { background: @accent; width: 14px; height: 14px; margin: -5px 0; border-radius: 7px; }
QSlider::handle:horizontal:focus { border: 2px solid @text; width: 10px; height: 10px; }
QSlider::handle:horizontal:disabled, QSlider::sub-page:horizontal:disabled { background: @faint; }
QProgressBar { background: @hairline; border: none; border-radius: 3px; min-height: 6px; max-height: 6px; }
QProgressBar::chunk { background: @accent; border-radius: 3px; }

QTableView { background: @pane; border: none; gridline-color: transparent; selection-background-color: @selected;
  selection-color: @text; outline: none; alternate-background-color: @pane; }
QTableView::item { border-bottom: 1px solid @hairline; padding: 0 8px; }
QHeaderView { background: @pane; border: none; }
QHeaderView::section { background: @pane; color: @secondary; border: none; border-bottom: 1px solid @hairline; padding: 4px 8px; font-size: 11px; font-weight: 600; }
QHeaderView::up-arrow, QHeaderView::down-arrow { width: 0; height: 0; image: none; }
QHeaderView::section:hover { color: @text; }
QTableCornerButton::section { background: @pane; border: none; }

QTabBar { background: transparent; qproperty-drawBase: 0; qproperty-expanding: 0; }
QTabBar::tab { background: transparent; color: @secondary; padding: 7px 12px; border: none; border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: @text; }
QTabBar::tab:selected { color: @text; border-bottom: 2px solid @accent; }
QTabWidget::pane { border: none; border-top: 1px solid @hairline; }

QScrollBar:vertical { background: transparent; width: 10px; margin: 0; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; }
QScrollBar::handle { background: @hairline; border-radius: 3px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 24px; }
QScrollBar::handle:horizontal { min-width: 24px; }
QScrollBar::handle:hover { background: @faint; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QScrollArea { border: none; background: @pane; }

QStatusBar { background: @pane; border-top: 1px solid @hairline; color: @secondary; }
QStatusBar::item { border: none; }
QMenuBar QLabel { font-weight: 600; padding: 0 6px 0 10px; }
QStatusBar QLabel { color: @secondary; font-size: 12px; padding: 0 6px; }

QLabel[role="secondary"] { color: @secondary; }
QLabel[role="heading"] { color: @secondary; }
QLabel[role="ok"] { color: @ok; }
QLabel[role="warning"] { color: @warning; }
QLabel[role="badge"] { color: @secondary; border: 1px solid @hairline; border-radius: 12px; padding: 3px 9px; font-size: 12px; }
QFrame[role="hairline"] { background: @hairline; border: none; max-height: 1px; min-height: 1px; }
QFrame[role="banner"] { background: @banner; border: none; border-bottom: 1px solid @warning; }
QFrame[role="overlay"] { background: @raised; border: 1px solid @hairline; border-radius: 8px; }
)";

}  // namespace

QString style_sheet(const Theme& theme) {
  const bool dark = theme.kind == ThemeKind::dark;
  const QHash<QString, QString> colors{{"pane", to_qt(theme.pane).name()},
                                       {"background", to_qt(theme.background).name()},
                                       {"raised", to_qt(theme.raised).name()},
                                       {"hairline", to_qt(theme.hairline).name()},
                                       {"text", to_qt(theme.text).name()},
                                       {"secondary", to_qt(theme.secondary).name()},
                                       {"faint", blend(theme.pane, theme.secondary, 0.55).name()},
                                       {"accent", to_qt(theme.accent).name()},
                                       {"accent_hover", blend(theme.accent, theme.text, 0.12).name()},
                                       {"on_accent", dark ? to_qt(theme.background).name() : QStringLiteral("#ffffff")},
                                       {"selected", blend(theme.pane, theme.accent, dark ? 0.22 : 0.16).name()},
                                       {"banner", blend(theme.pane, theme.warning, 0.14).name()},
                                       {"ok", to_qt(theme.ok).name()},
                                       {"warning", to_qt(theme.warning).name()}};
  QString text;
  const QString source = QString::fromUtf8(sheet);
  for (qsizetype i = 0; i < source.size();) {
    if (source[i] != '@') {
      text += source[i++];
      continue;
    }
    qsizetype end = i + 1;
    while (end < source.size() && (source[end].isLetter() || source[end] == '_')) ++end;
    text += colors.value(source.mid(i + 1, end - i - 1));
    i = end;
  }
  return text;
}

}  // namespace rat::app
