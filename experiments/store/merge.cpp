#include "experiments/store/merge.h"

#include <unordered_map>

#include "experiments/store/evaluations.h"
#include "experiments/store/rows.h"

namespace rat::store {
namespace {

namespace fs = std::filesystem;

// Binds column `from` of a row to parameter `to`, whatever its type.
void copy_column(const SQLite::Column& from, SQLite::Statement& statement, int to) {
  if (from.isNull())
    statement.bind(to);
  else if (from.isInteger())
    statement.bind(to, from.getInt64());
  else if (from.isFloat())
    statement.bind(to, from.getDouble());
  else
    statement.bind(to, from.getString());
}

constexpr const char* run_columns =
    "id, name, state, error, spec, spec_hash, sweep_id, layers, seed, device, dtype, data_description, data_hash, "
    "commit_id, dirty, "
    "build, host, cpu, gpu, pid, pid_start, boot_id, steps_done, steps_total, created_at, started_at, ended_at, "
    "heartbeat_at, "
    "deleted_at, color";
constexpr int run_column_count = 30;

// Copies `select`ed rows of the other database into `insert`, whose first parameter is our run number.
void copy_rows(SQLite::Database& from, const std::string& select, int64_t from_run, SQLite::Database& to,
               const std::string& insert, int64_t to_run) {
  SQLite::Statement source(from, select);
  source.bind(1, from_run);
  SQLite::Statement target(to, insert);
  while (source.executeStep()) {
    target.reset();
    target.bind(1, to_run);
    for (int i = 0; i < source.getColumnCount(); ++i) copy_column(source.getColumn(i), target, i + 2);
    target.exec();
  }
}

void copy_metrics(SQLite::Database& from, int64_t from_run, SQLite::Database& to, int64_t to_run) {
  std::unordered_map<int64_t, int64_t> names;
  SQLite::Statement source(
      from,
      "SELECT m.name_id, m.step, m.value, m.kind, m.wall, n.name FROM metrics m JOIN metric_names n "
      "USING (name_id) WHERE m.run = ?");
  source.bind(1, from_run);
  SQLite::Statement target(to, "INSERT INTO metrics (run, name_id, step, value, kind, wall) VALUES (?, ?, ?, ?, ?, ?)");
  while (source.executeStep()) {
    const auto [at, is_new] = names.try_emplace(source.getColumn(0).getInt64(), 0);
    if (is_new) at->second = metric_name_id(to, source.getColumn(5).getString());
    target.reset();
    target.bind(1, to_run);
    target.bind(2, at->second);
    for (int i = 1; i < 5; ++i) copy_column(source.getColumn(i), target, i + 2);
    target.exec();
  }
  rebuild_summary(to, to_run);
}

void copy_run(SQLite::Database& from, const RunRow& run, SQLite::Database& to) {
  const int64_t from_run = *run_number(from, run.id);
  SQLite::Statement source(from, fmt::format("SELECT {} FROM runs WHERE run = {}", run_columns, from_run));
  source.executeStep();
  std::string marks = "?";
  for (int i = 1; i < run_column_count; ++i) marks += ", ?";
  SQLite::Statement target(to, fmt::format("INSERT INTO runs ({}) VALUES ({})", run_columns, marks));
  for (int i = 0; i < run_column_count; ++i) copy_column(source.getColumn(i), target, i + 1);
  target.bind(3, std::string(run_state_name(run.state)));  // the true one
  target.bind(4, run.error);
  target.exec();
  const int64_t to_run = *run_number(to, run.id);
  copy_rows(from, "SELECT tag FROM tags WHERE run = ?", from_run, to, "INSERT INTO tags (run, tag) VALUES (?, ?)",
            to_run);
  copy_metrics(from, from_run, to, to_run);
  for (const Evaluation& evaluation : read_evaluations(from, from_run, "")) insert_evaluation(to, to_run, evaluation);
}

// Copies complete checkpoints into our run folder: optimizer file first, so that a weights file means both are there.
Result<std::vector<std::pair<int64_t, fs::path>>> copy_checkpoints(SQLite::Database& from, const fs::path& other,
                                                                   const RunRow& run, const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> copied;
  SQLite::Statement query(
      from, "SELECT c.step, c.path FROM checkpoints c JOIN runs r USING (run) WHERE r.id = ? ORDER BY c.step");
  query.bind(1, run.id);
  while (query.executeStep()) {
    const fs::path weights = stored_path(other, query.getColumn(1).getString());
    if (!checkpoint_is_complete(weights)) continue;
    std::error_code error;
    fs::create_directories(folder, error);
    fs::path optimizer = weights;
    optimizer.replace_extension(".optimizer.safetensors");
    for (const fs::path& file : {optimizer, weights}) {
      const fs::path target = folder / file.filename(), temporary = target.string() + ".tmp";
      if (!error) fs::copy_file(file, temporary, fs::copy_options::overwrite_existing, error);
      if (!error) fs::rename(temporary, target, error);
      if (!error) continue;
      std::error_code ignored;
      fs::remove(temporary, ignored);
      return fail(ErrorCode::io_failure, "Cannot copy the checkpoint {} to {}: {}.", file.string(), folder.string(),
                  error.message());
    }
    copied.emplace_back(query.getColumn(0).getInt64(), folder / weights.filename());
  }
  return copied;
}

}  // namespace

Result<int64_t> merge_database(const StoreWriter& target, WriterThread& thread, const fs::path& other) {
  std::error_code error;
  if (fs::equivalent(target.path(), other, error))
    return fail(ErrorCode::invalid_argument, "{} is the database that is open; give another one to merge.",
                other.string());
  RAT_ASSIGN(const auto from, open_database(other, Access::read));
  return guarded(other, [&]() -> Result<int64_t> {
    const SQLite::Transaction snapshot(*from, SQLite::TransactionBehavior::DEFERRED);
    int64_t count = 0;
    std::vector<RunRow> runs = read_runs(*from, other, "1");
    for (auto run = runs.rbegin(); run != runs.rend(); ++run) {  // oldest first, as they were made
      if (run->state == RunState::queued || run->state == RunState::running) continue;
      if (!valid_run_id(run->id))
        return fail(ErrorCode::corrupt_data, "{} holds a run with the id '{}', which no run has.", other.string(),
                    run->id);
      bool present = false;
      RAT_TRY(thread.run([&](SQLite::Database& db) -> Status {
        present = bool(run_number(db, run->id));
        return ok();
      }));
      if (present) continue;
      RAT_ASSIGN(const auto checkpoints, copy_checkpoints(*from, other, *run, target.run_folder(run->id)));
      RAT_TRY(thread.run([&](SQLite::Database& db) -> Status {
        copy_run(*from, *run, db);
        const int64_t number = *run_number(db, run->id);
        for (const auto& [step, weights] : checkpoints) {
          SQLite::Statement insert(db, "INSERT INTO checkpoints (run, step, path, created_at) VALUES (?, ?, ?, ?)");
          insert.bind(1, number);
          insert.bind(2, step);
          insert.bind(3, weights.lexically_relative(target.path().parent_path()).string());
          insert.bind(4, unix_now());
          insert.exec();
        }
        return ok();
      }));
      ++count;
    }
    return count;
  });
}

}  // namespace rat::store
