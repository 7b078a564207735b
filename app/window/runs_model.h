// The Runs table's data: one row a run, newest first, from the list that the store thread read.
#pragma once

#include <QAbstractTableModel>
#include <QSortFilterProxyModel>
#include <unordered_map>

#include "app/window/run_filter.h"
#include "app/window/store_worker.h"
#include "views/theme/theme.h"

namespace rat::app {

enum RunColumn {
  column_run,
  column_state,
  column_layers,
  column_loss,
  column_train,
  column_decode,
  column_cache,
  column_steps,
  column_created,
  column_count
};

class RunsModel : public QAbstractTableModel {
  Q_OBJECT

 public:
  using QAbstractTableModel::QAbstractTableModel;
  void set_runs(RunList runs);
  void set_theme(const Theme& theme);
  const RunRow* row_at(int row) const;
  const RunSpec* spec_at(int row) const;         // parsed once per spec; null when it cannot be read
  double sort_value(int row, int column) const;  // NaN: a text column, or no value

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;
  bool setData(const QModelIndex& index, const QVariant& value, int role) override;
  Qt::ItemFlags flags(const QModelIndex& index) const override;

 signals:
  void rename_requested(QString id, QString name);

 private:
  QString text(const RunRow& run, int column) const;
  QString tip(const RunRow& run) const;

  RunList runs_ = std::make_shared<const std::vector<RunRow>>();
  const Theme* theme_ = nullptr;
  mutable std::unordered_map<std::string, std::optional<RunSpec>> specs_;  // by spec hash and seed
};

class RunsProxy : public QSortFilterProxyModel {
  Q_OBJECT

 public:
  explicit RunsProxy(RunsModel& model, QObject* parent = nullptr);
  // Keeps the last sound filter when the text is wrong; returns what is wrong.
  Status set_filter(const QString& text);
  QVariant headerData(int section, Qt::Orientation orientation, int role) const override;  // marks the sorted column

 protected:
  bool filterAcceptsRow(int row, const QModelIndex& parent) const override;
  bool lessThan(const QModelIndex& left, const QModelIndex& right) const override;

 private:
  RunsModel& model_;
  RunFilter filter_;
};

}  // namespace rat::app
