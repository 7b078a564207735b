#include "app/window/compare_dialog.h"

#include <QApplication>
#include <QClipboard>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPushButton>
#include <QTableWidget>
#include <QVBoxLayout>
#include <set>

#include "app/window/fonts.h"
#include "app/window/run_bar.h"
#include "app/window/theme_qt.h"
#include "app/window/widgets.h"
#include "experiments/run_spec.h"

namespace rat::app {
namespace {

QString clean(const std::string& json_value) {
  QString text = QString::fromStdString(json_value);
  if (text.size() >= 2 && text.startsWith('"') && text.endsWith('"')) text = text.mid(1, text.size() - 2);
  return text;
}

void add_row(QTableWidget& table, const QString& name, const QStringList& values, bool numbers) {
  const int row = table.rowCount();
  table.insertRow(row);
  auto* title = new QTableWidgetItem(name);
  title->setForeground(to_qt(current_theme().secondary));
  table.setItem(row, 0, title);
  for (int i = 0; i < values.size(); ++i) {
    auto* item = new QTableWidgetItem(values[i]);
    item->setTextAlignment(Qt::AlignVCenter | (numbers ? Qt::AlignRight : Qt::AlignLeft));
    table.setItem(row, i + 1, item);
  }
}

QString metric_text(const std::string& name, double value) {
  if (name == "cache_bytes" || name == "peak_bytes") return format_bytes(value);
  if (name.find("per_s") != std::string::npos) return format_rate(value) + " tok/s";
  if (name.find("_ms") != std::string::npos || name.rfind("op_ms", 0) == 0) return format_value(value) + " ms";
  return format_value(value, 5);
}

void copy_as_text(const QTableWidget& table) {
  QString text;
  for (int column = 0; column < table.columnCount(); ++column)
    text += (column ? "\t" : "") + table.horizontalHeaderItem(column)->text();
  for (int row = 0; row < table.rowCount(); ++row) {
    text += '\n';
    for (int column = 0; column < table.columnCount(); ++column)
      text += (column ? "\t" : "") + (table.item(row, column) ? table.item(row, column)->text() : QString());
  }
  QApplication::clipboard()->setText(text);
}

}  // namespace

CompareDialog::CompareDialog(const std::vector<RunRow>& runs, QWidget* parent) : QDialog(parent) {
  setWindowTitle(QString("Compare %1 runs").arg(runs.size()));
  auto* table = new QTableWidget(0, static_cast<int>(runs.size()) + 1, this);
  QStringList titles{""};
  std::vector<std::string> specs;
  std::set<std::string> metrics;
  for (const RunRow& run : runs) {
    titles.append(QString::fromStdString(run.name));
    specs.push_back(run.spec_json);
    for (const auto& [name, summary] : run.metrics)
      if (name.rfind("op_ms", 0) != 0) metrics.insert(name);
  }
  table->setHorizontalHeaderLabels(titles);
  for (const SpecDifference& difference : diff_specs(specs)) {
    QStringList values;
    for (const std::string& value : difference.values) values.append(clean(value));
    add_row(*table, QString::fromStdString(difference.key), values, false);
    ++differences_;
  }
  const auto provenance = [&](const QString& name, auto value) {
    QStringList values;
    for (const RunRow& run : runs) values.append(value(run));
    if (values.count(values.front()) != values.size()) add_row(*table, name, values, false);
  };
  provenance("commit",
             [](const RunRow& r) { return QString::fromStdString(r.commit) + (r.dirty ? " + changes" : ""); });
  provenance("machine", [](const RunRow& r) { return QString::fromStdString(r.cpu); });
  provenance("data", [](const RunRow& r) { return QString::fromStdString(r.data_hash).left(12); });
  for (const std::string& name : metrics) {
    QStringList values;
    for (const RunRow& run : runs) {
      const auto at = run.metrics.find(name);
      values.append(at == run.metrics.end() ? QString("-") : metric_text(name, at->second.last));
    }
    add_row(*table, QString::fromStdString(name), values, true);
  }
  table->setItemDelegate(new TabularDelegate(table));
  table->setEditTriggers(QAbstractItemView::NoEditTriggers);
  table->setShowGrid(false);
  table->verticalHeader()->hide();
  table->verticalHeader()->setDefaultSectionSize(25);
  table->horizontalHeader()->setFont(heading_font());
  table->horizontalHeader()->setSectionResizeMode(QHeaderView::Stretch);
  table->horizontalHeader()->setSectionResizeMode(0, QHeaderView::ResizeToContents);

  auto* note = label(differences_ == 0 ? QString("The specs are equal; the numbers are below.")
                                       : QString("%1 settings differ; equal ones are left out.").arg(differences_),
                     "secondary", this);
  auto* copy = new QPushButton("Copy as text", this);
  auto* close = new QPushButton("Close", this);
  close->setDefault(true);
  connect(copy, &QPushButton::clicked, this, [table] { copy_as_text(*table); });
  connect(close, &QPushButton::clicked, this, &QDialog::accept);
  auto* buttons = new QHBoxLayout;
  buttons->addWidget(note, 1);
  buttons->addWidget(copy);
  buttons->addWidget(close);
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(12, 12, 12, 12);
  column->addWidget(table, 1);
  column->addLayout(buttons);
  resize(std::min(1100, 260 + 190 * static_cast<int>(runs.size())), 560);
}

}  // namespace rat::app
