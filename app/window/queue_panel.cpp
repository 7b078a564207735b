#include "app/window/queue_panel.h"

#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QTime>
#include <QTreeWidget>
#include <QVBoxLayout>

#include "app/window/fonts.h"
#include "app/window/widgets.h"

namespace rat::app {
namespace {
constexpr int lines_kept = 5000;
}

QueuePanel::QueuePanel(QWidget* parent)
    : QWidget(parent),
      list_(new QTreeWidget(this)),
      empty_(label("The queue is empty. Start adds a run; the Trade-off tab adds a sweep.", "secondary", list_)),
      remove_(new QPushButton("Remove from the queue", this)) {
  list_->setColumnCount(3);
  list_->setHeaderLabels({"NEXT", "RUN", "LAYERS"});
  list_->setRootIsDecorated(false);
  list_->setSelectionMode(QAbstractItemView::ExtendedSelection);
  list_->header()->resizeSection(0, 60);
  list_->header()->resizeSection(1, 320);
  remove_->setProperty("pill", true);
  auto* line = new QHBoxLayout;
  line->setContentsMargins(12, 6, 12, 6);
  line->addWidget(remove_);
  line->addStretch(1);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(0);
  column->addLayout(line);
  column->addWidget(list_, 1);
  auto* over = new QVBoxLayout(list_);
  over->setContentsMargins(0, 24, 0, 0);
  over->addWidget(empty_, 0, Qt::AlignCenter);
  const auto update = [this] { remove_->setEnabled(!list_->selectedItems().isEmpty()); };
  connect(list_, &QTreeWidget::itemSelectionChanged, this, update);
  connect(remove_, &QPushButton::clicked, this, [this] {
    for (QTreeWidgetItem* item : list_->selectedItems()) emit remove_requested(item->data(0, Qt::UserRole).toString());
  });
  update();
}

void QueuePanel::show_status(const TrainingStatus& status) {
  std::vector<std::string> ids;
  for (const QueueItem& item : status.queue) ids.push_back(item.run_id + item.name);
  empty_->setVisible(ids.empty());
  if (ids == shown_) return;
  shown_ = ids;
  list_->clear();
  int position = 0;
  for (const QueueItem& item : status.queue) {
    auto* line = new QTreeWidgetItem(
        list_, {QString::number(++position), QString::fromStdString(item.name), QString::fromStdString(item.layers)});
    line->setData(0, Qt::UserRole, QString::fromStdString(item.run_id));
    line->setDisabled(item.run_id.empty());  // the session has not taken it yet: in a moment it can be removed
  }
}

LogPanel::LogPanel(QWidget* parent) : QPlainTextEdit(parent) {
  setReadOnly(true);
  setMaximumBlockCount(lines_kept);
  setFont(mono_font());
  setFrameShape(QFrame::NoFrame);
  document()->setDocumentMargin(12);
  setPlaceholderText("What happens is written here.");
}

void LogPanel::add(const QString& sentence, bool is_error) {
  appendPlainText(
      QString("%1  %2%3").arg(QTime::currentTime().toString("HH:mm:ss"), is_error ? "error: " : "", sentence));
}

}  // namespace rat::app
