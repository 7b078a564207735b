// The canvases: they draw, differ from their empty state, live through docking, and follow the theme.
#include <fmt/format.h>

#include <QAction>
#include <QDockWidget>
#include <QTest>

#include "app/window/canvas_area.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "tests/app/window_fixture.h"

namespace rat::app {
namespace {

constexpr double flat = 1.0;      // variance of grey values below which a picture shows nothing
constexpr double clearly = 0.01;  // share of pixels

class CanvasTest : public WindowTest {
 protected:
  QImage drawn(const QString& id) {
    window_->canvases().show_canvas(id);
    ImGuiCanvas* canvas = window_->canvases().canvas(id);
    const int64_t before = canvas->frames_drawn();
    canvas->refresh(4);
    EXPECT_TRUE(wait_for([&] { return canvas->frames_drawn() >= before + 4; })) << id.toStdString();
    return picture(*canvas);
  }
  // Pictures of the window with this canvas, in both themes and on a small and a large screen.
  void keep_in_themes_and_sizes(MainWindow& window, const QString& id, const std::string& name) {
    for (const ThemeKind kind : {ThemeKind::dark, ThemeKind::light})
      for (const QSize size : {QSize(1280, 800), QSize(2560, 1440)}) {
        window.set_theme(kind);
        window.resize(size);
        run_loop(200);
        (void)drawn(id);
        keep(picture(window), fmt::format("{}-{}-{}", name, kind == ThemeKind::dark ? "dark" : "light", size.width()));
      }
  }
};

TEST_F(CanvasTest, EveryCanvasShowsTheOpenedRun) {
  MainWindow& window = open();
  std::map<QString, QImage> empty;
  for (const QString& id : window.canvases().ids())
    if (window.canvases().canvas(id)) empty[id] = drawn(id);
  ASSERT_NE(train(tiny_spec()), nullptr);
  const std::string id = window.bench().runs()->front().id;
  window.runs().select({id});
  window.action("open_run")->trigger();
  EXPECT_EQ(window.bench().subject(), views::Subject::stored);
  ASSERT_TRUE(wait_for([&] { return window.bench().inspect_status().run_id == id; }));
  for (auto& [name, before] : empty) {
    window.canvases().show_canvas(name);
    ImGuiCanvas* canvas = window.canvases().canvas(name);
    if (name == "attention" || name == "states") {
      EXPECT_TRUE(wait_for([&] { return canvas->view().recipe(canvas->frame()).has_value(); })) << name.toStdString();
    }
    if (name == "generate") {
      canvas->frame().commands->generate("the gate", 12, {});
      EXPECT_TRUE(wait_for([&] { return canvas->frame().generation->tokens.size() >= 20; }));
    }
    const QImage after = drawn(name);
    keep(before, "canvas-" + name.toStdString() + "-empty");
    keep(after, "canvas-" + name.toStdString());
    EXPECT_GT(variance(before), flat) << name.toStdString();  // even an empty state says what to do next
    EXPECT_GT(variance(after), flat) << name.toStdString();
    EXPECT_GT(difference(before, after), clearly) << name.toStdString();
  }
}

TEST_F(CanvasTest, SeveralSamplesAreGeneratedAndLookedAt) {
  MainWindow& window = open();
  ASSERT_NE(train(tiny_spec()), nullptr);
  window.bench().open_run(window.bench().runs()->front().id);
  window.canvases().show_canvas("generate");
  ImGuiCanvas& canvas = *window.canvases().canvas("generate");
  canvas.view().set_options({{"prompt", "the gate"}, {"tokens", "24"}, {"samples", "8"}, {"dtype", "f32"}});
  ASSERT_TRUE(wait_for([&] { return !window.bench().inspect_status().run_id.empty(); }));
  QTest::keyClick(&canvas, Qt::Key_Return, Qt::ControlModifier);
  const auto generation = [&] { return canvas.frame().generation; };
  ASSERT_TRUE(wait_for([&] { return generation()->tokens.size() == 32 && !generation()->running; }))
      << generation()->message;
  EXPECT_EQ(generation()->samples, 8);
  EXPECT_EQ(generation()->dtype, "f32");
  const std::vector<int32_t> first = generation()->tokens;
  QTest::keyClick(&canvas, Qt::Key_PageDown);
  ASSERT_TRUE(wait_for([&] { return generation()->sample == 1; }));
  EXPECT_NE(generation()->tokens, first);
  keep_in_themes_and_sizes(window, "generate", "generate-samples");
}

// As options that were saved on another machine; where there is no GPU, its absence is one sentence and the text stays.
TEST_F(CanvasTest, AnotherDeviceIsOfferedAndAnAbsentOneIsRefused) {
  MainWindow& window = open();
  ASSERT_NE(train(tiny_spec()), nullptr);
  window.bench().open_run(window.bench().runs()->front().id);
  window.canvases().show_canvas("generate");
  ImGuiCanvas& canvas = *window.canvases().canvas("generate");
  canvas.view().set_options(
      {{"prompt", "the gate"}, {"tokens", "24"}, {"dtype", "bf16"}, {"device", "cuda"}, {"cache", "fp8"}});
  ASSERT_TRUE(wait_for([&] { return !window.bench().inspect_status().run_id.empty(); }));
  QTest::keyClick(&canvas, Qt::Key_Return, Qt::ControlModifier);  // heads too small for that cache, or no GPU
  const auto generation = [&] { return canvas.frame().generation; };
  ASSERT_TRUE(wait_for([&] { return generation()->message_is_error; }));
  keep_in_themes_and_sizes(window, "generate", "generate-device");
  canvas.view().set_options({{"dtype", "f32"}, {"device", "cpu"}});
  QTest::keyClick(&canvas, Qt::Key_Return, Qt::ControlModifier);
  EXPECT_TRUE(wait_for([&] { return generation()->tokens.size() == 32 && !generation()->running; }))
      << generation()->message;
}

TEST_F(CanvasTest, LiveRunReachesTheCanvas) {
  MainWindow& window = open();
  window.canvases().show_canvas("attention");
  ASSERT_NE(train(tiny_spec(200)), nullptr);
  EXPECT_EQ(window.bench().subject(), views::Subject::live);
  const auto trace = window.bench().trace_of("attention");
  EXPECT_FALSE(trace->tensors.empty()) << "no trace arrived while the run trained";
}

// A floating dock gives its OpenGL widget another context.
TEST_F(CanvasTest, SurvivesFloatingAndComingBack) {
  MainWindow& window = open();
  const double before = variance(drawn("throughput"));
  auto* dock = window.findChild<QDockWidget*>("canvas_throughput");
  dock->setFloating(true);
  run_loop(200);
  EXPECT_GT(variance(drawn("throughput")), flat);
  dock->setFloating(false);
  run_loop(200);
  EXPECT_GT(variance(drawn("throughput")), flat);
  EXPECT_GT(before, flat);
}

TEST_F(CanvasTest, ThemeSwitchReachesEverything) {
  MainWindow& window = open();
  window.set_theme(ThemeKind::dark);
  const QImage dark = drawn("attention"), dark_window = picture(window);
  window.action("theme")->trigger();
  EXPECT_EQ(window.theme_kind(), ThemeKind::light);
  const QImage light = drawn("attention"), light_window = picture(window);
  EXPECT_GT(difference(dark, light), 0.9);
  EXPECT_GT(difference(dark_window, light_window), 0.8);
  EXPECT_LT(qGray(dark.pixel(5, 5)), 60);
  EXPECT_GT(qGray(light.pixel(5, 5)), 200);
}

TEST_F(CanvasTest, DrawsOnlyOnNews) {
  MainWindow& window = open();
  drawn("attention");
  run_loop(500);
  const int64_t before = window.canvases().canvas("attention")->frames_drawn();
  run_loop(1'000);
  EXPECT_LE(window.canvases().canvas("attention")->frames_drawn() - before, 3);
}

// A click is a press and a release between two frames: both must reach ImGui.
TEST_F(CanvasTest, InputReachesTheView) {
  MainWindow& window = open();
  drawn("generate");
  ImGuiCanvas* canvas = window.canvases().canvas("generate");
  bool typed = false;
  // The prompt field is somewhere in the upper part: click down a column until a field takes the keyboard.
  for (int y = 20; y < canvas->height() - 20 && !typed; y += 12) {
    QTest::mouseMove(canvas, QPoint(120, y));
    QTest::mouseClick(canvas, Qt::LeftButton, {}, QPoint(120, y));
    run_loop(60);
    typed = canvas->wants_text();
  }
  EXPECT_TRUE(typed) << "no text field took the keyboard";
}

TEST_F(CanvasTest, FitsASmallWindow) {
  MainWindow& window = open({1280, 800});
  std::string parts;  // who takes the room
  for (const QDockWidget* dock : window.findChildren<QDockWidget*>())
    parts += fmt::format("{} {}, ", dock->objectName().toStdString(), dock->minimumSizeHint().width());
  EXPECT_LE(window.minimumSizeHint().width(), 1280) << parts << "bar " << window.bar().minimumSizeHint().width();
  EXPECT_LE(window.minimumSizeHint().height(), 800);
  keep(picture(window), "window-1280x800");
  window.resize(2560, 1440);
  run_loop(300);
  keep(picture(window), "window-2560x1440");
}

}  // namespace
}  // namespace rat::app
