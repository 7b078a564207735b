// THE list of what a user can do. Menus, the command palette, the shortcut sheet and the tests follow from it; the
// canvases (views::view_types()) add one "show" action each.
#pragma once

#include <QKeySequence>
#include <QList>
#include <QString>
#include <vector>

namespace rat::app {

enum class Menu { file, run, view, inspect, export_, help };
QString menu_title(Menu menu);

// When an action can be used; the window decides, the list says which rule.
enum class Enabled {
  always,
  spec_valid,
  can_pause,
  can_step,
  can_stop,
  queue_not_empty,
  one_run,
  any_run,
  several_runs,
  resumable_run,
  openable_run,
  stored_subject,
  dial,
  figure,
  can_undo,
  can_redo
};

struct ActionInfo {
  QString id;    // stable: tests, the palette's history
  QString text;  // menu text; "..." when it asks for more
  Menu menu;
  QString keys;  // portable, "; " between alternatives; empty: none
  Enabled enabled = Enabled::always;
  bool separator_before = false;
  QString words = {};  // further words that the palette finds it by
};

const std::vector<ActionInfo>& action_list();
QList<QKeySequence> key_sequences(const ActionInfo& action);

// Keys that canvases, plots and tables answer themselves while they have the focus; shown on the shortcut sheet.
struct KeyHint {
  QString where, keys, what;
};
const std::vector<KeyHint>& key_hints();

// "key: action, action" for every key bound twice; empty when the list is sound.
QStringList clashing_shortcuts(const std::vector<ActionInfo>& actions);

// How well `query` matches: letters in order, word starts and runs count more; negative: no match.
int match_score(const QString& query, const QString& text);

}  // namespace rat::app
