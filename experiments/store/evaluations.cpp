#include "experiments/store/evaluations.h"

#include <fmt/format.h>

#include "experiments/store/rows.h"

namespace rat::store {
namespace {

template <class T>
void bind_optional(SQLite::Statement& statement, int index, const std::optional<T>& value) {
  if (value)
    statement.bind(index, *value);
  else
    statement.bind(index);
}

void insert_points(SQLite::Database& db, int64_t evaluation, const std::vector<EvaluationPoint>& points) {
  SQLite::Statement insert(db,
                           "INSERT INTO evaluation_points (evaluation, point, metric, seq_len, depth, position, value, "
                           "kind, standard_error, "
                           "sequences, targets) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  for (std::size_t i = 0; i < points.size(); ++i) {
    const EvaluationPoint& point = points[i];
    insert.reset();
    insert.bind(1, evaluation);
    insert.bind(2, static_cast<int64_t>(i));
    insert.bind(3, point.metric);
    insert.bind(4, point.seq_len);
    bind_optional(insert, 5, point.depth);
    bind_optional(insert, 6, point.position);
    bind_value(insert, 7, 8, point.value);
    if (std::isfinite(point.standard_error))
      insert.bind(9, point.standard_error);
    else
      insert.bind(9);
    insert.bind(10, point.sequences);
    insert.bind(11, point.targets);
    insert.exec();
  }
}

std::vector<EvaluationPoint> read_points(SQLite::Database& db, int64_t evaluation) {
  SQLite::Statement query(db,
                          "SELECT metric, seq_len, depth, position, value, kind, standard_error, sequences, targets "
                          "FROM evaluation_points WHERE evaluation = ? ORDER BY point");
  query.bind(1, evaluation);
  std::vector<EvaluationPoint> points;
  while (query.executeStep()) {
    EvaluationPoint& point = points.emplace_back();
    point.metric = query.getColumn(0).getString();
    point.seq_len = query.getColumn(1).getInt64();
    if (!query.getColumn(2).isNull()) point.depth = query.getColumn(2).getDouble();
    if (!query.getColumn(3).isNull()) point.position = query.getColumn(3).getInt64();
    point.value = read_value(query.getColumn(4), query.getColumn(5));
    if (!query.getColumn(6).isNull()) point.standard_error = query.getColumn(6).getDouble();
    point.sequences = query.getColumn(7).getInt64();
    point.targets = query.getColumn(8).getInt64();
  }
  return points;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

void insert_evaluation(SQLite::Database& db, int64_t run, const Evaluation& evaluation) {
  // REPLACE deletes the row that is in the way, and its points with it.
  SQLite::Statement insert(
      db,
      "INSERT OR REPLACE INTO evaluations (run, task, step, settings, data_hash, device, dtype, data_description, "
      "notes, commit_id, created_at, elapsed_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  insert.bind(1, run);
  insert.bind(2, evaluation.task);
  insert.bind(3, evaluation.step);
  insert.bind(4, evaluation.settings);
  insert.bind(5, evaluation.data_hash);
  insert.bind(6, evaluation.device);
  insert.bind(7, evaluation.dtype);
  insert.bind(8, evaluation.data_description);
  insert.bind(9, fmt::format("{}", fmt::join(evaluation.notes, "\n")));
  insert.bind(10, evaluation.commit);
  insert.bind(11, evaluation.created_at);
  insert.bind(12, evaluation.elapsed_s);
  insert.exec();
  insert_points(db, db.getLastInsertRowid(), evaluation.points);
}

std::vector<Evaluation> read_evaluations(SQLite::Database& db, int64_t run, const std::string& task) {
  if (!db.tableExists("evaluations")) return {};  // written by a version that had none
  SQLite::Statement query(db,
                          "SELECT evaluation, task, step, settings, data_hash, device, dtype, data_description, notes, "
                          "commit_id, created_at, elapsed_s FROM evaluations WHERE run = ?1 AND (?2 = '' OR task = ?2) "
                          "ORDER BY created_at, evaluation");
  query.bind(1, run);
  query.bind(2, task);
  std::vector<Evaluation> evaluations;
  while (query.executeStep()) {
    Evaluation& one = evaluations.emplace_back();
    one.task = query.getColumn(1).getString();
    one.step = query.getColumn(2).getInt64();
    one.settings = query.getColumn(3).getString();
    one.data_hash = query.getColumn(4).getString();
    one.device = query.getColumn(5).getString();
    one.dtype = query.getColumn(6).getString();
    one.data_description = query.getColumn(7).getString();
    one.notes = lines_of(query.getColumn(8).getString());
    one.commit = query.getColumn(9).getString();
    one.created_at = query.getColumn(10).getDouble();
    one.elapsed_s = query.getColumn(11).getDouble();
    one.points = read_points(db, query.getColumn(0).getInt64());
  }
  return evaluations;
}

}  // namespace rat::store
