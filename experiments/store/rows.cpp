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

RunRow read_run(SQLite::Statement& row, double now) {
  int column = 1;
  const auto text = [&] { return row.getColumn(column++).getString(); };
  const auto integer = [&] { return row.getColumn(column++).getInt64(); };
  const auto real = [&] { return row.getColumn(column++).getDouble(); };
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

// Calls `use(row)` for each row of `sql` whose runs match.
template <class Use>
void for_each(SQLite::Database& db, const std::string& sql, const std::optional<std::string>& parameter, Use&& use) {
  SQLite::Statement query(db, sql);
  if (parameter) query.bind(1, *parameter);
  while (query.executeStep()) use(query);
}

// A hundred thousand rows when there are thousands of runs, so this one loop uses SQLite's own calls.
void read_summaries(SQLite::Database& db, const std::string& where, const std::optional<std::string>& parameter,
                    const std::unordered_map<int64_t, std::size_t>& row_of, std::vector<RunRow>& runs) {
  std::unordered_map<int64_t, std::string> names;
  for_each(db, "SELECT name_id, name FROM metric_names", {},
           [&](SQLite::Statement& row) { names[row.getColumn(0).getInt64()] = row.getColumn(1).getString(); });
  const std::string sql =
      fmt::format("SELECT s.run, s.name_id, s.count, s.last_step, s.last, s.last_kind, s.best FROM metric_summary s {}",
                  parameter ? "JOIN runs r USING (run) WHERE " + where : "ORDER BY s.run");
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(db.getHandle(), sql.c_str(), -1, &raw, nullptr);
  const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> query(raw, sqlite3_finalize);
  if (code == SQLITE_OK && parameter) code = sqlite3_bind_text(raw, 1, parameter->c_str(), -1, SQLITE_TRANSIENT);
  int64_t run = -1;
  RunRow* row = nullptr;
  while (code == SQLITE_OK && (code = sqlite3_step(raw)) == SQLITE_ROW) {
    code = SQLITE_OK;
    if (const int64_t next = sqlite3_column_int64(raw, 0); next != run) {
      run = next;
      const auto at = row_of.find(run);
      row = at == row_of.end() ? nullptr : &runs[at->second];  // a hidden run
    }
    if (!row) continue;
    const double last = stored_value(static_cast<ValueKind>(sqlite3_column_int(raw, 5)),
                                     sqlite3_column_type(raw, 4) == SQLITE_NULL, sqlite3_column_double(raw, 4));
    const double best = sqlite3_column_type(raw, 6) == SQLITE_NULL ? std::nan("") : sqlite3_column_double(raw, 6);
    row->metrics[names[sqlite3_column_int64(raw, 1)]] = {last, best, sqlite3_column_int64(raw, 3),
                                                         sqlite3_column_int64(raw, 2)};
  }
  if (code != SQLITE_DONE) throw SQLite::Exception(db.getHandle(), code);
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
  std::unordered_map<int64_t, std::size_t> row_of;
  const double now = unix_now();
  for_each(db, fmt::format("SELECT {} FROM runs r WHERE {} ORDER BY r.created_at DESC, r.run DESC", run_columns, where),
           parameter, [&](SQLite::Statement& row) {
             row_of[row.getColumn(0).getInt64()] = runs.size();
             runs.push_back(read_run(row, now));
           });
  read_summaries(db, where, parameter, row_of, runs);
  for_each(db,
           fmt::format("SELECT t.run, t.tag FROM tags t JOIN runs r USING (run) WHERE {} ORDER BY t.run, t.tag", where),
           parameter, [&](SQLite::Statement& row) {
             runs[row_of.at(row.getColumn(0).getInt64())].tags.push_back(row.getColumn(1).getString());
           });
  for_each(db,
           fmt::format(
               "SELECT c.run, c.path FROM checkpoints c JOIN runs r USING (run) WHERE {} ORDER BY c.run, c.step DESC",
               where),
           parameter, [&](SQLite::Statement& row) {
             std::string& newest = runs[row_of.at(row.getColumn(0).getInt64())].checkpoint;
             if (!newest.empty()) return;
             const fs::path weights = stored_path(database, row.getColumn(1).getString());
             if (checkpoint_is_complete(weights)) newest = weights.string();
           });
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
