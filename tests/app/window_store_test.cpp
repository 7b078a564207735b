// The Runs table's edits, the layout, and databases that are refused.
#include <fmt/format.h>

#include <QAction>
#include <QApplication>
#include <QDockWidget>
#include <QElapsedTimer>
#include <QMenu>
#include <QPushButton>
#include <QTableView>
#include <QWidgetAction>
#include <fstream>

#include "app/figure/curves_panel.h"
#include "app/figure/tradeoff_canvas.h"
#include "app/window/canvas_area.h"
#include "app/window/compare_dialog.h"
#include "app/window/experiment_panel.h"
#include "app/window/runs_panel.h"
#include "tests/app/window_fixture.h"

namespace rat::app {
namespace {

// Rows without training: the table does not care where they come from.
void add_runs(Workbench& bench, const RunSpec& base, int count) {
  for (int i = 0; i < count; ++i) {
    RunSpec spec = base;
    spec.name = fmt::format("run{}", i);
    spec.train.seed = static_cast<uint64_t>(i);
    NewRun row;
    row.name = spec.name;
    row.spec_json = to_json(spec);
    row.spec_hash = spec_hash(spec);
    row.layers = format_layers(spec.model.layers);
    row.seed = spec.train.seed;
    row.steps_total = spec.train.steps;
    const Result<std::string> id = bench.writer().create_run(row);
    ASSERT_TRUE(id) << id.error().message;
    ASSERT_TRUE(bench.writer().start_run(*id));
    bench.writer().log(*id, "val_loss", 10, 2.0 - 0.1 * i, 1.0);
    ASSERT_TRUE(bench.writer().flush());
    ASSERT_TRUE(bench.writer().end_run(*id, RunState::finished));
  }
  bench.store().read(true);
}

TEST_F(WindowTest, RenameTagDeleteAndUndo) {
  MainWindow& window = open();
  Workbench& bench = window.bench();
  add_runs(bench, tiny_spec(), 2);
  ASSERT_TRUE(wait_for([&] { return window.runs().shown() == 2; }));
  const std::string id = bench.runs()->front().id;
  const auto run = [&] { return bench.find_run(id); };

  const std::string before = run()->name;
  window.runs().rename(id, "better name");
  EXPECT_TRUE(wait_for([&] { return run()->name == "better name"; }));
  window.action("undo")->trigger();
  EXPECT_TRUE(wait_for([&] { return run()->name == before; }));

  window.runs().set_tags({id}, {"paper"});
  EXPECT_TRUE(wait_for([&] { return run()->tags == std::vector<std::string>{"paper"}; }));
  window.action("undo")->trigger();
  EXPECT_TRUE(wait_for([&] { return run()->tags.empty(); }));

  window.runs().select({id});
  window.action("delete")->trigger();
  EXPECT_TRUE(wait_for([&] { return window.runs().shown() == 1 && !run(); }));
  window.action("undo")->trigger();
  EXPECT_TRUE(wait_for([&] { return window.runs().shown() == 2 && run(); }));
  window.action("redo")->trigger();
  EXPECT_TRUE(wait_for([&] { return window.runs().shown() == 1; }));
}

TEST_F(WindowTest, FilterAndSortTheTable) {
  MainWindow& window = open();
  add_runs(window.bench(), tiny_spec(), 5);  // losses 2.0, 1.9, ... 1.6
  ASSERT_TRUE(wait_for([&] { return window.runs().shown() == 5; }));
  window.runs().set_filter("loss < 1.85 and chunk = 8");
  EXPECT_EQ(window.runs().shown(), 3);
  window.runs().set_filter("loss < ");  // half typed: the last sound filter stays
  EXPECT_EQ(window.runs().shown(), 3);
  window.runs().set_filter("run4");
  EXPECT_EQ(window.runs().shown(), 1);
  window.runs().set_filter("");
  window.runs().table().sortByColumn(column_loss, Qt::AscendingOrder);
  EXPECT_EQ(window.runs().table().model()->index(0, column_run).data().toString().toStdString(), "run4");
  window.runs().table().sortByColumn(column_loss, Qt::DescendingOrder);
  EXPECT_EQ(window.runs().table().model()->index(0, column_run).data().toString().toStdString(), "run0");
}

TEST_F(WindowTest, CompareShowsOnlyDifferences) {
  MainWindow& window = open();
  RunSpec other = tiny_spec();
  other.train.optimizer.lr = 1e-2;
  add_runs(window.bench(), tiny_spec(), 1);
  add_runs(window.bench(), other, 1);
  ASSERT_TRUE(wait_for([&] { return window.runs().shown() == 2; }));
  EXPECT_FALSE(window.action("compare")->isEnabled());
  window.runs().select({(*window.bench().runs())[0].id, (*window.bench().runs())[1].id});
  ASSERT_TRUE(window.action("compare")->isEnabled());
  window.action("compare")->trigger();
  auto* dialog = dynamic_cast<CompareDialog*>(QApplication::activeModalWidget());
  ASSERT_NE(dialog, nullptr);
  EXPECT_EQ(dialog->differences(), 1);  // the learning rate; the names and seeds are equal
  dialog->close();
}

TEST_F(WindowTest, FiveThousandRuns) {
  MainWindow& window = open();
  auto rows = std::make_shared<std::vector<RunRow>>();
  const std::string json = to_json(tiny_spec());
  for (int i = 0; i < 5000; ++i) {
    RunRow row;
    row.id = fmt::format("r{}", i);
    row.name = fmt::format("run{}", i);
    row.spec_json = json;
    row.spec_hash = spec_hash(tiny_spec());
    row.created_at = i;
    row.metrics["val_loss"].last = i * 1e-3;
    rows->push_back(row);
  }
  emit window.bench().store().runs_read(rows);
  EXPECT_EQ(window.runs().shown(), 5000);
  window.runs().set_filter("loss < 1 and chunk = 8");
  EXPECT_EQ(window.runs().shown(), 1000);

  // News about one run, as every half second while training: the table follows without a stall.
  auto news = std::make_shared<std::vector<RunRow>>(*rows);
  news->front().steps_done = 7;
  QElapsedTimer timer;
  timer.start();
  emit window.bench().store().runs_read(news);
  EXPECT_LE(timer.elapsed(), 50 * slowness);
  EXPECT_EQ(window.runs().shown(), 1000);
}

TEST_F(WindowTest, LayoutIsRememberedAndReset) {
  open();
  auto* curves = window_->findChild<QDockWidget*>("dock_curves");
  ASSERT_TRUE(curves->isVisible());
  window_->action("view_curves")->trigger();
  EXPECT_FALSE(curves->isVisible());
  window_->set_theme(ThemeKind::light);
  close();
  open();
  EXPECT_FALSE(window_->findChild<QDockWidget*>("dock_curves")->isVisible());
  EXPECT_EQ(window_->theme_kind(), ThemeKind::light);
  window_->action("reset_layout")->trigger();
  EXPECT_TRUE(window_->findChild<QDockWidget*>("dock_curves")->isVisible());
}

TEST_F(WindowTest, ChoicesOfPanelsAndCanvasesAreRemembered) {
  open();
  window_->curves().set_choices({{"metrics", QStringList{"val_loss", "step_ms"}},
                                 {"smoothing", 40},
                                 {"x_axis", "tokens"},
                                 {"mean_over_seeds", true}});
  window_->canvases().tradeoff().set_choices({{"x", "tokens_per_s"}, {"log_y", true}});
  views::View& states = window_->canvases().canvas("states")->view();
  states.set_options({{"values", "state_k"}, {"sorted", "yes"}, {"scale", "gamma"}});
  const QVariantMap curves = window_->curves().choices(), tradeoff = window_->canvases().tradeoff().choices();
  const views::Options options = states.options();
  EXPECT_EQ(options.at("sorted"), "yes");
  close();
  open();
  EXPECT_EQ(window_->curves().choices(), curves);
  EXPECT_EQ(window_->canvases().tradeoff().choices(), tradeoff);
  EXPECT_EQ(window_->canvases().canvas("states")->view().options(), options);
}

TEST_F(WindowTest, PresetsFillTheLayersThereAre) {
  MainWindow& window = open();
  window.experiment().set_spec(tiny_spec());
  ASSERT_FALSE(window.experiment().presets().actions().isEmpty());
  for (QAction* entry : window.experiment().presets().actions()) {
    auto* row = qobject_cast<QPushButton*>(qobject_cast<QWidgetAction*>(entry)->defaultWidget());
    ASSERT_NE(row, nullptr);
    row->click();
    const std::string name = entry->objectName().toStdString();
    const std::vector<LayerConfig>& layers = window.experiment().spec().model.layers;
    EXPECT_GE(layers.size(), 1u) << name;
    EXPECT_EQ(layers.size() % parse_layers(name)->size(), 0u) << name;
    EXPECT_EQ(layers.front().kind, parse_layers(name)->front().kind) << name;
  }
  window.action("presets")->trigger();
  EXPECT_TRUE(wait_for([&] { return window.experiment().presets().isVisible(); }));
  EXPECT_GT(window.experiment().presets().width(), 500) << "names, descriptions and stacks are readable";
  EXPECT_GT(window.experiment().presets().height(), 40 * window.experiment().presets().actions().size());
  keep(picture(window.experiment().presets()), "presets");
  window.experiment().presets().close();
}

TEST_F(WindowTest, ADatabaseWithRunsOpensOnItsNewest) {
  open();
  ASSERT_NE(train(tiny_spec()), nullptr);
  const std::string id = window_->bench().runs()->front().id;
  close();
  MainWindow& window = open();
  window.open_newest_run();
  ASSERT_TRUE(wait_for([&] { return window.bench().inspect_status().run_id == id; }));
  EXPECT_EQ(window.bench().subject(), views::Subject::stored);
  EXPECT_EQ(window.runs().selected(), std::vector<std::string>{id});
}

TEST_F(WindowTest, ForeignAndBrokenDatabasesAreRefusedUntouched) {
  const auto refused = [&](const std::string& content) {
    const std::filesystem::path path = folder_.filePath("foreign.db").toStdString();
    std::ofstream(path, std::ios::binary) << content;
    const Result<std::unique_ptr<Workbench>> bench = Workbench::open(path);
    EXPECT_FALSE(bench);
    std::ifstream file(path, std::ios::binary);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), content);
    return bench ? std::string() : bench.error().message;
  };
  EXPECT_NE(refused("this is a letter to my aunt, not a database").find("foreign.db"), std::string::npos);
  EXPECT_FALSE(refused(std::string("SQLite format 3\0", 16) + std::string(100, '\x7f')).empty());
  EXPECT_FALSE(Workbench::open(folder_.path().toStdString()));  // a folder
}

}  // namespace
}  // namespace rat::app
