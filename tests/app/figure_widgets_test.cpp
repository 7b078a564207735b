// The widgets of the window, driven without one.
#include <gtest/gtest.h>

#include <QComboBox>
#include <QFileInfo>
#include <QMouseEvent>
#include <QPushButton>
#include <QSignalSpy>
#include <QSlider>
#include <QTest>
#include <QThread>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <set>

#include "app/figure/curves_panel.h"
#include "app/figure/figure_dialog.h"
#include "app/figure/label_placement.h"
#include "app/figure/metric_plot.h"
#include "app/figure/pattern_picker.h"
#include "app/figure/plot_widget.h"
#include "app/figure/tickers.h"
#include "app/figure/tradeoff_canvas.h"
#include "tests/app/figure_fixture.h"
#include "tests/views/plots_store.h"

namespace rat::app {
namespace {

// Screenshots stay for people to look at when RAT_SCREENSHOTS names a folder.
QImage shot(QWidget& widget, const std::string& name) {
  QApplication::processEvents();  // plots redraw from the event loop
  const QImage image = widget.grab().toImage();
  if (const char* folder = std::getenv("RAT_SCREENSHOTS"))
    image.save(QString("%1/%2.png").arg(folder, QString::fromStdString(name)));
  return image;
}

std::size_t color_count(const QImage& image) {
  std::set<QRgb> colors;
  for (int y = 0; y < image.height(); y += 2)
    for (int x = 0; x < image.width(); x += 2) colors.insert(image.pixel(x, y));
  return colors.size();
}

PlotDescription line_plot(int points) {
  PlotDescription plot;
  plot.x.label = "step";
  plot.y.label = "loss, nats";
  Series line;
  line.name = "a";
  line.run_id = "r1";
  for (int i = 1; i <= points; ++i) line.x.push_back(i), line.y.push_back(5.0 / i + 1);
  plot.series = {line};
  return plot;
}

class FigureWidgets : public ::testing::Test {
 protected:
  std::vector<std::string> fill(const std::filesystem::path& database) {
    std::vector<test::StoredRun> runs;
    const std::vector<std::tuple<std::string, double, double, double>> kinds{
        {"attention*4", 1.421, 1100, 8.4e6},     {"rat:4*4", 1.424, 1180, 2.1e6}, {"rat:16*4", 1.437, 5200, 5.3e5},
        {"rat:64*4", 1.489, 6400, 1.4e5},        {"rat:256*4", 1.541, 6800, 4e4}, {"rnn*4", 1.561, 7000, 4e3},
        {"rat:16,swa:128*2", 1.412, 4900, 5.6e5}};
    for (const auto& [layers, loss, decode, cache] : kinds)
      for (uint64_t seed = 1; seed <= 3; ++seed)
        runs.push_back(test::training_like(layers, seed, 400, loss, decode, cache));
    return test::write_runs(database, runs);
  }

  test::Folder folder_;
};

TEST_F(FigureWidgets, NewDataNeverChangesTheUsersZoom) {
  PlotWidget plot;
  plot.resize(400, 300);
  plot.show_plot(line_plot(100), theme(ThemeKind::dark), true);
  EXPECT_TRUE(plot.following());
  plot.show_plot(line_plot(200), theme(ThemeKind::dark), true);
  EXPECT_GT(plot.xAxis->range().upper, 199);
  shot(plot, "plot");
  QSignalSpy zoomed(&plot, &PlotWidget::x_range_changed);
  const QPointF middle = plot.axisRect()->center();
  QWheelEvent wheel(middle, middle, {}, {0, 120}, Qt::NoButton, Qt::NoModifier, Qt::NoScrollPhase, false);
  QApplication::sendEvent(&plot, &wheel);
  EXPECT_EQ(zoomed.count(), 1);
  EXPECT_FALSE(plot.following());
  const QCPRange x = plot.xAxis->range(), y = plot.yAxis->range();
  EXPECT_LT(x.size(), 199);
  plot.show_plot(line_plot(400), theme(ThemeKind::light), true);
  EXPECT_EQ(plot.xAxis->range().lower, x.lower);
  EXPECT_EQ(plot.xAxis->range().upper, x.upper);
  EXPECT_EQ(plot.yAxis->range().upper, y.upper);
  ASSERT_TRUE(plot.x_limits());
  QTest::mouseDClick(&plot, Qt::LeftButton, {}, middle.toPoint());
  EXPECT_TRUE(plot.following());
  EXPECT_GT(plot.xAxis->range().upper, 399);
  EXPECT_FALSE(plot.x_limits());
}

TEST_F(FigureWidgets, KeysToggleTheLogAxes) {
  PlotWidget plot;
  plot.resize(400, 300);
  plot.show_plot(line_plot(100), theme(ThemeKind::dark), true);
  QTest::keyClick(&plot, Qt::Key_L);
  EXPECT_EQ(plot.yAxis->scaleType(), QCPAxis::stLogarithmic);
  EXPECT_EQ(plot.xAxis->scaleType(), QCPAxis::stLinear);
  QTest::keyClick(&plot, Qt::Key_L, Qt::ShiftModifier);
  EXPECT_EQ(plot.xAxis->scaleType(), QCPAxis::stLogarithmic);
  plot.show_plot(line_plot(200), theme(ThemeKind::dark), true);
  EXPECT_EQ(plot.yAxis->scaleType(), QCPAxis::stLogarithmic) << "new data keeps the user's scale";
  QTest::keyClick(&plot, Qt::Key_L);
  EXPECT_EQ(plot.yAxis->scaleType(), QCPAxis::stLinear);
}

TEST_F(FigureWidgets, ClickOpensTheRunBehindAPoint) {
  PlotWidget plot;
  plot.resize(400, 300);
  plot.show_plot(line_plot(20), theme(ThemeKind::dark), true);
  shot(plot, "plot");
  QSignalSpy clicked(&plot, &PlotWidget::point_clicked), moved(&plot, &PlotWidget::cursor_moved);
  const QPoint at(static_cast<int>(plot.xAxis->coordToPixel(10)), static_cast<int>(plot.yAxis->coordToPixel(1.5)));
  // Sent, not simulated: without a display there is no pointer to move.
  QMouseEvent move(QEvent::MouseMove, at, plot.mapToGlobal(at), Qt::NoButton, Qt::NoButton, Qt::NoModifier);
  QApplication::sendEvent(&plot, &move);
  QTest::mouseClick(&plot, Qt::LeftButton, {}, at);
  ASSERT_EQ(clicked.count(), 1);
  EXPECT_EQ(clicked[0][0].toString(), "r1");
  ASSERT_GE(moved.count(), 1);
  EXPECT_NEAR(moved.last()[0].toDouble(), 10, 0.3);
}

TEST_F(FigureWidgets, CurvesPanelShowsStoredRunsInBothThemes) {
  const auto ids = fill(folder_.path() / "runs.db");
  CurvesPanel panel(folder_.path() / "runs.db");
  panel.resize(340, 820);
  panel.set_theme(theme(ThemeKind::dark));
  EXPECT_GT(color_count(shot(panel, "curves-empty")), 3u);
  QSignalSpy updated(&panel, &CurvesPanel::updated);
  panel.set_runs({ids[0], ids[6], ids[12]}, ids[15]);
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 0; }));
  const auto plots = panel.findChildren<MetricPlot*>();
  ASSERT_EQ(plots.size(), 5);
  EXPECT_EQ(plots[0]->plot().plot().series.size(), 4u) << "the live run is shown too";
  const QImage dark = shot(panel, "curves-dark");
  panel.set_theme(theme(ThemeKind::light));
  const QImage light = shot(panel, "curves-light");
  EXPECT_GT(color_count(dark), 50u);
  EXPECT_NE(dark, light);
  // One cursor in all plots.
  emit plots[0]->plot().cursor_moved(200);
  shot(panel, "curves-cursor");
  // Smoothing is part of the figure that Export makes.
  panel.findChild<QSlider*>()->setValue(200);
  EXPECT_NEAR(panel.recipe().smoothing, 0.99, 1e-9);
  EXPECT_EQ(panel.recipe().runs.size(), 4u);
  // Nothing new in the database: nothing to do.
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 1; }));
  const auto before = updated.count();
  panel.refresh();
  EXPECT_FALSE(test::wait_until([&] { return updated.count() > before; }, 300));
}

TEST_F(FigureWidgets, CurvesPanelFollowsALiveRunAndAResumedOne) {
  const auto path = folder_.path() / "runs.db";
  auto store = StoreWriter::open(path);
  ASSERT_TRUE(store);
  NewRun row;
  row.name = "live";
  row.spec_json = "{}";
  row.spec_hash = "h";
  row.layers = "rat:16*2";
  const auto id = (*store)->create_run(row);
  ASSERT_TRUE(id);
  ASSERT_TRUE((*store)->start_run(*id));
  const auto log = [&](int64_t from, int64_t to, double value) {
    for (int64_t step = from; step <= to; ++step) (*store)->log(*id, "loss", step, value, static_cast<double>(step));
    ASSERT_TRUE((*store)->flush());
  };
  log(1, 50, 3);
  CurvesPanel panel(path);
  QSignalSpy updated(&panel, &CurvesPanel::updated);
  panel.set_runs({}, *id);
  const auto loss = [&]() -> const Series& { return panel.findChildren<MetricPlot*>()[0]->plot().plot().series.at(0); };
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 0; }));
  EXPECT_EQ(loss().x.back(), 50);
  log(51, 80, 2);
  panel.refresh();
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 1; }));
  EXPECT_EQ(loss().x.back(), 80);
  // Resumed from step 60: what was computed after it is forgotten and comes again, different.
  ASSERT_TRUE((*store)->truncate_metrics(*id, 60));
  log(61, 90, 7);
  panel.refresh();
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 2; }));
  EXPECT_EQ(loss().x.size(), 90u);
}

TEST_F(FigureWidgets, TradeoffCanvasShowsAndTrains) {
  const auto path = folder_.path() / "runs.db";
  const auto ids = fill(path);
  TradeoffCanvas canvas(path);
  canvas.resize(860, 640);
  RunSpec base;
  base.train.seq_len = 512;
  canvas.set_base_spec(base);
  QSignalSpy updated(&canvas, &TradeoffCanvas::updated);
  canvas.set_theme(theme(ThemeKind::light));
  ASSERT_TRUE(test::wait_until([&] { return updated.count() > 0; }));
  canvas.set_selected_run(canvas.recipe().runs.empty() ? "" : ids[6]);
  EXPECT_EQ(canvas.recipe().runs.size(), 21u) << "no sweep from here yet: every run with results";
  EXPECT_GT(color_count(shot(canvas, "tradeoff-light")), 50u);
  canvas.set_theme(theme(ThemeKind::dark));
  EXPECT_GT(color_count(shot(canvas, "tradeoff-dark")), 50u);
  // rat:4, rat:16, rat:64, attention and rnn are preselected and trained with seed 1: nothing to do.
  auto* picker = canvas.findChild<PatternPicker*>();
  ASSERT_TRUE(picker->selected_specs());
  EXPECT_TRUE(picker->selected_specs()->empty());
  std::vector<RunSpec> asked;
  QObject::connect(&canvas, &TradeoffCanvas::enqueue_requested,
                   [&](const std::vector<RunSpec>& specs, const std::string& sweep) {
                     asked = specs;
                     EXPECT_FALSE(sweep.empty());
                   });
  picker->select_patterns({"rat:1", "rat:16", "rat:16,attention"});
  emit picker->train_requested();
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_EQ(format_layers(asked[0].model.layers), "rat:1*4");
  EXPECT_EQ(asked[1].model.layers[3].kind, "attention");
  // A click on a point opens its run.
  QSignalSpy clicked(&canvas, &TradeoffCanvas::run_clicked);
  auto* plot = canvas.findChild<PlotWidget*>();
  const Series& points = plot->plot().series.back();
  QTest::mouseClick(plot, Qt::LeftButton, {},
                    QPointF(plot->xAxis->coordToPixel(points.x[0]), plot->yAxis->coordToPixel(points.y[0])).toPoint());
  ASSERT_EQ(clicked.count(), 1);
  EXPECT_EQ(clicked[0][0].toString().toStdString(), points.point_runs[0]);
  // The point stands for three seeds: all of them are given, and each of them rings it.
  const QStringList seeds = clicked[0][1].toStringList();
  ASSERT_EQ(seeds.size(), 3);
  canvas.set_selected_run("");
  const QImage without = shot(canvas, "tradeoff");
  QImage first;
  for (const QString& seed : seeds) {
    canvas.set_selected_run(seed.toStdString());
    const QImage ringed = shot(canvas, "tradeoff-ring");
    EXPECT_NE(ringed, without) << seed.toStdString();
    if (first.isNull()) first = ringed;
    EXPECT_EQ(ringed, first) << "the same point";
  }
}

TEST_F(FigureWidgets, PatternsAreRepeatedToTheDepthOrRefused) {
  EXPECT_EQ(format_layers(*repeat_to_depth("rat:16", 4)), "rat:16*4");
  EXPECT_EQ(format_layers(*repeat_to_depth("rat:16,swa:128", 4)), "rat:16,swa:128*2");
  EXPECT_FALSE(repeat_to_depth("rat:16,swa:128", 3));
  EXPECT_FALSE(repeat_to_depth("rta:16", 4));
}

TEST_F(FigureWidgets, DialogPreviewsAndSaves) {
  const auto path = folder_.path() / "runs.db";
  const auto ids = fill(path);
  const auto store = StoreReader::open(path);
  Recipe recipe;
  recipe.runs = {ids[0], ids[6]};
  recipe.smoothing = 0.93;
  FigureDialog dialog(recipe, [&](const Recipe& r) { return build_plot(r, *store, figure_max_points); });
  ASSERT_TRUE(test::wait_until([&] { return dialog.ready(); }));
  EXPECT_GT(color_count(shot(dialog, "dialog-curves")), 50u);
  EXPECT_EQ(dialog.recipe().smoothing, 0.93) << "an untouched slider changes nothing";
  for (QComboBox* box : dialog.findChildren<QComboBox*>())
    if (const int at = box->findData("icml"); at >= 0) box->setCurrentIndex(at);
  ASSERT_TRUE(test::wait_until([&] { return dialog.recipe().venue == "icml"; }));
  QSignalSpy saved(&dialog, &FigureDialog::saved);
  const auto files = dialog.save_as(folder_.path() / "loss");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->size(), 3u);
  for (const auto& file : *files) EXPECT_TRUE(std::filesystem::exists(file));
  ASSERT_EQ(saved.count(), 1);
  EXPECT_TRUE(saved[0][0].toString().contains("loss.pdf"));
}

// A database that is slow to answer holds up neither the window nor what comes after the answer.
TEST_F(FigureWidgets, DialogBuildsOffTheWindowsThread) {
  auto trace = std::make_shared<TraceSnapshot>(test::small_trace(97, 6));
  Recipe recipe;
  recipe.kind = FigureKind::attention;
  std::atomic<int> builds = 0;
  std::atomic<bool> on_window_thread = false, may_go_on = false;
  QThread* const window_thread = QThread::currentThread();
  const auto slow = [&](const Recipe& r) -> Result<PlotDescription> {
    on_window_thread = on_window_thread || QThread::currentThread() == window_thread;
    while (!may_go_on) QThread::msleep(1);
    ++builds;
    return build_plot(r, *trace);
  };
  FigureDialog dialog(recipe, slow, trace);
  for (QComboBox* box : dialog.findChildren<QComboBox*>())
    if (const int at = box->findData("icml"); at >= 0) box->setCurrentIndex(at);
  EXPECT_FALSE(test::wait_until([&] { return dialog.ready(); }, 300));
  may_go_on = true;
  ASSERT_TRUE(test::wait_until([&] { return dialog.ready(); }));
  EXPECT_EQ(dialog.recipe().venue, "icml") << "the preview shows an older form";
  EXPECT_EQ(builds, 2);
  EXPECT_FALSE(on_window_thread);
}

TEST_F(FigureWidgets, DialogSavesTheTraceOfAMap) {
  auto trace = std::make_shared<TraceSnapshot>(test::small_trace(97, 6));
  Recipe recipe;
  recipe.kind = FigureKind::attention;
  FigureDialog dialog(
      recipe, [trace](const Recipe& r) { return build_plot(r, *trace); }, trace);
  ASSERT_TRUE(test::wait_until([&] { return dialog.ready(); }));
  shot(dialog, "dialog-attention");
  const auto files = dialog.save_as(folder_.path() / "map");
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_TRUE(std::filesystem::exists(folder_.path() / "map-trace.safetensors"));
}

TEST_F(FigureWidgets, LabelsDoNotCollideWhereThereIsRoom) {
  // Two points so close that labels on the same side would overlap, and one at the right edge.
  const std::vector<LabelledPoint> points{
      {{100, 100}, 6, {60, 12}}, {{112, 104}, 8, {60, 12}}, {{395, 100}, 5, {60, 12}}};
  const QRectF area(0, 0, 400, 300);
  const auto boxes = place_labels(points, {}, area, 3);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    EXPECT_TRUE(area.contains(boxes[i])) << i;
    for (std::size_t j = 0; j < i; ++j) EXPECT_FALSE(boxes[i].intersects(boxes[j])) << i << ", " << j;
    for (const LabelledPoint& point : points)
      EXPECT_FALSE(boxes[i].intersects(
          QRectF(point.at.x() - point.radius, point.at.y() - point.radius, 2 * point.radius, 2 * point.radius)));
  }
}

TEST_F(FigureWidgets, TickLabelsSayWhereTheTicksAre) {
  PlotWidget plot;
  plot.resize(640, 300);
  plot.show_plot(line_plot(10), theme(ThemeKind::dark), true);
  for (const double top : {0.7, 1.0, 17.0, 130.0, 999.0, 2600.0, 61300.0, 4.1e6})
    for (const double bottom : {0.0, 0.31 * top, 0.93 * top}) {
      plot.xAxis->setRange(bottom, top);
      plot.replot();
      const QVector<double> ticks = plot.xAxis->tickVector();
      const QVector<QString> labels = plot.xAxis->tickVectorLabels();
      ASSERT_GE(labels.size(), 2) << top;
      for (qsizetype i = 0; i < labels.size(); ++i) {
        const QStringList parts = labels[i].split(' ');
        const double unit = parts.size() < 2 ? 1 : parts[1] == "k" ? 1e3 : parts[1] == "M" ? 1e6 : std::nan("");
        EXPECT_NEAR(parts[0].toDouble() * unit, ticks.at(i), 1e-6 * top) << labels[i].toStdString();
      }
    }
}

TEST_F(FigureWidgets, LengthsOnALog2AxisAreExact) {
  PlotWidget plot;
  plot.resize(640, 300);
  PlotDescription description = line_plot(10);
  description.x.scale = Scale::log2;
  plot.show_plot(description, theme(ThemeKind::dark), true);
  plot.xAxis->setRange(512, 32768);
  plot.replot();
  const QVector<QString> labels = plot.xAxis->tickVectorLabels();
  EXPECT_EQ(QStringList(labels.begin(), labels.end()).join(' ').toStdString(), "512 1024 2048 4096 8192 16384 32768");
}

TEST_F(FigureWidgets, SymlogIsItsOwnInverse) {
  for (const double v : {-1e6, -3.0, -1e-9, 0.0, 2e-5, 7.0, 1e8})
    EXPECT_NEAR(from_symlog(to_symlog(v, 0.01), 0.01), v, 1e-9 * std::abs(v) + 1e-15);
}

}  // namespace
}  // namespace rat::app
