// A run from the form to the table, through the buttons a user presses.
#include <QAction>
#include <QComboBox>
#include <QElapsedTimer>
#include <QFile>
#include <QLineEdit>
#include <QPushButton>
#include <QTableView>
#include <algorithm>

#include "app/window/experiment_panel.h"
#include "app/window/run_bar.h"
#include "app/window/runs_panel.h"
#include "app/window/ui_watchdog.h"
#include "app/window/widgets.h"
#include "tests/app/window_fixture.h"

namespace rat::app {
namespace {

constexpr int64_t long_run = 1'000'000;  // steps: only a stop ends it
constexpr int reaction_ms = 100;

TEST_F(WindowTest, TrainsFromTheFormAndShowsTheRun) {
  MainWindow& window = open();
  EXPECT_EQ(window.runs().shown(), 0);
  const RunRow* run = train(tiny_spec());
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(run->steps_done, 40);
  EXPECT_EQ(run->layers, "rat:8*2");
  EXPECT_EQ(window.runs().shown(), 1);
  EXPECT_TRUE(run->metrics.contains("val_loss"));
  const Result<StoreReader> reader = StoreReader::open(database());
  ASSERT_TRUE(reader);
  const auto losses = reader->series(run->id, "loss");
  ASSERT_TRUE(losses);
  EXPECT_EQ(losses->size(), 40u);  // every step is stored
  const QModelIndex loss = window.runs().table().model()->index(0, column_loss);
  EXPECT_NE(loss.data().toString(), "-");
}

TEST_F(WindowTest, TheDtypeIsChosenInTheFormAndKeptWithTheRun) {
  MainWindow& window = open();
  ExperimentPanel& form = window.experiment();
  form.set_spec(tiny_spec());
  QComboBox* list = nullptr;
  for (QComboBox* box : form.findChildren<QComboBox*>())
    if (box->accessibleName().startsWith("Precision")) list = box;
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(list->currentText(), "f32");
  const int other = list->count() - 1;  // the last one that this CPU can do; f32 itself where that is all
  list->setCurrentIndex(other);
  emit list->activated(other);
  const std::string chosen = list->itemText(other).toStdString();
  EXPECT_EQ(form.spec().train.dtype, chosen);
  const RunRow* run = train(form.spec());
  ASSERT_NE(run, nullptr);
  EXPECT_EQ(run->dtype, chosen);

  RunSpec elsewhere = tiny_spec();
  elsewhere.train.dtype = "tf32";  // of a GPU; shown as it is, whatever this CPU can do
  form.set_spec(elsewhere);
  EXPECT_EQ(list->currentText(), "tf32");
  EXPECT_EQ(form.spec().train.dtype, "tf32");
}

TEST_F(WindowTest, PauseStepAndStopReactAtOnce) {
  MainWindow& window = open();
  Workbench& bench = window.bench();
  RunSpec spec = tiny_spec(long_run);
  spec.train.checkpoint_every = spec.train.eval_every = long_run;  // a step of a real run is not mostly fsync
  window.experiment().set_spec(spec);
  window.bar().button("start")->click();
  ASSERT_TRUE(
      wait_for([&] { return bench.status().activity == SessionActivity::training && bench.status().step > 3; }));

  // The median of five: one slow frame of a busy machine is not the program's reaction.
  const auto reaction = [&](const char* button, SessionActivity there, SessionActivity back) {
    std::vector<qint64> ms;
    QElapsedTimer timer;
    for (int i = 0; i < 5; ++i) {
      timer.start();
      window.bar().button(button)->click();
      EXPECT_TRUE(wait_for([&] { return bench.status().activity == there; })) << button;
      ms.push_back(timer.elapsed());
      window.bar().button(button)->click();
      EXPECT_TRUE(wait_for([&] { return bench.status().activity == back; })) << button;
    }
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
  };
  EXPECT_LE(reaction("pause", SessionActivity::paused, SessionActivity::training), reaction_ms * slowness);
  window.bar().button("pause")->click();
  EXPECT_FALSE(window.bar().button("pause")->isEnabled());  // the button answers before the session does
  ASSERT_TRUE(wait_for([&] { return bench.status().activity == SessionActivity::paused; }));
  EXPECT_EQ(window.bar().button("pause")->text().toStdString(), "Continue");
  const int64_t paused_at = bench.status().step;
  run_loop(100);
  EXPECT_EQ(bench.status().step, paused_at);

  window.bar().button("step")->click();
  EXPECT_TRUE(wait_for(
      [&] { return bench.status().step == paused_at + 1 && bench.status().activity == SessionActivity::paused; }));

  window.bar().button("pause")->click();
  ASSERT_TRUE(wait_for([&] { return bench.status().step > paused_at + 3; }));
  QElapsedTimer timer;
  timer.start();
  window.bar().button("stop")->click();
  EXPECT_TRUE(wait_for([&] { return bench.status().activity != SessionActivity::training; }));
  EXPECT_LE(timer.elapsed(), 3 * reaction_ms * slowness);  // one sample
  ASSERT_TRUE(wait_for([&] { return !bench.busy() && bench.runs()->front().state == RunState::stopped; }));
  EXPECT_FALSE(bench.runs()->front().checkpoint.empty());  // and can be resumed
}

TEST_F(WindowTest, ButtonsFollowWhatIsPossible) {
  MainWindow& window = open();
  EXPECT_TRUE(window.bar().button("start")->isEnabled());
  for (const char* name : {"pause", "step", "stop"}) EXPECT_FALSE(window.bar().button(name)->isEnabled()) << name;
  RunSpec wrong = tiny_spec();
  wrong.model.heads = 3;  // does not divide 32
  window.experiment().set_spec(wrong);
  EXPECT_FALSE(window.bar().button("start")->isEnabled());
  EXPECT_FALSE(window.experiment().problem().isEmpty());
}

TEST_F(WindowTest, ClosingWhileTrainingKeepsTheRun) {
  MainWindow& window = open();
  window.experiment().set_spec(tiny_spec(long_run));
  window.bar().button("start")->click();
  ASSERT_TRUE(wait_for([&] { return window.bench().status().step > 5; }));
  close();
  Result<StoreReader> reader = StoreReader::open(database());
  ASSERT_TRUE(reader);
  const auto runs = reader->runs();
  ASSERT_TRUE(runs);
  ASSERT_EQ(runs->size(), 1u);
  EXPECT_EQ(runs->front().state, RunState::stopped);
  EXPECT_GT(runs->front().steps_done, 5);
  EXPECT_TRUE(std::filesystem::exists(runs->front().checkpoint));
}

TEST_F(WindowTest, ResumeContinuesAStoppedRun) {
  MainWindow& window = open();
  Workbench& bench = window.bench();
  window.experiment().set_spec(tiny_spec(400));
  window.bar().button("start")->click();
  ASSERT_TRUE(wait_for([&] { return bench.status().step > 3; }));
  window.bar().button("stop")->click();
  ASSERT_TRUE(wait_for(
      [&] { return !bench.busy() && bench.runs()->size() == 1 && bench.runs()->front().state == RunState::stopped; }));
  window.runs().select({bench.runs()->front().id});
  ASSERT_TRUE(window.action("resume")->isEnabled());
  window.action("resume")->trigger();
  EXPECT_TRUE(wait_for([&] { return bench.runs()->front().state == RunState::finished; }, 60'000));
  EXPECT_EQ(bench.runs()->size(), 1u);
  EXPECT_EQ(bench.runs()->front().steps_done, 400);
}

TEST_F(WindowTest, ErrorsAreSentencesInTheBanner) {
  MainWindow& window = open();
  RunSpec spec = tiny_spec();
  spec.data.path = folder_.filePath("empty.txt").toStdString();  // the form looks that it is there, not into it
  ASSERT_TRUE(QFile(QString::fromStdString(spec.data.path)).open(QIODevice::WriteOnly));
  window.experiment().set_spec(spec);
  window.bar().button("start")->click();
  ASSERT_TRUE(wait_for([&] { return window.banner().isVisible(); }));
  EXPECT_TRUE(window.banner().sentence().contains("empty.txt")) << window.banner().sentence().toStdString();
}

// The chunk slider rewrites the pattern; the pattern moves the slider.
TEST_F(WindowTest, ChunkLengthAndPatternAgree) {
  MainWindow& window = open();
  window.experiment().set_spec(tiny_spec());
  auto* slider = window.experiment().findChild<QSlider*>();
  slider->setValue(2);
  EXPECT_EQ(format_layers(window.experiment().spec().model.layers), "rat:4*2");
  slider->setValue(slider->maximum());
  EXPECT_EQ(window.experiment().spec().model.layers.front().chunk, 32);  // T
  slider->setValue(0);
  EXPECT_EQ(window.experiment().spec().model.layers.front().chunk, 1);
}

TEST_F(WindowTest, StaysResponsiveWhileTraining) {
  MainWindow& window = open();
  RunSpec spec = tiny_spec(long_run);
  spec.model.d_model = 128;
  spec.train.seq_len = 128;
  window.experiment().set_spec(spec);
  window.bar().button("start")->click();
  ASSERT_TRUE(wait_for([&] { return window.bench().status().step > 10; }));
  WindowApplication::watchdog().reset();
  run_loop(3'000);
  const UiWatchdog::Report report = WindowApplication::watchdog().report();
  const std::filesystem::path artefacts = std::filesystem::path(RAT_BINARY_DIR) / "artifacts" / "window";
  std::filesystem::create_directories(artefacts);
  EXPECT_TRUE(WindowApplication::watchdog().write_csv(artefacts / "frame-times-while-training.csv"));
  RecordProperty("p99_ms", std::to_string(report.p99_ms));
  EXPECT_GT(report.events, 100);
  // The promise is 16 ms; a machine that runs other things besides gets four times that.
  EXPECT_LE(report.p99_ms, 64.0 * slowness);
}

}  // namespace
}  // namespace rat::app
