// The list of actions: sound shortcuts, a handler each, found by the palette.
#include <QAction>
#include <QLineEdit>
#include <QTest>

#include "app/window/palette.h"
#include "app/window/runs_panel.h"
#include "tests/app/window_fixture.h"

namespace rat::app {
namespace {

TEST(ActionList, NoKeyIsBoundTwice) { EXPECT_EQ(clashing_shortcuts(action_list()).join("; ").toStdString(), ""); }

TEST(ActionList, AClashIsFound) {
  std::vector<ActionInfo> actions = action_list();
  actions.push_back({"extra", "Extra", Menu::help, "Ctrl+Alt+F12; Ctrl+K"});
  const QStringList clashes = clashing_shortcuts(actions);
  ASSERT_EQ(clashes.size(), 1);
  EXPECT_EQ(clashes.front().toStdString(), "Ctrl+K: palette, extra");
}

TEST(ActionList, EveryKeyIsAKey) {
  for (const ActionInfo& action : action_list())
    for (const QKeySequence& key : key_sequences(action))
      EXPECT_FALSE(key.isEmpty()) << action.id.toStdString() << ": " << action.keys.toStdString();
}

TEST(ActionList, SearchPrefersWordStarts) {
  EXPECT_LT(match_score("xyz", "Start"), 0);
  EXPECT_GT(match_score("st", "Start"), match_score("st", "Export last"));
  EXPECT_GT(match_score("rl", "Reset layout"), match_score("rl", "Curves plot little"));
  EXPECT_GE(match_score("", "Start"), 0);
}

TEST_F(WindowTest, EveryActionHasAHandlerAndAMenuEntry) {
  MainWindow& window = open();
  for (const ActionInfo& info : action_list()) {
    EXPECT_TRUE(window.has_handler(info.id)) << info.id.toStdString();
    EXPECT_NE(window.action(info.id), nullptr) << info.id.toStdString();
  }
  EXPECT_FALSE(window.has_handler("no_such_action"));
}

TEST_F(WindowTest, PaletteRunsAnAction) {
  MainWindow& window = open();
  window.set_theme(ThemeKind::dark);
  window.action("palette")->trigger();
  ASSERT_TRUE(window.palette().isVisible());
  window.palette().set_query("light theme");
  ASSERT_FALSE(window.palette().shown().isEmpty());
  EXPECT_EQ(window.palette().shown().front().toStdString(), "theme");
  QTest::keyClick(window.palette().findChild<QLineEdit*>(), Qt::Key_Return);
  EXPECT_FALSE(window.palette().isVisible());
  EXPECT_EQ(window.theme_kind(), ThemeKind::light);
}

TEST_F(WindowTest, PaletteFollowsTheKeyboard) {
  MainWindow& window = open();
  QTest::keyClick(&window, Qt::Key_K, Qt::ControlModifier);
  ASSERT_TRUE(wait_for([&] { return window.palette().isVisible(); }, 3'000));
  QTest::keyClick(window.palette().findChild<QLineEdit*>(), Qt::Key_Escape);
  EXPECT_FALSE(window.palette().isVisible());
  QTest::keyClick(&window, Qt::Key_F1);
  EXPECT_TRUE(wait_for([&] { return window.shortcut_sheet().isVisible(); }, 3'000));
}

// A letter typed into a field is text; Del in a field deletes no run.
TEST_F(WindowTest, TypingIsNotAShortcut) {
  MainWindow& window = open();
  window.action("filter")->trigger();
  auto* filter = window.runs().findChild<QLineEdit*>();
  QTest::keyClicks(filter, "sla");
  EXPECT_EQ(filter->text().toStdString(), "sla");
  QTest::keyClick(filter, Qt::Key_Delete);
  EXPECT_FALSE(window.runs().undo_stack().canUndo());
}

}  // namespace
}  // namespace rat::app
