#include "app/window/runs_panel.h"

#include <QHBoxLayout>
#include <QHeaderView>
#include <QInputDialog>
#include <QKeyEvent>
#include <QLabel>
#include <QLineEdit>
#include <QPushButton>
#include <QTableView>
#include <QUndoCommand>
#include <QVBoxLayout>

#include "app/window/fonts.h"
#include "app/window/run_bar.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {

constexpr int row_height = 25;

// An edit of the database that can be taken back. Both ways run on the store thread.
class StoreEdit : public QUndoCommand {
 public:
  using Edit = std::function<Status(StoreWriter&)>;
  StoreEdit(const QString& text, StoreWorker& store, Edit apply, Edit revert)
      : QUndoCommand(text), store_(store), apply_(std::move(apply)), revert_(std::move(revert)) {}
  void redo() override { store_.write(apply_); }
  void undo() override { store_.write(revert_); }

 private:
  StoreWorker& store_;
  Edit apply_, revert_;
};

QString named(std::size_t count, const QString& name) { return count == 1 ? name : QString("%1 runs").arg(count); }

}  // namespace

RunsPanel::RunsPanel(Workbench& bench, QWidget* parent)
    : QWidget(parent),
      bench_(bench),
      proxy_(model_),
      table_(new QTableView(this)),
      filter_(new QLineEdit(this)),
      count_(label("", "secondary", this)),
      empty_(label("", "secondary", table_)),
      compare_(new QPushButton("compare: only differences", this)) {
  build();
  connect(&bench_, &Workbench::runs_changed, this, [this] {
    model_.set_runs(bench_.runs());
    update_count();
  });
  connect(&model_, &RunsModel::rename_requested, this,
          [this](const QString& id, const QString& name) { rename(id.toStdString(), name); });
  connect(filter_, &QLineEdit::textChanged, this, &RunsPanel::apply_filter);
  connect(table_->selectionModel(), &QItemSelectionModel::selectionChanged, this, [this] {
    update_count();
    emit selection_changed();
  });
  connect(table_, &QTableView::activated, this, [this](const QModelIndex& index) {
    if (const RunRow* run = model_.row_at(proxy_.mapToSource(index).row()))
      emit open_requested(QString::fromStdString(run->id));
  });
  connect(table_, &QWidget::customContextMenuRequested, this,
          [this](const QPoint& at) { emit menu_requested(table_->viewport()->mapToGlobal(at)); });
  update_count();
}

void RunsPanel::build() {
  compare_->setProperty("pill", true);
  filter_->setPlaceholderText("loss < 1.5 and chunk >= 16");
  filter_->setClearButtonEnabled(true);
  filter_->setMinimumWidth(230);
  filter_->setMaximumWidth(380);
  QString help =
      "Plain words match name, tags, layers and state. Conditions: field <, <=, =, !=, >=, > value, joined by and, or, "
      "not, ( ).\n";
  for (const FilterField& field : filter_fields())
    help += QString("\n%1: %2").arg(QString::fromStdString(field.name), QString::fromStdString(field.meaning));
  filter_->setToolTip(help);

  table_->setModel(&proxy_);
  table_->setSortingEnabled(true);
  table_->sortByColumn(column_created, Qt::DescendingOrder);
  table_->setSelectionBehavior(QAbstractItemView::SelectRows);
  table_->setSelectionMode(QAbstractItemView::ExtendedSelection);
  table_->setEditTriggers(QAbstractItemView::EditKeyPressed);
  table_->setItemDelegate(new TabularDelegate(table_));
  table_->setContextMenuPolicy(Qt::CustomContextMenu);
  table_->setShowGrid(false);
  table_->setWordWrap(false);
  table_->setIconSize(QSize(16, 16));
  table_->setHorizontalScrollMode(QAbstractItemView::ScrollPerPixel);
  table_->verticalHeader()->hide();
  table_->verticalHeader()->setDefaultSectionSize(row_height);
  table_->setTextElideMode(Qt::ElideMiddle);  // runs of a sweep differ at the ends of their names
  table_->verticalHeader()->setSectionResizeMode(QHeaderView::Fixed);
  QHeaderView* header = table_->horizontalHeader();
  header->setHighlightSections(false);
  header->setSortIndicatorShown(false);  // the title itself shows the order
  header->setSectionsClickable(true);
  header->setMinimumSectionSize(60);
  const int widths[column_count] = {190, 74, 130, 118, 100, 112, 76, 108, 118};
  for (int column = 0; column < column_count; ++column) header->resizeSection(column, widths[column]);
  header->setSectionResizeMode(column_run, QHeaderView::Stretch);
  header->setStretchLastSection(false);

  auto* line = new QHBoxLayout;
  line->setContentsMargins(12, 5, 12, 5);
  line->setSpacing(8);
  line->addWidget(filter_, 1);
  line->addWidget(compare_);
  line->addWidget(count_, 2);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addLayout(line);
  column->addWidget(table_, 1);
  auto* over = new QVBoxLayout(table_);
  over->setContentsMargins(0, 24, 0, 0);
  over->addWidget(empty_, 0, Qt::AlignCenter);
}

void RunsPanel::set_theme(const Theme& theme) { model_.set_theme(theme); }

int RunsPanel::shown() const { return proxy_.rowCount(); }

std::vector<std::string> RunsPanel::selected() const {
  QModelIndexList rows = table_->selectionModel()->selectedRows();
  std::sort(rows.begin(), rows.end(), [](const QModelIndex& a, const QModelIndex& b) { return a.row() < b.row(); });
  std::vector<std::string> ids;
  for (const QModelIndex& row : rows)
    if (const RunRow* run = model_.row_at(proxy_.mapToSource(row).row())) ids.push_back(run->id);
  return ids;
}

void RunsPanel::select(const std::vector<std::string>& ids) {
  QItemSelection chosen;
  for (int row = 0; row < proxy_.rowCount(); ++row) {
    const RunRow* run = model_.row_at(proxy_.mapToSource(proxy_.index(row, 0)).row());
    if (run && std::find(ids.begin(), ids.end(), run->id) != ids.end())
      chosen.select(proxy_.index(row, 0), proxy_.index(row, column_count - 1));
  }
  table_->selectionModel()->select(chosen, QItemSelectionModel::ClearAndSelect | QItemSelectionModel::Rows);
  if (!chosen.isEmpty()) table_->scrollTo(chosen.front().topLeft());
}

void RunsPanel::focus_filter() {
  filter_->setFocus(Qt::ShortcutFocusReason);
  filter_->selectAll();
}

void RunsPanel::set_filter(const QString& text) { filter_->setText(text); }

void RunsPanel::apply_filter() {
  const Status set = proxy_.set_filter(filter_->text());
  filter_->setProperty("wrong", !set);
  filter_->style()->unpolish(filter_);
  filter_->style()->polish(filter_);
  if (set) {
    update_count();
  } else {
    set_role(count_, "warning");
    count_->setText(QString::fromStdString(set.error().message));
  }
}

void RunsPanel::update_count() {
  const int all = model_.rowCount(), chosen = static_cast<int>(selected().size());
  set_role(count_, "secondary");
  count_->setText(QString("%1 of %2 runs").arg(format_count(shown()), format_count(all)) +
                  (chosen > 1 ? QString(", %1 selected").arg(chosen) : QString()));
  compare_->setText(chosen > 1 ? QString("compare (%1): only differences").arg(chosen)
                               : QString("compare: only differences"));
  empty_->setText(all == 0 ? "No runs yet. Press Start, or queue a sweep on the Trade-off tab."
                           : "No run matches the filter.");
  empty_->setVisible(shown() == 0);
}

void RunsPanel::begin_rename() {
  const QModelIndexList rows = table_->selectionModel()->selectedRows();
  if (rows.size() != 1) return;
  table_->setFocus();
  table_->setCurrentIndex(rows.front().siblingAtColumn(column_run));
  table_->edit(rows.front().siblingAtColumn(column_run));
}

void RunsPanel::rename(const std::string& id, const QString& name) {
  const RunRow* run = bench_.find_run(id);
  if (!run) return;
  undo_.push(new StoreEdit(
      QString("rename %1").arg(QString::fromStdString(run->name)), bench_.store(),
      [id, to = name.toStdString()](StoreWriter& s) { return s.rename_run(id, to); },
      [id, from = run->name](StoreWriter& s) { return s.rename_run(id, from); }));
}

void RunsPanel::ask_tags() {
  const std::vector<std::string> ids = selected();
  if (ids.empty()) return;
  QStringList before;
  if (const RunRow* run = bench_.find_run(ids.front()))
    for (const std::string& tag : run->tags) before.append(QString::fromStdString(tag));
  auto* ask = new QInputDialog(this);
  ask->setAttribute(Qt::WA_DeleteOnClose);
  ask->setWindowTitle("Tag runs");
  ask->setLabelText(QString("Tags of %1, separated by commas:").arg(named(ids.size(), "the run")));
  ask->setTextValue(before.join(", "));
  connect(ask, &QInputDialog::textValueSelected, this, [this, ids](const QString& text) {
    std::vector<std::string> tags;
    for (const QString& tag : text.split(',', Qt::SkipEmptyParts))
      if (!tag.trimmed().isEmpty()) tags.push_back(tag.trimmed().toStdString());
    set_tags(ids, tags);
  });
  ask->open();
}

void RunsPanel::set_tags(const std::vector<std::string>& ids, const std::vector<std::string>& tags) {
  std::vector<std::pair<std::string, std::vector<std::string>>> before;
  for (const std::string& id : ids)
    if (const RunRow* run = bench_.find_run(id)) before.emplace_back(id, run->tags);
  if (before.empty()) return;
  undo_.push(new StoreEdit(
      QString("tag %1").arg(named(before.size(), "run")), bench_.store(),
      [before, tags](StoreWriter& s) -> Status {
        for (const auto& [id, old] : before) RAT_TRY(s.set_tags(id, tags));
        return ok();
      },
      [before](StoreWriter& s) -> Status {
        for (const auto& [id, old] : before) RAT_TRY(s.set_tags(id, old));
        return ok();
      }));
}

void RunsPanel::delete_selected() {
  std::vector<std::string> ids;
  for (const std::string& id : selected()) {
    const RunRow* run = bench_.find_run(id);
    if (bench_.busy() && id == bench_.status().run_id) {
      emit message("The run in training cannot be deleted; stop it first.", true);
      continue;
    }
    if (run) ids.push_back(id);
  }
  if (ids.empty()) return;
  const RunRow* first = bench_.find_run(ids.front());
  const QString what = named(ids.size(), QString::fromStdString(first->name));
  undo_.push(new StoreEdit(
      QString("delete %1").arg(what), bench_.store(),
      [ids](StoreWriter& s) -> Status {
        for (const std::string& id : ids) RAT_TRY(s.delete_run(id));
        return ok();
      },
      [ids](StoreWriter& s) -> Status {
        for (const std::string& id : ids) RAT_TRY(s.undelete_run(id));
        return ok();
      }));
  emit message(QString("Deleted %1. Ctrl+Z brings it back.").arg(what), false);
}

}  // namespace rat::app
