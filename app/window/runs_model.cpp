#include "app/window/runs_model.h"

#include <QColor>
#include <QDateTime>
#include <QPainter>
#include <QPixmap>
#include <algorithm>
#include <cmath>
#include <limits>

#include "app/window/fonts.h"
#include "app/window/run_bar.h"
#include "app/window/theme_qt.h"

namespace rat::app {
namespace {

constexpr double none = std::numeric_limits<double>::quiet_NaN();

const MetricSummary* metric(const RunRow& run, const char* name) {
  const auto at = run.metrics.find(name);
  return at == run.metrics.end() ? nullptr : &at->second;
}

QString text_of(std::string_view view) { return QString::fromUtf8(view.data(), static_cast<qsizetype>(view.size())); }

// The run's colour, the same in every panel.
QPixmap color_dot(const QColor& color) {
  QPixmap pixmap(32, 32);
  pixmap.setDevicePixelRatio(2);
  pixmap.fill(Qt::transparent);
  QPainter painter(&pixmap);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setPen(Qt::NoPen);
  painter.setBrush(color);
  painter.drawEllipse(QRectF(4, 4, 8, 8));
  return pixmap;
}

bool shows_the_same(const RunRow& a, const RunRow& b) {
  if (a.state != b.state || a.steps_done != b.steps_done || a.name != b.name || a.tags != b.tags ||
      a.error != b.error || a.data_description != b.data_description || a.metrics.size() != b.metrics.size())
    return false;
  return std::equal(a.metrics.begin(), a.metrics.end(), b.metrics.begin(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.count == y.second.count && x.second.last_step == y.second.last_step;
  });
}

QString created_text(double unix_seconds) {
  const QDateTime at = QDateTime::fromMSecsSinceEpoch(static_cast<qint64>(unix_seconds * 1e3));
  const bool today = at.date() == QDate::currentDate();
  return today ? at.toString("HH:mm:ss") : at.toString("yyyy-MM-dd HH:mm");
}

}  // namespace

void RunsModel::set_runs(RunList runs) {
  // The same runs in the same order: only numbers changed, so selection, scroll and editors stay.
  bool same = runs->size() == runs_->size();
  for (std::size_t i = 0; same && i < runs->size(); ++i) same = (*runs)[i].id == (*runs_)[i].id;
  if (same) {
    const RunList before = std::exchange(runs_, std::move(runs));
    for (int row = 0; row < rowCount(); ++row)
      if (!shows_the_same((*before)[static_cast<std::size_t>(row)], *row_at(row)))
        emit dataChanged(index(row, 0), index(row, column_count - 1));
    return;
  }
  // New runs come first; anything else is a new table.
  const std::size_t more = runs->size() > runs_->size() ? runs->size() - runs_->size() : 0;
  bool appended = more > 0 && !runs_->empty();
  for (std::size_t i = 0; appended && i < runs_->size(); ++i) appended = (*runs)[i + more].id == (*runs_)[i].id;
  if (appended) {
    beginInsertRows({}, 0, static_cast<int>(more) - 1);
    runs_ = std::move(runs);
    endInsertRows();
    emit dataChanged(index(0, 0), index(rowCount() - 1, column_count - 1));
    return;
  }
  beginResetModel();
  runs_ = std::move(runs);
  endResetModel();
}

void RunsModel::set_theme(const Theme& theme) {
  theme_ = &theme;
  if (rowCount() > 0) emit dataChanged(index(0, 0), index(rowCount() - 1, column_count - 1));
}

const RunRow* RunsModel::row_at(int row) const {
  return row >= 0 && row < rowCount() ? &(*runs_)[static_cast<std::size_t>(row)] : nullptr;
}

const RunSpec* RunsModel::spec_at(int row) const {
  const RunRow* run = row_at(row);
  if (!run) return nullptr;
  const std::string key = run->spec_hash + "/" + std::to_string(run->seed);
  auto at = specs_.find(key);
  if (at == specs_.end()) {
    Result<RunSpec> spec = parse_spec(run->spec_json);
    at = specs_.emplace(key, spec ? std::optional(*std::move(spec)) : std::nullopt).first;
  }
  return at->second ? &*at->second : nullptr;
}

int RunsModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(runs_->size());
}
int RunsModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : column_count; }

double RunsModel::sort_value(int row, int column) const {
  const RunRow& run = *row_at(row);
  const auto last = [&](const char* name) {
    const MetricSummary* m = metric(run, name);
    return m ? m->last : none;
  };
  switch (column) {
    case column_loss:
      return last("val_loss");
    case column_train:
      return last("tokens_per_s");
    case column_decode:
      return last("decode_tokens_per_s");
    case column_cache:
      return last("cache_bytes");
    case column_steps:
      return static_cast<double>(run.steps_done);
    case column_created:
      return run.created_at;
    default:
      return none;
  }
}

QString RunsModel::text(const RunRow& run, int column) const {
  const auto show = [&](const char* name, auto format) {
    const MetricSummary* m = metric(run, name);
    return m ? format(m->last) : QString("-");
  };
  switch (column) {
    case column_run: {
      QString name = QString::fromStdString(run.name);
      for (const std::string& tag : run.tags) name += "  #" + QString::fromStdString(tag);
      return name;
    }
    case column_state:
      return text_of(run_state_name(run.state));
    case column_layers:
      return QString::fromStdString(run.layers);
    case column_loss:
      return show("val_loss", [](double v) { return std::isfinite(v) ? QString::number(v, 'f', 3) : format_value(v); });
    case column_train:
      return show("tokens_per_s", format_rate);
    case column_decode:
      return show("decode_tokens_per_s", format_rate);
    case column_cache:
      return show("cache_bytes", format_bytes);
    case column_steps:
      return QString("%1 / %2").arg(format_count(run.steps_done), format_count(run.steps_total));
    case column_created:
      return created_text(run.created_at);
    default:
      return {};
  }
}

QString RunsModel::tip(const RunRow& run) const {
  QString tip = QString("%1  (%2)\n%3\n%4")
                    .arg(QString::fromStdString(run.name), QString::fromStdString(run.id),
                         QString::fromStdString(run.layers), QString::fromStdString(run.data_description));
  tip += QString("\nseed %1, %2 %3, commit %4%5")
             .arg(run.seed)
             .arg(QString::fromStdString(run.device), QString::fromStdString(run.dtype),
                  QString::fromStdString(run.commit), run.dirty ? " with changes" : "");
  if (!run.error.empty()) tip += "\n" + QString::fromStdString(run.error);
  return tip;
}

QVariant RunsModel::data(const QModelIndex& index, int role) const {
  const RunRow* run = row_at(index.row());
  if (!run) return {};
  const Theme& theme = theme_ ? *theme_ : current_theme();
  const bool number = index.column() >= column_loss && index.column() <= column_steps;
  switch (role) {
    case Qt::DisplayRole:
      return text(*run, index.column());
    case Qt::EditRole:
      return index.column() == column_run ? QVariant(QString::fromStdString(run->name)) : QVariant();
    case Qt::ToolTipRole:
      return tip(*run);
    case Qt::TextAlignmentRole:
      return QVariant(Qt::AlignVCenter | (number || index.column() == column_created ? Qt::AlignRight : Qt::AlignLeft));
    case Qt::DecorationRole:
      if (index.column() != column_run) return {};
      return color_dot(to_qt(theme.series[static_cast<std::size_t>(run->color) % theme.series.size()]));
    case Qt::ForegroundRole:
      if (index.column() == column_state && (run->state == RunState::crashed || run->state == RunState::failed))
        return to_qt(theme.warning);
      if (index.column() == column_state && run->state == RunState::running) return to_qt(theme.ok);
      if (index.column() == column_created) return to_qt(theme.secondary);
      return {};
    default:
      return {};
  }
}

QVariant RunsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  static const QStringList titles{"RUN",          "STATE", "LAYERS", "VAL LOSS, NATS", "TRAIN TOK/S",
                                  "DECODE TOK/S", "CACHE", "STEPS",  "CREATED"};
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::DisplayRole) return titles.value(section);
  if (role == Qt::TextAlignmentRole)
    return QVariant(Qt::AlignVCenter | (section >= column_loss ? Qt::AlignRight : Qt::AlignLeft));
  return {};
}

bool RunsModel::setData(const QModelIndex& index, const QVariant& value, int role) {
  const RunRow* run = row_at(index.row());
  const QString name = value.toString().trimmed();
  if (!run || role != Qt::EditRole || name.isEmpty() || name == QString::fromStdString(run->name)) return false;
  emit rename_requested(QString::fromStdString(run->id), name);
  return true;
}

Qt::ItemFlags RunsModel::flags(const QModelIndex& index) const {
  const Qt::ItemFlags base = Qt::ItemIsSelectable | Qt::ItemIsEnabled;
  return index.column() == column_run ? base | Qt::ItemIsEditable : base;
}

RunsProxy::RunsProxy(RunsModel& model, QObject* parent) : QSortFilterProxyModel(parent), model_(model) {
  filter_ = *parse_run_filter("");
  setSourceModel(&model);
}

QVariant RunsProxy::headerData(int section, Qt::Orientation orientation, int role) const {
  QVariant data = QSortFilterProxyModel::headerData(section, orientation, role);
  if (role != Qt::DisplayRole || section != sortColumn()) return data;
  return data.toString() + (sortOrder() == Qt::AscendingOrder ? QString(" \u25b4") : QString(" \u25be"));
}

Status RunsProxy::set_filter(const QString& text) {
  Result<RunFilter> parsed = parse_run_filter(text.toStdString());
  if (!parsed) return parsed.error();
  filter_ = *std::move(parsed);
  invalidateFilter();
  return ok();
}

bool RunsProxy::filterAcceptsRow(int row, const QModelIndex&) const {
  return filter_.test(*model_.row_at(row), filter_.needs_spec ? model_.spec_at(row) : nullptr);
}

bool RunsProxy::lessThan(const QModelIndex& left, const QModelIndex& right) const {
  const double a = model_.sort_value(left.row(), left.column()), b = model_.sort_value(right.row(), right.column());
  const bool text = left.column() < column_loss;
  if (text)
    return model_.data(left, Qt::DisplayRole)
               .toString()
               .localeAwareCompare(model_.data(right, Qt::DisplayRole).toString()) < 0;
  // Runs without a value stay at the end, whichever way the column is sorted.
  if (std::isnan(a) || std::isnan(b))
    return sortOrder() == Qt::AscendingOrder ? std::isnan(b) && !std::isnan(a) : std::isnan(a) && !std::isnan(b);
  return a < b;
}

}  // namespace rat::app
