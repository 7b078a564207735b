#include "app/figure/curves_panel.h"

#include <QCheckBox>
#include <QComboBox>
#include <QGridLayout>
#include <QLabel>
#include <QMenu>
#include <QScrollArea>
#include <QSlider>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <optional>

#include "app/figure/metric_plot.h"
#include "app/figure/plot_feed.h"
#include "experiments/statistics.h"
#include "views/plots/metric_info.h"

namespace rat::app {
namespace {

constexpr int slider_steps = 300;
constexpr std::size_t most_legend_entries = 8;

// Even steps of the slider are even steps of log(1 - s): fine where the half-life is long.
double smoothing_of(int slider) {
  return slider >= slider_steps ? 0.999 : 1 - std::pow(10, -3.0 * slider / slider_steps);
}

QString smoothing_text(double s) {
  if (s <= 0) return "off";
  return QString("%1 · half-life %2 points").arg(s, 0, 'f', s > 0.989 ? 3 : 2).arg(smoothing_half_life(s), 0, 'g', 3);
}

// Said once, in the first plot.
QString no_run_text(std::size_t plot) {
  return plot == 0 ? "No run selected.\nPress Start, or open a run below." : QString();
}

}  // namespace

struct CurvesPanel::Impl {
  CurvesPanel* panel;
  std::optional<PlotFeed> feed;
  const Theme* theme = &rat::theme(ThemeKind::dark);
  std::vector<std::string> metrics{"loss", "val_loss", "tokens_per_s", "grad_norm", "lr"};
  std::vector<std::string> available = metrics;
  std::vector<MetricPlot*> plots;
  std::shared_ptr<const PlotAnswer> answer;
  std::string touched = "loss";  // what Export takes
  QSlider* slider;
  QLabel *smoothing_label, *legend, *footer;
  QComboBox* x_axis;
  QCheckBox* collapse;
  QToolButton *metric_button, *follow, *export_button;
  QVBoxLayout* stack;

  void build_ui();
  void build_controls(QGridLayout& grid);
  void rebuild_stack();
  void fill_metric_menu();
  void toggle_metric(const std::string& metric, bool on);
  void add_plot(const std::string& metric);
  PlotRequest request() const;
  void ask(bool force) { feed->ask(force); }
  void show_answer();
  void show_legend(const PlotDescription& plot);
  void set_cursor(double x);
  void link_zoom(PlotWidget* source, double low, double high);
  Recipe recipe_of(const std::string& metric) const;
};

CurvesPanel::CurvesPanel(const std::filesystem::path& database, QWidget* parent)
    : QWidget(parent), impl_(std::make_unique<Impl>()) {
  impl_->panel = this;
  impl_->feed.emplace(
      database, [this] { return impl_->request(); },
      [this](std::shared_ptr<const PlotAnswer> answer) {
        impl_->answer = std::move(answer);
        impl_->show_answer();
        emit updated();
      });
  impl_->build_ui();
}

CurvesPanel::~CurvesPanel() { impl_->feed.reset(); }

void CurvesPanel::Impl::build_ui() {
  auto* column = new QVBoxLayout(panel);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  auto* grid = new QGridLayout;
  grid->setContentsMargins(8, 8, 8, 4);
  grid->setHorizontalSpacing(8);
  grid->setVerticalSpacing(4);
  build_controls(*grid);
  column->addLayout(grid);
  legend = new QLabel(panel);
  legend->setTextFormat(Qt::RichText);
  legend->setWordWrap(true);
  legend->setContentsMargins(8, 2, 8, 4);
  QObject::connect(legend, &QLabel::linkActivated, panel, [this](const QString& id) { emit panel->run_clicked(id); });
  column->addWidget(legend);
  auto* area = new QScrollArea(panel);
  area->setWidgetResizable(true);
  area->setFrameShape(QFrame::NoFrame);
  area->setHorizontalScrollBarPolicy(Qt::ScrollBarAlwaysOff);
  auto* inside = new QWidget(area);
  stack = new QVBoxLayout(inside);
  stack->setContentsMargins(0, 0, 0, 0);
  stack->setSpacing(2);
  area->setWidget(inside);
  column->addWidget(area, 1);
  footer = new QLabel(panel);
  footer->setIndent(8);
  footer->setFixedHeight(24);
  column->addWidget(footer);
  rebuild_stack();
}

void CurvesPanel::Impl::build_controls(QGridLayout& grid) {
  slider = new QSlider(Qt::Horizontal, panel);
  slider->setRange(0, slider_steps);
  slider->setValue(116);  // s = 0.93
  slider->setAccessibleName("smoothing");
  slider->setToolTip("Debiased exponential moving average over all points, before they are thinned for the screen");
  smoothing_label = new QLabel(smoothing_text(smoothing_of(slider->value())), panel);
  x_axis = new QComboBox(panel);
  x_axis->setAccessibleName("x axis");
  for (const char* name : {"step", "tokens", "wall"}) x_axis->addItem(QString(name) == "wall" ? "time, s" : name, name);
  collapse = new QCheckBox("mean over seeds", panel);
  collapse->setToolTip("One line for each configuration: mean and standard deviation over its seeds");
  metric_button = new QToolButton(panel);
  metric_button->setText("Metrics");
  metric_button->setPopupMode(QToolButton::InstantPopup);
  metric_button->setMenu(new QMenu(metric_button));
  follow = new QToolButton(panel);
  follow->setText("Follow");
  follow->setCheckable(true);
  follow->setChecked(true);
  follow->setToolTip("Fit the axes to new data (A, or double-click a plot)");
  export_button = new QToolButton(panel);
  export_button->setText("Figure…");
  export_button->setToolTip("Export the plot touched last (Ctrl+E)");
  grid.addWidget(new QLabel("Smoothing", panel), 0, 0);
  grid.addWidget(slider, 0, 1, 1, 3);
  grid.addWidget(smoothing_label, 1, 1, 1, 3);
  grid.addWidget(new QLabel("x axis", panel), 2, 0);
  grid.addWidget(x_axis, 2, 1);
  grid.addWidget(collapse, 2, 2, 1, 2);
  grid.addWidget(metric_button, 3, 1);
  grid.addWidget(follow, 3, 2);
  grid.addWidget(export_button, 3, 3);
  grid.setColumnStretch(3, 1);
  QObject::connect(slider, &QSlider::valueChanged, panel, [this](int value) {
    smoothing_label->setText(smoothing_text(smoothing_of(value)));
    set_cursor(std::nan(""));
    ask(true);
  });
  QObject::connect(x_axis, &QComboBox::currentIndexChanged, panel, [this] {
    for (MetricPlot* plot : plots) plot->plot().set_follow(true);
    ask(true);
  });
  QObject::connect(collapse, &QCheckBox::toggled, panel, [this] { ask(true); });
  QObject::connect(metric_button->menu(), &QMenu::aboutToShow, panel, [this] { fill_metric_menu(); });
  QObject::connect(follow, &QToolButton::toggled, panel, [this](bool on) {
    for (MetricPlot* plot : plots) plot->plot().set_follow(on);
  });
  QObject::connect(export_button, &QToolButton::clicked, panel,
                   [this] { emit panel->export_requested(panel->recipe()); });
}

void CurvesPanel::Impl::fill_metric_menu() {
  QMenu* menu = metric_button->menu();
  menu->clear();
  std::vector<std::string> all = metrics;
  for (const std::string& metric : available)
    if (std::find(all.begin(), all.end(), metric) == all.end()) all.push_back(metric);
  for (const std::string& metric : all) {
    QAction* action = menu->addAction(QString::fromStdString(metric_info(metric).title));
    action->setCheckable(true);
    action->setChecked(std::find(metrics.begin(), metrics.end(), metric) != metrics.end());
    QObject::connect(action, &QAction::toggled, panel, [this, metric](bool on) { toggle_metric(metric, on); });
  }
}

void CurvesPanel::Impl::toggle_metric(const std::string& metric, bool on) {
  std::erase(metrics, metric);
  if (on) metrics.push_back(metric);
  rebuild_stack();
  ask(true);
}

void CurvesPanel::Impl::rebuild_stack() {
  for (MetricPlot* plot : plots) {
    stack->removeWidget(plot);
    plot->deleteLater();
  }
  plots.clear();
  for (const std::string& metric : metrics) add_plot(metric);
}

void CurvesPanel::Impl::add_plot(const std::string& metric) {
  auto* plot = new MetricPlot(metric, panel);
  plots.push_back(plot);
  stack->addWidget(plot, 1);
  PlotWidget* widget = &plot->plot();
  QObject::connect(widget, &PlotWidget::cursor_moved, panel, [this](double x) { set_cursor(x); });
  QObject::connect(widget, &PlotWidget::point_clicked, panel, [this](const QString& id) {
    if (!id.isEmpty()) emit panel->run_clicked(id);
  });
  QObject::connect(widget, &PlotWidget::x_range_changed, panel, [this, widget, metric](double low, double high) {
    touched = metric;
    link_zoom(widget, low, high);
  });
  QObject::connect(widget, &PlotWidget::scales_changed, panel, [this, metric] { touched = metric; });
  QObject::connect(widget, &PlotWidget::following_changed, panel, [this](bool on) {
    const QSignalBlocker blocked(follow);
    follow->setChecked(on);
    if (on)
      for (MetricPlot* other : plots) other->plot().set_follow(true);
  });
  QObject::connect(widget, &QCustomPlot::mousePress, panel, [this, metric] { touched = metric; });
}

Recipe CurvesPanel::Impl::recipe_of(const std::string& metric) const {
  Recipe recipe;
  recipe.kind = FigureKind::curves;
  recipe.runs = feed->runs();
  recipe.metric = metric;
  recipe.smoothing = metric == "lr" || metric.starts_with("val_") ? 0 : smoothing_of(slider->value());
  recipe.x_axis = x_axis->currentData().toString().toStdString();
  recipe.collapse_seeds = collapse->isChecked();
  return recipe;
}

PlotRequest CurvesPanel::Impl::request() const {
  PlotRequest request;
  for (const std::string& metric : metrics) request.recipes.push_back(recipe_of(metric));
  return request;
}

void CurvesPanel::Impl::show_answer() {
  if (!answer->metrics.empty()) available = answer->metrics;
  const PlotDescription* any = nullptr;
  for (std::size_t i = 0; i < plots.size(); ++i) {
    // The metrics may have changed since the question was asked.
    std::size_t k = 0;
    while (k < answer->recipes.size() && answer->recipes[k].metric != plots[i]->metric()) ++k;
    if (k == answer->recipes.size()) continue;
    const bool last = i + 1 == plots.size();
    if (answer->plots[k]) {
      plots[i]->show(*answer->plots[k], *theme, last);
      if (!any) any = answer->plots[k].get();
    } else {
      plots[i]->show_empty(feed->runs().empty() ? no_run_text(i) : QString("no values yet"), *theme);
    }
  }
  if (any)
    show_legend(*any);
  else
    legend->clear();
  set_cursor(std::nan(""));
}

void CurvesPanel::Impl::show_legend(const PlotDescription& plot) {
  QStringList entries;
  std::size_t more = 0;
  for (const Series& series : plot.series) {
    if (series.name.empty()) continue;
    if (static_cast<std::size_t>(entries.size()) == most_legend_entries) {
      ++more;
      continue;
    }
    const QString color = QString::fromStdString(theme->series[static_cast<std::size_t>(series.color) % 8].hex());
    const QString name = QString::fromStdString(series.name).toHtmlEscaped();
    const QString text = QString::fromStdString(theme->text.hex());
    entries.push_back(series.run_id.empty() ? QString("<span style='color:%1'>●</span>&nbsp;%2").arg(color, name)
                                            : QString("<nobr><span style='color:%1'>●</span>&nbsp;<a href='%2' "
                                                      "style='color:%3;text-decoration:none'>%4</a></nobr>")
                                                  .arg(color, QString::fromStdString(series.run_id), text, name));
  }
  if (more > 0) entries.push_back(QString("and %1 more").arg(more));
  legend->setText(entries.join("&nbsp;&nbsp; "));
}

void CurvesPanel::Impl::set_cursor(double x) {
  const std::optional<double> at = std::isnan(x) ? std::nullopt : std::optional(x);
  for (MetricPlot* plot : plots) plot->set_cursor(at);
  const QString unit = x_axis->currentText();
  footer->setText(
      at ? QString("cursor: %1 %2 in all plots").arg(unit, QString::fromStdString(short_number(std::round(x))))
         : QString("last %1 · L log y · Ctrl+wheel zoom · A fit")
               .arg(smoothing_of(slider->value()) > 0 ? "smoothed" : "values"));
}

void CurvesPanel::Impl::link_zoom(PlotWidget* source, double low, double high) {
  for (MetricPlot* plot : plots)
    if (&plot->plot() != source) plot->plot().set_x_range(low, high);
}

void CurvesPanel::set_runs(std::vector<std::string> ids, const std::string& live_id) {
  if (!live_id.empty() && std::find(ids.begin(), ids.end(), live_id) == ids.end()) ids.push_back(live_id);
  impl_->feed->set_runs(std::move(ids));
}

void CurvesPanel::set_database(const std::filesystem::path& database) { impl_->feed->set_database(database); }

void CurvesPanel::refresh() { impl_->feed->ask(false); }

QVariantMap CurvesPanel::choices() const {
  QStringList metrics;
  for (const std::string& metric : impl_->metrics) metrics.push_back(QString::fromStdString(metric));
  return {{"metrics", metrics},
          {"smoothing", impl_->slider->value()},
          {"x_axis", impl_->x_axis->currentData()},
          {"mean_over_seeds", impl_->collapse->isChecked()}};
}

void CurvesPanel::set_choices(const QVariantMap& choices) {
  const QSignalBlocker slider(impl_->slider), x_axis(impl_->x_axis), collapse(impl_->collapse);
  if (choices.contains("smoothing")) impl_->slider->setValue(choices["smoothing"].toInt());
  impl_->smoothing_label->setText(smoothing_text(smoothing_of(impl_->slider->value())));
  if (const int at = impl_->x_axis->findData(choices["x_axis"]); at >= 0) impl_->x_axis->setCurrentIndex(at);
  impl_->collapse->setChecked(choices["mean_over_seeds"].toBool());
  if (choices.contains("metrics")) {
    impl_->metrics.clear();
    for (const QString& metric : choices["metrics"].toStringList()) impl_->metrics.push_back(metric.toStdString());
    impl_->rebuild_stack();
  }
  impl_->ask(true);
}

void CurvesPanel::set_theme(const Theme& theme) {
  impl_->theme = &theme;
  const QString secondary = QString("color:%1").arg(QString::fromStdString(theme.secondary.hex()));
  impl_->footer->setStyleSheet(secondary);
  impl_->smoothing_label->setStyleSheet(secondary);
  if (impl_->answer)
    impl_->show_answer();
  else
    for (std::size_t i = 0; i < impl_->plots.size(); ++i) impl_->plots[i]->show_empty(no_run_text(i), theme);
}

Recipe CurvesPanel::recipe() const {
  Recipe recipe = impl_->recipe_of(impl_->touched);
  for (const MetricPlot* plot : impl_->plots) {
    if (plot->metric() != impl_->touched) continue;
    recipe.x.limits = plot->plot().x_limits();
    recipe.y.limits = plot->plot().y_limits();
    if (plot->plot().log_x()) recipe.x.scale = Scale::log10;
    if (plot->plot().log_y()) recipe.y.scale = Scale::log10;
  }
  return recipe;
}

}  // namespace rat::app
