#include "experiments/store/rows.h"

#include <sqlite3.h>

#include <array>
#include <cmath>
#include <unordered_map>

namespace rat {

constexpr std::array<std::string_view, 6> state_names{"queued", "running", "finished", "stopped", "crashed", "failed"};

std::string_view run_state_name(RunState state) { return state_names[static_cast<std::size_t>(state)]; }

namespace store {
namespace {

namespace fs = std::filesystem;

constexpr const char* run_columns =
    "r.run, r.id, r.name, r.state, r.error, r.spec, r.spec_hash, r.sweep_id, r.layers, r.commit_id, r.dirty, r.host, "
    "r.cpu, r.gpu, "
    "r.build, r.seed, r.data_description, r.data_hash, r.device, r.dtype, r.steps_done, r.steps_total, r.created_at, "
    "r.started_at, "
    "r.ended_at, r.heartbeat_at, r.color, r.pid, r.pid_start, r.boot_id";

// A statement read with SQLite's own calls: a table of thousands of runs is a hundred thousand rows, and an object a
// column would cost more than the column.
class Query {
 public:
  Query(SQLite::Database& db, const std::string& sql, const std::optional<std::string>& parameter = {}) : db_(db) {
    check(sqlite3_prepare_v2(db.getHandle(), sql.c_str(), -1, &statement_, nullptr));
    if (parameter) check(sqlite3_bind_text(statement_, 1, parameter->c_str(), -1, SQLITE_TRANSIENT));
  }
  ~Query() { sqlite3_finalize(statement_); }
  Query(const Query&) = delete;
  Query& operator=(const Query&) = delete;

  bool next() {
    const int code = sqlite3_step(statement_);
    if (code != SQLITE_ROW && code != SQLITE_DONE) check(code);
    return code == SQLITE_ROW;
  }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }
  double real(int column) const { return sqlite3_column_double(statement_, column); }
  bool is_null(int column) const { return sqlite3_column_type(statement_, column) == SQLITE_NULL; }
  std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes ? std::string(bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column)))
                 : std::string();
  }

 private:
  void check(int code) const {
    if (code != SQLITE_OK) throw SQLite::Exception(db_.getHandle(), code);
  }
  SQLite::Database& db_;
  sqlite3_stmt* statement_ = nullptr;
};

RunRow read_run(const Query& row, double now) {
  int column = 1;
  const auto text = [&] { return row.text(column++); };
  const auto integer = [&] { return row.integer(column++); };
  const auto real = [&] { return row.real(column++); };
  RunRow run;
  run.id = text(), run.name = text();
  const auto stored = parse_run_state(text());
  run.error = text(), run.spec_json = text(), run.spec_hash = text(), run.sweep_id = text(), run.layers = text();
  run.commit = text(), run.dirty = integer() != 0;
  run.host = text(), run.cpu = text(), run.gpu = text(), run.build = text();
  run.seed = static_cast<uint64_t>(integer());
  run.data_description = text(), run.data_hash = text(), run.device = text(), run.dtype = text();
  run.steps_done = integer(), run.steps_total = integer();
  run.created_at = real(), run.started_at = real(), run.ended_at = real(), run.heartbeat_at = real();
  run.color = integer();
  ProcessIdentity owner;
  owner.pid = integer(), owner.start = integer(), owner.boot_id = text(), owner.host = run.host;
  run.state = stored ? *stored : RunState::failed;
  const TrueState truth = derive_state(run.state, owner, run.heartbeat_at, now);
  if (truth.state != run.state) {
    run.state = truth.state;
    run.error = truth.error;
    run.ended_at = run.heartbeat_at;
  }
  return run;
}

double stored_value(ValueKind kind, bool is_null, double value) {
  if (kind == ValueKind::negative_zero) return -0.0;
  return kind == ValueKind::nan || is_null ? std::nan("") : value;
}

// Finds the row of a run number. Rows of one run come together, so that most calls compare two numbers.
class RowFinder {
 public:
  RowFinder(std::vector<RunRow>& runs, const std::unordered_map<int64_t, std::size_t>& row_of)
      : runs_(runs), row_of_(row_of) {}
  RunRow* operator()(int64_t run) {  // null: a run that was not asked for
    if (run == run_) return row_;
    run_ = run;
    const auto at = row_of_.find(run);
    return row_ = at == row_of_.end() ? nullptr : &runs_[at->second];
  }

 private:
  std::vector<RunRow>& runs_;
  const std::unordered_map<int64_t, std::size_t>& row_of_;
  int64_t run_ = -1;
  RunRow* row_ = nullptr;
};

void read_summaries(SQLite::Database& db, const std::string& where, const std::optional<std::string>& parameter,
                    RowFinder row_of) {
  std::unordered_map<int64_t, std::string> names;
  for (Query row(db, "SELECT name_id, name FROM metric_names"); row.next();) names[row.integer(0)] = row.text(1);
  Query row(db,
            fmt::format("SELECT s.run, s.name_id, s.count, s.last_step, s.last, s.last_kind, s.best FROM "
                        "metric_summary s {}",
                        parameter ? "JOIN runs r USING (run) WHERE " + where : "ORDER BY s.run"),
            parameter);
  while (row.next()) {
    RunRow* run = row_of(row.integer(0));
    if (!run) continue;
    const double last = stored_value(static_cast<ValueKind>(row.integer(5)), row.is_null(4), row.real(4));
    const double best = row.is_null(6) ? std::nan("") : row.real(6);
    run->metrics.insert_or_assign(names[row.integer(1)], MetricSummary{last, best, row.integer(3), row.integer(2)});
  }
}

}  // namespace

ValueKind kind_of(double value) {
  if (std::isnan(value)) return ValueKind::nan;
  return value == 0 && std::signbit(value) ? ValueKind::negative_zero : ValueKind::as_is;
}

void bind_value(SQLite::Statement& statement, int value_index, int kind_index, double value) {
  const ValueKind kind = kind_of(value);
  if (kind == ValueKind::nan)
    statement.bind(value_index);
  else
    statement.bind(value_index, value);
  statement.bind(kind_index, static_cast<int>(kind));
}

double read_value(const SQLite::Column& value, const SQLite::Column& kind) {
  return stored_value(static_cast<ValueKind>(kind.getInt()), value.isNull(), value.getDouble());
}

bool larger_is_better(std::string_view metric) {
  return metric.find("accuracy") != std::string_view::npos || metric.find("per_s") != std::string_view::npos;
}

Result<RunState> parse_run_state(std::string_view name) {
  for (std::size_t i = 0; i < state_names.size(); ++i)
    if (state_names[i] == name) return static_cast<RunState>(i);
  return fail(ErrorCode::corrupt_data, "'{}' is not a run state.", name);
}

std::vector<RunRow> read_runs(SQLite::Database& db, const fs::path& database, const std::string& where,
                              const std::optional<std::string>& parameter) {
  std::vector<RunRow> runs;
  std::unordered_map<int64_t, std::size_t> numbers;
  const double now = unix_now();
  for (Query row(
           db, fmt::format("SELECT {} FROM runs r WHERE {} ORDER BY r.created_at DESC, r.run DESC", run_columns, where),
           parameter);
       row.next();) {
    numbers[row.integer(0)] = runs.size();
    runs.push_back(read_run(row, now));
  }
  RowFinder row_of(runs, numbers);
  read_summaries(db, where, parameter, row_of);
  for (Query row(
           db,
           fmt::format("SELECT t.run, t.tag FROM tags t JOIN runs r USING (run) WHERE {} ORDER BY t.run, t.tag", where),
           parameter);
       row.next();)
    if (RunRow* run = row_of(row.integer(0))) run->tags.push_back(row.text(1));
  for (Query row(db,
                 fmt::format("SELECT c.run, c.path FROM checkpoints c JOIN runs r USING (run) WHERE {} ORDER BY "
                             "c.run, c.step DESC",
                             where),
                 parameter);
       row.next();) {
    RunRow* run = row_of(row.integer(0));
    if (!run || !run->checkpoint.empty()) continue;
    const fs::path weights = stored_path(database, row.text(1));
    if (checkpoint_is_complete(weights)) run->checkpoint = weights.string();
  }
  return runs;
}

bool valid_run_id(std::string_view id) {
  if (id.empty() || id.size() > 32) return false;
  for (const char c : id)
    if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9')) return false;
  return true;
}

fs::path stored_path(const fs::path& database, const std::string& relative) {
  const fs::path normal = fs::path(relative).lexically_normal();
  if (normal.empty() || normal.is_absolute() || *normal.begin() == "..") return {};
  return fs::absolute(database).parent_path() / normal;
}

bool checkpoint_is_complete(const fs::path& weights) {
  if (weights.empty()) return false;
  fs::path optimizer = weights;
  optimizer.replace_extension(".optimizer.safetensors");
  std::error_code error;
  return fs::is_regular_file(weights, error) && fs::is_regular_file(optimizer, error);
}

Result<int64_t> run_number(SQLite::Database& db, const std::string& id) {
  SQLite::Statement query(db, "SELECT run FROM runs WHERE id = ?");
  query.bind(1, id);
  if (!query.executeStep())
    return fail(ErrorCode::not_found, "There is no run '{}'; `rat runs list` shows the runs there are.", id);
  return query.getColumn(0).getInt64();
}

int64_t metric_name_id(SQLite::Database& db, const std::string& name) {
  SQLite::Statement insert(db, "INSERT OR IGNORE INTO metric_names (name, larger_is_better) VALUES (?, ?)");
  insert.bind(1, name);
  insert.bind(2, larger_is_better(name) ? 1 : 0);
  SQLite::Statement query(db, "SELECT name_id FROM metric_names WHERE name = ?");
  query.bind(1, name);
  if (query.executeStep()) return query.getColumn(0).getInt64();
  insert.exec();
  query.reset();
  query.executeStep();
  return query.getColumn(0).getInt64();
}

void rebuild_summary(SQLite::Database& db, int64_t run, int64_t name_id) {
  const std::string which = fmt::format("run = {}{}", run, name_id ? fmt::format(" AND name_id = {}", name_id) : "");
  db.exec(fmt::format("DELETE FROM metric_summary WHERE {}", which));
  // min/max over the finite values only; 9e999 is how SQL writes infinity.
  db.exec(
      fmt::format("INSERT INTO metric_summary (run, name_id, count, last_step, last, last_kind, best) "
                  "SELECT g.run, g.name_id, g.n, g.last_step, m.value, m.kind, CASE WHEN larger_is_better THEN g.high "
                  "ELSE g.low END "
                  "FROM (SELECT run, name_id, count(*) AS n, max(step) AS last_step, "
                  "             max(value) FILTER (WHERE abs(value) < 9e999) AS high, min(value) FILTER (WHERE "
                  "abs(value) < 9e999) AS low "
                  "      FROM metrics WHERE {} GROUP BY run, name_id) g "
                  "JOIN metrics m ON m.run = g.run AND m.name_id = g.name_id AND m.step = g.last_step "
                  "JOIN metric_names n ON n.name_id = g.name_id",
                  which));
}

}  // namespace store
}  // namespace rat
