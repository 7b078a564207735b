#include "app/figure/tradeoff_canvas.h"

#include <QCheckBox>
#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <optional>
#include <utility>

#include "app/figure/pattern_picker.h"
#include "app/figure/plot_feed.h"
#include "app/figure/plot_widget.h"
#include "views/plots/metric_info.h"

namespace rat::app {
namespace {

const std::vector<std::string>& offered_metrics() {
  static const std::vector<std::string> all{
      "val_loss",     "val_accuracy", "loss",        "decode_tokens_per_s", "prefill_tokens_per_s",
      "tokens_per_s", "step_ms",      "cache_bytes", "peak_bytes"};
  return all;
}

}  // namespace

struct TradeoffCanvas::Impl {
  TradeoffCanvas* canvas;
  std::optional<PlotFeed> feed;  // no runs: the reader chooses
  PatternPicker* picker;
  PlotWidget* plot;
  QComboBox *x, *y, *size;
  QCheckBox *log_x, *log_y;
  QLabel *title, *note, *strip;
  const Theme* theme = &rat::theme(ThemeKind::dark);
  std::shared_ptr<const PlotAnswer> answer;

  void build_ui();
  QHBoxLayout* build_axes_row();
  QComboBox* metric_box(const char* name, const std::string& chosen, bool may_be_none);
  void connect_plot();
  PlotRequest request() const;
  void ask(bool force) { feed->ask(force); }
  void show_answer();
  void set_strip(const QString& label, const QString& text);
  void train();
};

TradeoffCanvas::TradeoffCanvas(const std::filesystem::path& database, QWidget* parent)
    : QWidget(parent), impl_(std::make_unique<Impl>()) {
  impl_->canvas = this;
  impl_->feed.emplace(
      database, [this] { return impl_->request(); },
      [this](std::shared_ptr<const PlotAnswer> answer) {
        impl_->answer = std::move(answer);
        impl_->show_answer();
        emit updated();
      });
  impl_->build_ui();
  impl_->ask(true);
}

TradeoffCanvas::~TradeoffCanvas() { impl_->feed.reset(); }

void TradeoffCanvas::Impl::build_ui() {
  auto* column = new QVBoxLayout(canvas);
  column->setContentsMargins(12, 8, 12, 0);
  column->setSpacing(4);
  picker = new PatternPicker(canvas);
  column->addWidget(picker);
  column->addLayout(build_axes_row());
  title = new QLabel(canvas);
  note = new QLabel(canvas);
  note->setWordWrap(true);
  for (QLabel* label : {title, note}) {
    label->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Preferred);
    label->setContentsMargins(4, 0, 0, 0);
  }
  title->setContentsMargins(4, 6, 0, 0);
  column->addWidget(title);
  column->addWidget(note);
  plot = new PlotWidget(canvas);
  plot->setMinimumSize(320, 220);
  plot->set_title_visible(false);
  column->addWidget(plot, 1);
  strip = new QLabel(canvas);
  strip->setTextFormat(Qt::RichText);
  strip->setFixedHeight(28);
  strip->setSizePolicy(QSizePolicy::Ignored, QSizePolicy::Fixed);
  column->addWidget(strip);
  connect_plot();
}

QComboBox* TradeoffCanvas::Impl::metric_box(const char* name, const std::string& chosen, bool may_be_none) {
  auto* box = new QComboBox(canvas);
  box->setAccessibleName(name);
  if (may_be_none) box->addItem("equal size", QString());
  for (const std::string& metric : offered_metrics())
    box->addItem(QString::fromStdString(metric_info(metric).title), QString::fromStdString(metric));
  box->setCurrentIndex(box->findData(QString::fromStdString(chosen)));
  QObject::connect(box, &QComboBox::currentIndexChanged, canvas, [this] {
    plot->set_follow(true);
    ask(true);
  });
  return box;
}

QHBoxLayout* TradeoffCanvas::Impl::build_axes_row() {
  auto* row = new QHBoxLayout;
  row->setSpacing(4);
  const Recipe defaults;
  y = metric_box("y metric", defaults.y_metric, false);
  x = metric_box("x metric", defaults.x_metric, false);
  size = metric_box("marker area", defaults.size_metric, true);
  log_x = new QCheckBox("log x", canvas);
  log_x->setChecked(true);
  log_y = new QCheckBox("log y", canvas);
  auto* export_button = new QToolButton(canvas);
  export_button->setText("Figure…");
  export_button->setToolTip("Export this plot (Ctrl+E)");
  row->addWidget(y);
  row->addWidget(new QLabel("against", canvas));
  row->addWidget(x);
  row->addSpacing(8);
  row->addWidget(new QLabel("area", canvas));
  row->addWidget(size);
  row->addSpacing(8);
  row->addWidget(log_x);
  row->addWidget(log_y);
  row->addStretch(1);
  row->addWidget(export_button);
  QObject::connect(export_button, &QToolButton::clicked, canvas,
                   [this] { emit canvas->export_requested(canvas->recipe()); });
  return row;
}

void TradeoffCanvas::Impl::connect_plot() {
  QObject::connect(log_x, &QCheckBox::toggled, canvas, [this](bool on) { plot->set_log_x(on); });
  QObject::connect(log_y, &QCheckBox::toggled, canvas, [this](bool on) { plot->set_log_y(on); });
  QObject::connect(plot, &PlotWidget::scales_changed, canvas, [this] {
    log_x->setChecked(plot->log_x());
    log_y->setChecked(plot->log_y());
  });
  plot->set_log_x(true);
  QObject::connect(plot, &PlotWidget::point_hovered, canvas,
                   [this](const QString& label, const QString&, double, double) {
                     set_strip(label.section('\n', 0, 0), label.section('\n', 1));
                   });
  QObject::connect(plot, &PlotWidget::point_clicked, canvas, [this](const QString& id, const QStringList& seeds) {
    if (!id.isEmpty()) emit canvas->run_clicked(id, seeds);
  });
  QObject::connect(picker, &PatternPicker::train_requested, canvas, [this] { train(); });
  set_strip({}, {});
}

void TradeoffCanvas::Impl::set_strip(const QString& label, const QString& text) {
  strip->setText(label.isEmpty() ? QString("Point at a configuration to read it; click opens its run.")
                                 : "<b>" + label.toHtmlEscaped() + "</b> &nbsp; " + text.toHtmlEscaped());
}

PlotRequest TradeoffCanvas::Impl::request() const {
  PlotRequest request;
  request.recipes = {canvas->recipe()};
  request.recipes[0].runs = feed->runs();
  request.recipes[0].x.limits.reset();
  request.recipes[0].y.limits.reset();
  request.recipes[0].x.scale = request.recipes[0].y.scale = Scale::linear;  // the widget's own switches decide
  request.choice = {feed->runs().empty(), picker->sweep_id()};
  return request;
}

void TradeoffCanvas::Impl::show_answer() {
  picker->set_trained(answer->trained);
  if (answer->plots.empty() || !answer->plots[0]) {
    title->clear();
    note->clear();
    plot->set_empty_text("No finished run to compare. Choose patterns above and press Train.");
    plot->show_plot({}, *theme, true);
    return;
  }
  const PlotDescription& description = *answer->plots[0];
  const QString name = QString::fromStdString(description.title);
  title->setText("<b>" + name.left(1).toUpper() + name.mid(1).toHtmlEscaped() + "</b>");
  QString text = QString::fromStdString(description.note), all = text;
  const std::vector<std::string>& warnings = description.warnings;
  if (!warnings.empty()) text += " · " + QString::fromStdString(warnings.front());
  if (warnings.size() > 1) text += QString(" · and %1 more to note").arg(warnings.size() - 1);
  for (const std::string& warning : warnings) all += "\n" + QString::fromStdString(warning);
  note->setText(text);
  note->setToolTip(all);
  plot->set_empty_text({});
  plot->show_plot(description, *theme, true);
}

void TradeoffCanvas::Impl::train() {
  auto specs = picker->selected_specs();
  if (!specs) {
    emit canvas->message(QString::fromStdString(specs.error().message));
    return;
  }
  if (specs->empty()) return;
  feed->set_runs({});
  emit canvas->enqueue_requested(*std::move(specs), picker->sweep_id());
  ask(true);
}

void TradeoffCanvas::set_base_spec(const RunSpec& spec) {
  const std::string before = impl_->picker->sweep_id();
  impl_->picker->set_base_spec(spec);
  if (impl_->picker->sweep_id() != before) impl_->ask(true);
}

void TradeoffCanvas::set_runs(std::vector<std::string> ids) { impl_->feed->set_runs(std::move(ids)); }

void TradeoffCanvas::set_database(const std::filesystem::path& database) { impl_->feed->set_database(database); }

void TradeoffCanvas::refresh() { impl_->feed->ask(false); }

QVariantMap TradeoffCanvas::choices() const {
  return {{"x", impl_->x->currentData()},
          {"y", impl_->y->currentData()},
          {"size", impl_->size->currentData()},
          {"log_x", impl_->log_x->isChecked()},
          {"log_y", impl_->log_y->isChecked()}};
}

void TradeoffCanvas::set_choices(const QVariantMap& choices) {
  for (const auto& [key, box] : {std::pair("x", impl_->x), std::pair("y", impl_->y), std::pair("size", impl_->size)})
    if (const int at = choices.contains(key) ? box->findData(choices[key]) : -1; at >= 0) box->setCurrentIndex(at);
  if (choices.contains("log_x")) impl_->log_x->setChecked(choices["log_x"].toBool());
  if (choices.contains("log_y")) impl_->log_y->setChecked(choices["log_y"].toBool());
}

void TradeoffCanvas::set_theme(const Theme& theme) {
  impl_->theme = &theme;
  const QString secondary = QString("color:%1").arg(QString::fromStdString(theme.secondary.hex()));
  impl_->note->setStyleSheet(secondary);
  if (impl_->answer)
    impl_->show_answer();
  else
    impl_->plot->show_plot({}, theme, true);
}

void TradeoffCanvas::set_selected_run(const std::string& run_id) { impl_->plot->set_selected_run(run_id); }

Recipe TradeoffCanvas::recipe() const {
  Recipe recipe;
  recipe.kind = FigureKind::tradeoff;
  recipe.runs = impl_->feed->runs();
  if (recipe.runs.empty() && impl_->answer && !impl_->answer->recipes.empty())
    recipe.runs = impl_->answer->recipes[0].runs;
  recipe.x_metric = impl_->x->currentData().toString().toStdString();
  recipe.y_metric = impl_->y->currentData().toString().toStdString();
  recipe.size_metric = impl_->size->currentData().toString().toStdString();
  recipe.x.scale = impl_->log_x->isChecked() ? Scale::log10 : Scale::linear;
  recipe.y.scale = impl_->log_y->isChecked() ? Scale::log10 : Scale::linear;
  recipe.x.limits = impl_->plot->x_limits();
  recipe.y.limits = impl_->plot->y_limits();
  return recipe;
}

}  // namespace rat::app
