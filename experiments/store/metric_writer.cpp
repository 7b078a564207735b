#include "experiments/store/metric_writer.h"

#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "experiments/store/rows.h"

namespace rat::store {
namespace {

// What a batch adds to one row of metric_summary.
struct Addition {
  int64_t count = 0, last_step = std::numeric_limits<int64_t>::min();
  double last = 0;
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();

  void add(const LoggedPoint& point) {
    ++count;
    if (point.step >= last_step) last_step = point.step, last = point.value;
    if (!std::isfinite(point.value)) return;
    low = std::min(low, point.value);
    high = std::max(high, point.value);
  }
};

void add_to_summary(SQLite::Database& db, int64_t run, int64_t name_id, bool larger, const Addition& addition) {
  SQLite::Statement upsert(db, fmt::format("INSERT INTO metric_summary (run, name_id, count, last_step, last, "
                                           "last_kind, best) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
                                           "ON CONFLICT (run, name_id) DO UPDATE SET count = count + ?3, "
                                           "last = CASE WHEN ?4 >= last_step THEN ?5 ELSE last END, last_kind = CASE "
                                           "WHEN ?4 >= last_step THEN ?6 ELSE last_kind END, "
                                           "best = CASE WHEN ?7 IS NULL THEN best WHEN best IS NULL THEN ?7 ELSE "
                                           "{}(best, ?7) END, last_step = max(last_step, ?4)",
                                           larger ? "max" : "min"));
  upsert.bind(1, run);
  upsert.bind(2, name_id);
  upsert.bind(3, addition.count);
  upsert.bind(4, addition.last_step);
  bind_value(upsert, 5, 6, addition.last);
  const double best = larger ? addition.high : addition.low;
  if (std::isfinite(best)) upsert.bind(7, best);
  upsert.exec();
}

// Database keys of the names in one batch, looked up once each.
class Keys {
 public:
  Keys(SQLite::Database& db, const std::vector<std::string>& runs, const std::vector<std::string>& metrics)
      : db_(db), run_names_(runs), metric_names_(metrics) {}

  // 0: no such run
  int64_t run(int32_t index) {
    const auto [at, is_new] = runs_.try_emplace(index, 0);
    if (is_new)
      if (const auto number = run_number(db_, run_names_[static_cast<std::size_t>(index)])) at->second = *number;
    return at->second;
  }
  int64_t metric(int32_t index) {
    const auto [at, is_new] = metrics_.try_emplace(index, 0);
    if (is_new) at->second = metric_name_id(db_, metric_names_[static_cast<std::size_t>(index)]);
    return at->second;
  }

 private:
  SQLite::Database& db_;
  const std::vector<std::string>&run_names_, &metric_names_;
  std::map<int32_t, int64_t> runs_, metrics_;
};

}  // namespace

int64_t write_points(SQLite::Database& db, std::span<const LoggedPoint> points,
                     const std::vector<std::string>& run_names, const std::vector<std::string>& metric_names) {
  SQLite::Statement insert(
      db, "INSERT OR IGNORE INTO metrics (run, name_id, step, value, kind, wall) VALUES (?, ?, ?, ?, ?, ?)");
  SQLite::Statement replace(
      db, "UPDATE metrics SET value = ?4, kind = ?5, wall = ?6 WHERE run = ?1 AND name_id = ?2 AND step = ?3");
  Keys keys(db, run_names, metric_names);
  std::map<std::pair<int32_t, int32_t>, Addition> additions;
  std::set<std::pair<int64_t, int64_t>> replaced;  // their summaries are rebuilt
  int64_t unknown = 0;
  const auto bind = [](SQLite::Statement& statement, int64_t run, int64_t metric, const LoggedPoint& point) {
    statement.reset();
    statement.bind(1, run);
    statement.bind(2, metric);
    statement.bind(3, point.step);
    bind_value(statement, 4, 5, point.value);
    statement.bind(6, point.wall_s);
  };
  for (const LoggedPoint& point : points) {
    const int64_t run = keys.run(point.run);
    if (run == 0) {
      ++unknown;
      continue;
    }
    const int64_t metric = keys.metric(point.metric);
    bind(insert, run, metric, point);
    if (insert.exec() == 1) {
      additions[{point.run, point.metric}].add(point);
    } else {
      bind(replace, run, metric, point);
      replace.exec();
      replaced.insert({run, metric});
    }
  }
  for (const auto& [key, addition] : additions)
    add_to_summary(db, keys.run(key.first), keys.metric(key.second),
                   larger_is_better(metric_names[static_cast<std::size_t>(key.second)]), addition);
  for (const auto& [run, metric] : replaced) rebuild_summary(db, run, metric);
  return unknown;
}

void write_progress(SQLite::Database& db, const std::string& run_id, const Progress& progress) {
  SQLite::Statement update(db, "UPDATE runs SET steps_done = ?, heartbeat_at = ? WHERE id = ?");
  update.bind(1, progress.steps_done);
  update.bind(2, progress.at);
  update.bind(3, run_id);
  update.exec();
}

}  // namespace rat::store
