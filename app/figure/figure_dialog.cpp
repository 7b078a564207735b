#include "app/figure/figure_dialog.h"

#include <QApplication>
#include <QCheckBox>
#include <QDialogButtonBox>
#include <QDir>
#include <QFileDialog>
#include <QGridLayout>
#include <QHBoxLayout>
#include <QLabel>
#include <QPushButton>
#include <QScreen>
#include <QScrollArea>
#include <QThreadPool>
#include <QTimer>
#include <QVBoxLayout>
#include <memory>
#include <utility>

#include "app/figure/doctor.h"
#include "app/figure/exporters.h"
#include "app/figure/figure_files.h"
#include "app/figure/figure_form.h"
#include "app/figure/render.h"

namespace rat::app {
namespace {

constexpr int settle_ms = 120;  // after the last change, before the preview is drawn again
constexpr double preview_dpi = 96;

QString to_text(std::string_view text) { return QString::fromUtf8(text.data(), static_cast<qsizetype>(text.size())); }

}  // namespace

struct FigureDialog::Impl {
  FigureDialog* dialog;
  FigureForm* form;
  Build build;
  std::shared_ptr<const TraceSnapshot> trace;
  Recipe current;
  std::optional<PlotDescription> plot;
  QString folder = QDir::homePath();
  QLabel *preview, *size_text, *doctor, *caption;
  QPushButton* save;
  std::vector<std::pair<std::string, QCheckBox*>> formats;
  QTimer settle;
  bool building = false, changed_meanwhile = false, save_when_ready = false;
  QThreadPool builder;  // one thread: reading the database never holds up the window

  void build_ui();
  QWidget* build_left();
  QWidget* build_right();
  void update();
  void arrived(const Recipe& recipe, Result<PlotDescription> built);
  void draw_preview();
  void show_problem(const QString& problem);
  void show_findings();
  std::vector<std::string> chosen() const;
  void ask_and_save();
  void save_under_a_name();
};

FigureDialog::FigureDialog(Recipe recipe, Build build, std::shared_ptr<const TraceSnapshot> trace, QWidget* parent)
    : QDialog(parent), impl_(std::make_unique<Impl>()) {
  impl_->dialog = this;
  impl_->build = std::move(build);
  impl_->trace = std::move(trace);
  impl_->current = recipe;
  impl_->form = new FigureForm(recipe, this);
  impl_->builder.setMaxThreadCount(1);
  impl_->build_ui();
  impl_->update();
}

FigureDialog::~FigureDialog() { impl_->builder.waitForDone(); }

void FigureDialog::Impl::build_ui() {
  dialog->setWindowTitle(QString("Figure: %1").arg(to_text(figure_kind_name(current.kind))));
  dialog->resize(980, 640);
  auto* row = new QHBoxLayout(dialog);
  row->setContentsMargins(16, 16, 16, 16);
  row->setSpacing(16);
  row->addWidget(build_left());
  row->addWidget(build_right(), 1);
  settle.setSingleShot(true);
  settle.setInterval(settle_ms);
  QObject::connect(&settle, &QTimer::timeout, dialog, [this] { update(); });
  QObject::connect(form, &FigureForm::changed, dialog, [this] { settle.start(); });
}

QWidget* FigureDialog::Impl::build_left() {
  auto* left = new QWidget(dialog);
  left->setFixedWidth(320);
  auto* column = new QVBoxLayout(left);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(12);
  column->addWidget(form);
  auto* grid = new QGridLayout;
  grid->setVerticalSpacing(4);
  int k = 0;
  for (const Exporter& exporter : figure_exporters()) {
    const bool recipe = exporter.id == "json", tikz = exporter.id == "tikz";
    auto* box = new QCheckBox(recipe ? QString("recipe")
                              : tikz ? QString("pgfplots")
                                     : to_text(exporter.id).toUpper(),
                              left);
    box->setToolTip(to_text(exporter.description));
    box->setChecked(exporter.id == "pdf" || exporter.id == "csv" || recipe);
    grid->addWidget(box, k / 3, k % 3);
    formats.emplace_back(exporter.id, box);
    QObject::connect(box, &QCheckBox::toggled, dialog, [this] { save->setEnabled(plot && !chosen().empty()); });
    ++k;
  }
  column->addLayout(grid);
  column->addStretch(1);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Cancel, left);
  save = buttons->addButton("Save as…", QDialogButtonBox::AcceptRole);
  save->setDefault(true);
  QObject::connect(save, &QPushButton::clicked, dialog, [this] { ask_and_save(); });
  QObject::connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::reject);
  column->addWidget(buttons);
  return left;
}

QWidget* FigureDialog::Impl::build_right() {
  auto* right = new QWidget(dialog);
  auto* column = new QVBoxLayout(right);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(8);
  size_text = new QLabel(right);
  column->addWidget(size_text);
  auto* area = new QScrollArea(right);
  area->setBackgroundRole(QPalette::Mid);
  area->setAlignment(Qt::AlignCenter);
  preview = new QLabel;
  preview->setAlignment(Qt::AlignCenter);
  preview->setAccessibleName("preview at print size");
  area->setWidget(preview);
  column->addWidget(area, 1);
  doctor = new QLabel(right);
  doctor->setTextFormat(Qt::RichText);
  doctor->setWordWrap(true);
  caption = new QLabel(right);
  caption->setWordWrap(true);
  caption->setTextInteractionFlags(Qt::TextSelectableByMouse);
  caption->setToolTip("For the caption of the paper: select and copy");
  column->addWidget(doctor);
  column->addWidget(caption);
  return right;
}

void FigureDialog::Impl::show_problem(const QString& problem) {
  plot.reset();
  save_when_ready = false;
  save->setEnabled(false);
  preview->setPixmap({});
  preview->setText(problem);
  preview->setWordWrap(true);
  preview->setMinimumSize(480, 120);
  preview->adjustSize();
  doctor->clear();
  caption->clear();
}

// Starts building what the form says; `arrived` shows it. Changes made meanwhile are built afterwards, once.
void FigureDialog::Impl::update() {
  const auto recipe = form->recipe();
  if (!recipe) return show_problem(QString::fromStdString(recipe.error().message));
  if (building) {
    changed_meanwhile = true;
    return;
  }
  building = true;
  builder.start([this, recipe = *recipe] {
    auto built = std::make_shared<Result<PlotDescription>>(build(recipe));
    QMetaObject::invokeMethod(
        dialog, [this, recipe, built] { arrived(recipe, std::move(*built)); }, Qt::QueuedConnection);
  });
}

void FigureDialog::Impl::arrived(const Recipe& recipe, Result<PlotDescription> built) {
  building = false;
  if (std::exchange(changed_meanwhile, false)) return update();
  if (!built) return show_problem(QString::fromStdString(built.error().message));
  current = recipe;
  plot = *std::move(built);
  draw_preview();
  emit dialog->previewed();
  if (std::exchange(save_when_ready, false) && plot) save_under_a_name();
}

void FigureDialog::Impl::draw_preview() {
  // Drawn at the screen's own resolution, shown at 96 dots per inch: 100 % of the printed size.
  const double ratio = dialog->devicePixelRatioF();
  auto image = figure_image(*plot, current, preview_dpi * ratio);
  if (!image) return show_problem(QString::fromStdString(image.error().message));
  image->setDevicePixelRatio(ratio);
  preview->setMinimumSize(0, 0);
  preview->setPixmap(QPixmap::fromImage(*image));
  preview->adjustSize();
  const auto size = figure_size_pt(current);
  size_text->setText(QString("%1 × %2 in (%3 × %4 pt), at 100 %")
                         .arg(size->width() / 72, 0, 'f', 2)
                         .arg(size->height() / 72, 0, 'f', 2)
                         .arg(size->width())
                         .arg(size->height()));
  save->setEnabled(!chosen().empty());
  show_findings();
}

void FigureDialog::Impl::show_findings() {
  QString text;
  for (const Finding& finding : examine_figure(*plot, current))
    text += QString("<div><span style='color:%1'>%2</span> %3</div>")
                .arg(finding.good ? "#0a7d55" : "#c07a00", finding.good ? "✓" : "!",
                     QString::fromStdString(finding.text).toHtmlEscaped());
  doctor->setText(text);
  caption->setText(QString::fromStdString(caption_of(*plot)));
}

std::vector<std::string> FigureDialog::Impl::chosen() const {
  std::vector<std::string> ids;
  for (const auto& [id, box] : formats)
    if (box->isChecked()) ids.push_back(id);
  return ids;
}

// What is saved is what the form says now, which the preview may not show yet.
void FigureDialog::Impl::ask_and_save() {
  settle.stop();
  save_when_ready = true;
  update();
}

void FigureDialog::Impl::save_under_a_name() {
  const QString suggestion =
      folder + "/" + to_text(figure_kind_name(current.kind)) +
      (current.kind == FigureKind::curves ? "-" + QString::fromStdString(current.metric).replace('/', '-') : QString());
  QString name = QFileDialog::getSaveFileName(dialog, "Save the figure as (without extension)", suggestion);
  if (name.isEmpty()) return;
  for (const auto& [id, box] : formats)
    if (name.endsWith("." + QString::fromStdString(id))) name.chop(static_cast<qsizetype>(id.size()) + 1);
  const auto written = dialog->save_as(name.toStdString());
  if (!written) return show_problem(QString::fromStdString(written.error().message));
  dialog->accept();
}

Recipe FigureDialog::recipe() const { return impl_->current; }

bool FigureDialog::ready() const { return impl_->plot && !impl_->building && !impl_->settle.isActive(); }

void FigureDialog::set_folder(const QString& folder) { impl_->folder = folder; }

Result<std::vector<std::filesystem::path>> FigureDialog::save_as(const std::filesystem::path& stem) {
  if (!impl_->plot)
    return fail(ErrorCode::invalid_argument, "There is nothing to save: the figure could not be drawn.");
  RAT_ASSIGN(const auto files,
             write_figure_files(*impl_->plot, impl_->current, impl_->trace.get(), stem, impl_->chosen()));
  QStringList names;
  for (const std::filesystem::path& file : files) names.push_back(QString::fromStdString(file.filename().string()));
  emit saved(QString("Wrote %1 to %2").arg(names.join(", "), QString::fromStdString(stem.parent_path().string())));
  return files;
}

}  // namespace rat::app
