#include "app/window/actions.h"

#include <QMap>
#include <QStringList>

#include "views/canvases/view.h"

namespace rat::app {
namespace {

QString text_of(std::string_view view) { return QString::fromUtf8(view.data(), static_cast<qsizetype>(view.size())); }

std::vector<ActionInfo> fixed_actions() {
  using enum Enabled;
  return {
      {"open_database", "Open database...", Menu::file, "Ctrl+O"},
      {"new_database", "New database...", Menu::file, "Ctrl+N"},
      {"backup_database", "Back up database...", Menu::file, "Ctrl+Shift+B"},
      {"check_database", "Check database", Menu::file, "", always, false, "integrity"},
      {"load_spec", "Load spec...", Menu::file, "Ctrl+Shift+O", always, true, "import json experiment"},
      {"save_spec", "Save spec as...", Menu::file, "Ctrl+Shift+S", always, false, "export json experiment"},
      {"quit", "Quit", Menu::file, "Ctrl+Q", always, true, "exit close"},

      {"start", "Start", Menu::run, "F5", spec_valid, false, "train run enqueue"},
      {"pause", "Pause", Menu::run, "F6", can_pause, false, "continue unpause"},
      {"step", "Step", Menu::run, "F7", can_step, false, "one step"},
      {"stop", "Stop", Menu::run, "F8", can_stop, false, "checkpoint end"},
      {"stop_all", "Stop and empty the queue", Menu::run, "Shift+F8", can_stop},
      {"resume", "Resume run", Menu::run, "Ctrl+Shift+R", resumable_run, true, "continue stopped crashed"},
      {"extend", "Train further...", Menu::run, "", resumable_run, false, "more steps"},
      {"presets", "Choose a layer preset...", Menu::run, "Ctrl+Shift+L", always, true,
       "pattern stack hybrid published ratplus rattention swa"},
      {"rerun", "Use as new spec", Menu::run, "Ctrl+Shift+N", one_run, false, "re-run copy experiment again"},
      {"rename", "Rename run...", Menu::run, "F2", one_run},
      {"tag", "Tag runs...", Menu::run, "Ctrl+Shift+G", any_run, false, "label"},
      {"delete", "Delete runs", Menu::run, "Del", any_run, false, "remove"},
      {"undo", "Undo", Menu::run, "Ctrl+Z", can_undo, true},
      {"redo", "Redo", Menu::run, "Ctrl+Shift+Z; Ctrl+Y", can_redo},

      {"view_curves", "Curves", Menu::view, "Ctrl+Shift+C", always, true, "dock loss panel"},
      {"view_experiment", "Experiment", Menu::view, "Ctrl+Shift+X", always, false, "dock form panel"},
      {"view_runs", "Runs", Menu::view, "Ctrl+Shift+U", always, false, "dock table panel"},
      {"view_queue", "Queue", Menu::view, "", always, false, "dock panel"},
      {"view_log", "Log", Menu::view, "Ctrl+L", always, false, "dock messages panel"},
      {"theme", "Dark / light theme", Menu::view, "Ctrl+T", always, true, "colours mode"},
      {"full_screen", "Full screen", Menu::view, "F11"},
      {"save_layout", "Save layout", Menu::view, "Ctrl+S", always, true},
      {"reset_layout", "Reset layout", Menu::view, "", always, false, "default docks"},

      {"open_run", "Open run", Menu::inspect, "Ctrl+Shift+I", openable_run, false, "load checkpoint stored subject"},
      {"follow_live", "Follow the live run", Menu::inspect, "Alt+Right", stored_subject, false, "back"},
      {"dial_up", "Dial: double the dilation or chunk length", Menu::inspect, "Ctrl+Alt+Right", dial, true,
       "ratplus rat D L longer sparser same weights"},
      {"dial_down", "Dial: halve the dilation or chunk length", Menu::inspect, "Ctrl+Alt+Left", dial, false,
       "ratplus rat D L shorter denser same weights"},
      {"dial_reset", "Dial: as trained", Menu::inspect, "Ctrl+Alt+Home", dial, false, "ratplus rat D L reset"},
      {"compare", "Compare runs: only differences", Menu::inspect, "Ctrl+D", several_runs, true, "diff"},
      {"filter", "Filter runs", Menu::inspect, "Ctrl+F", always, false, "search find"},
      {"clear_selection", "Clear pins", Menu::inspect, "", always, false, "selection escape"},
      {"frame_times", "Window frame times", Menu::inspect, "", always, true, "ui stall latency meter"},

      {"figure", "Figure...", Menu::export_, "Ctrl+E", figure, false, "export pdf paper"},
      {"figure_png", "Quick PNG...", Menu::export_, "Ctrl+Shift+E", figure, false, "export image"},
      {"figure_svg", "Quick SVG...", Menu::export_, "Ctrl+Alt+E", figure, false, "export vector"},
      {"screenshot", "Save window as PNG...", Menu::export_, "", always, true, "screenshot image"},
      {"export_frame_times", "Save frame times as CSV...", Menu::export_, "", always, false, "latency meter"},

      {"palette", "Command palette", Menu::help, "Ctrl+P; Ctrl+K", always, false, "search actions"},
      {"shortcuts", "Keyboard shortcuts", Menu::help, "F1; Ctrl+/", always, false, "help keys"},
      {"about", "About", Menu::help, "", always, true, "version commit licence"}};
}

std::vector<ActionInfo> all_actions() {
  std::vector<ActionInfo> canvases;
  int number = 0;
  for (const views::ViewType& type : views::view_types()) {
    ++number;
    canvases.push_back({"show_" + text_of(type.id), text_of(type.title), Menu::view, text_of(type.shortcut),
                        Enabled::always, false, "canvas tab " + text_of(type.description)});
  }
  canvases.push_back({"show_tradeoff", "Trade-off", Menu::view, QString("Ctrl+%1").arg(number + 1), Enabled::always,
                      false, "canvas tab pareto sweep"});
  std::vector<ActionInfo> all;
  for (ActionInfo& action : fixed_actions()) {
    if (action.id == "view_curves") all.insert(all.end(), canvases.begin(), canvases.end());
    all.push_back(std::move(action));
  }
  return all;
}

}  // namespace

QString menu_title(Menu menu) {
  switch (menu) {
    case Menu::file:
      return "File";
    case Menu::run:
      return "Run";
    case Menu::view:
      return "View";
    case Menu::inspect:
      return "Inspect";
    case Menu::export_:
      return "Export";
    case Menu::help:
      return "Help";
  }
  return {};
}

const std::vector<ActionInfo>& action_list() {
  static const std::vector<ActionInfo> list = all_actions();
  return list;
}

QList<QKeySequence> key_sequences(const ActionInfo& action) {
  QList<QKeySequence> keys;
  for (const QString& one : action.keys.split("; ", Qt::SkipEmptyParts)) keys.append(QKeySequence::fromString(one));
  return keys;
}

const std::vector<KeyHint>& key_hints() {
  static const std::vector<KeyHint> hints{
      {"Canvas", "Left / Right", "query token; with Shift by 10, with Ctrl to the next chunk boundary"},
      {"Canvas", "Up / Down", "layer"},
      {"Canvas", "[ / ]", "head"},
      {"Canvas", "L / C / A", "log colours / lock the colour range / fit"},
      {"Canvas", "S", "sort the channels by half-life"},
      {"Canvas", "Ctrl+Enter", "generate from the prompt"},
      {"Canvas", "Page Up / Page Down", "the generated sample before / after, of several"},
      {"Canvas", "Drag, Ctrl+A, Ctrl+C", "mark and copy generated text"},
      {"Canvas", "Home / End", "first / last token"},
      {"Canvas", "Click", "pin what is hovered"},
      {"Canvas", "Esc", "clear the pins"},
      {"Plot", "Drag / wheel", "pan / zoom"},
      {"Plot", "Right drag", "zoom into a box"},
      {"Plot", "A, double click", "fit"},
      {"Plot", "L / Shift+L", "log y / log x"},
      {"Runs", "Enter, double click", "open the run on the canvases"},
      {"Runs", "Ctrl+click, Shift+click", "select several"}};
  return hints;
}

QStringList clashing_shortcuts(const std::vector<ActionInfo>& actions) {
  QMap<QString, QStringList> by_key;
  for (const ActionInfo& action : actions)
    for (const QKeySequence& key : key_sequences(action)) by_key[key.toString()].append(action.id);
  QStringList clashes;
  for (auto at = by_key.begin(); at != by_key.end(); ++at)
    if (at->size() > 1 || at.key().isEmpty()) clashes.append(at.key() + ": " + at->join(", "));
  return clashes;
}

int match_score(const QString& query, const QString& text) {
  constexpr int word_start = 8, in_a_row = 5, any = 1, leading = 4;
  int score = 0;
  qsizetype at = 0, previous = -2;
  for (const QChar letter : query.toLower()) {
    if (letter.isSpace()) continue;
    const qsizetype found = text.indexOf(letter, at, Qt::CaseInsensitive);
    if (found < 0) return -1;
    score += any;
    if (found == 0) score += leading;
    if (found == 0 || !text[found - 1].isLetterOrNumber()) score += word_start;
    if (found == previous + 1) score += in_a_row;
    previous = found;
    at = found + 1;
  }
  return score;
}

}  // namespace rat::app
