#include <algorithm>
#include <random>

#include "build_info.h"
#include "experiments/label.h"
#include "experiments/store/database.h"
#include "experiments/store/evaluations.h"
#include "experiments/store/merge.h"
#include "experiments/store/process.h"
#include "experiments/store/rows.h"
#include "experiments/store/store.h"
#include "experiments/store/twins.h"
#include "experiments/store/writer_thread.h"

namespace rat {

namespace fs = std::filesystem;

struct StoreWriter::Impl {
  fs::path path;
  std::unique_ptr<store::WriterThread> thread;

  // One statement with text parameters on one run; not_found when there is no such run.
  Status update_run(const std::string& id, const std::string& assignments, const std::vector<std::string>& values,
                    bool keep_trying = false) {
    return thread->run(
        [=](SQLite::Database& db) -> Status {
          RAT_ASSIGN(const int64_t run, store::run_number(db, id));
          SQLite::Statement update(db, fmt::format("UPDATE runs SET {} WHERE run = {}", assignments, run));
          for (std::size_t i = 0; i < values.size(); ++i) update.bind(static_cast<int>(i) + 1, values[i]);
          update.exec();
          return ok();
        },
        keep_trying);
  }
};

namespace {

constexpr int series_colors = 8;  // Theme::series

// What the run row says about the process that owns it and about what computes it.
struct Owner {
  static constexpr const char* assignments =
      "commit_id = :commit, dirty = :dirty, build = :build, host = :host, cpu = :cpu, gpu = 'none', pid = :pid, "
      "pid_start = :start, "
      "boot_id = :boot, heartbeat_at = :now";
  static void bind(SQLite::Statement& statement) {
    const ProcessIdentity& self = this_process();
    statement.bind(":commit", build_info::commit);
    statement.bind(":dirty", build_info::dirty ? 1 : 0);
    statement.bind(":build", build_description());
    statement.bind(":host", self.host);
    statement.bind(":cpu", cpu_model());
    statement.bind(":pid", self.pid);
    statement.bind(":start", self.start);
    statement.bind(":boot", self.boot_id);
    statement.bind(":now", unix_now());
  }
};

// Eight characters without those that are easily misread; 30^8 = 6.6e11 ids.
std::string random_id() {
  constexpr std::string_view alphabet = "abcdefghjkmnpqrstvwxyz23456789";
  std::random_device device;
  std::uniform_int_distribution<std::size_t> pick(0, alphabet.size() - 1);
  std::string id;
  for (int i = 0; i < 8; ++i) id += alphabet[pick(device)];
  return id;
}

std::string unused_id(SQLite::Database& db) {
  for (;;) {
    std::string id = random_id();
    if (!store::run_number(db, id)) return id;
  }
}

Status insert_run(SQLite::Database& db, const NewRun& run, std::string& id) {
  id = unused_id(db);
  SQLite::Statement insert(db,
                           "INSERT INTO runs (id, name, state, spec, spec_hash, sweep_id, layers, seed, device, dtype, "
                           "data_description, data_hash, "
                           "steps_total, created_at, color) VALUES (:id, :name, 'queued', :spec, :hash, :sweep, "
                           ":layers, :seed, :device, :dtype, :data, "
                           ":data_hash, :steps, :now, (SELECT (coalesce(max(run), 0)) % :colors FROM runs))");
  insert.bind(":id", id);
  insert.bind(":name", run.name.empty() ? "run " + id : run.name);
  insert.bind(":spec", run.spec_json);
  insert.bind(":hash", run.spec_hash);
  insert.bind(":sweep", run.sweep_id);
  insert.bind(":layers", run.layers);
  insert.bind(":seed", static_cast<int64_t>(run.seed));
  insert.bind(":device", run.device);
  insert.bind(":dtype", run.dtype);
  insert.bind(":data", run.data_description);
  insert.bind(":data_hash", run.data_hash);
  insert.bind(":steps", run.steps_total);
  insert.bind(":now", unix_now());
  insert.bind(":colors", series_colors);
  insert.exec();
  SQLite::Statement owner(db, fmt::format("UPDATE runs SET {} WHERE id = :id", Owner::assignments));
  Owner::bind(owner);
  owner.bind(":id", id);
  owner.exec();
  return ok();
}

Status set_running(SQLite::Database& db, const std::string& id) {
  RAT_TRY(store::run_number(db, id));
  SQLite::Statement update(
      db, fmt::format("UPDATE runs SET state = 'running', error = '', ended_at = 0, "
                      "started_at = CASE started_at WHEN 0 THEN :now ELSE started_at END, {} WHERE id = :id",
                      Owner::assignments));
  Owner::bind(update);
  update.bind(":id", id);
  update.exec();
  return ok();
}

// Writes down what derive_state says about runs whose process is gone.
Status record_dead_runs(SQLite::Database& db, const fs::path& path) {
  for (const RunRow& run : store::read_runs(db, path, "r.state IN ('queued', 'running')")) {
    if (run.state == RunState::queued || run.state == RunState::running) continue;
    SQLite::Statement update(db, "UPDATE runs SET state = ?, error = ?, ended_at = ? WHERE id = ?");
    update.bind(1, std::string(run_state_name(run.state)));
    update.bind(2, run.error);
    update.bind(3, run.ended_at);
    update.bind(4, run.id);
    update.exec();
  }
  return ok();
}

Status refuse_active(SQLite::Database& db, const fs::path& path, const std::string& id, std::string_view what) {
  const std::vector<RunRow> found = store::read_runs(db, path, "r.id = ?1", id);
  if (found.empty()) return store::run_number(db, id) ? ok() : Status(store::run_number(db, id).error());
  if (found.front().state == RunState::running || found.front().state == RunState::queued)
    return fail(ErrorCode::invalid_argument, "Run {} is {}; stop it before you {} it.", id,
                run_state_name(found.front().state), what);
  return ok();
}

}  // namespace

StoreWriter::StoreWriter() : impl_(std::make_unique<Impl>()) {}
StoreWriter::~StoreWriter() = default;

Result<std::unique_ptr<StoreWriter>> StoreWriter::open(const fs::path& path) {
  std::unique_ptr<StoreWriter> writer(new StoreWriter);
  std::error_code error;
  writer->impl_->path = fs::absolute(path, error).lexically_normal();
  RAT_ASSIGN(auto db, store::open_database(writer->impl_->path, store::Access::write));
  writer->impl_->thread = std::make_unique<store::WriterThread>(writer->impl_->path, std::move(db));
  RAT_TRY(writer->impl_->thread->run(
      [&](SQLite::Database& database) { return record_dead_runs(database, writer->impl_->path); }));
  return writer;
}

const fs::path& StoreWriter::path() const { return impl_->path; }
fs::path StoreWriter::run_folder(const std::string& run_id) const {
  return impl_->path.parent_path() / "checkpoints" / run_id;
}

Result<std::string> StoreWriter::create_run(const NewRun& run) {
  RAT_TRY(check_label("The name", run.name));
  std::string id;
  RAT_TRY(impl_->thread->run([&](SQLite::Database& db) -> Status {
    RAT_TRY(insert_run(db, run, id));
    return run.state == RunState::running ? set_running(db, id) : ok();
  }));
  return id;
}

Status StoreWriter::start_run(const std::string& id) {
  return impl_->thread->run([=](SQLite::Database& db) { return set_running(db, id); });
}

Status StoreWriter::end_run(const std::string& id, RunState state, const std::string& error) {
  if (state == RunState::queued || state == RunState::running)
    return fail(ErrorCode::invalid_argument, "A run cannot end as '{}'.", run_state_name(state));
  return impl_->update_run(
      id, fmt::format("state = ?1, error = ?2, ended_at = {0:.6f}, heartbeat_at = {0:.6f}", unix_now()),
      {std::string(run_state_name(state)), error}, true);
}

Status StoreWriter::record_checkpoint(const std::string& id, int64_t step, const fs::path& weights) {
  const fs::path relative = fs::absolute(weights).lexically_normal().lexically_relative(impl_->path.parent_path());
  if (relative.empty() || *relative.begin() == "..")
    return fail(ErrorCode::invalid_argument, "The checkpoint {} is outside the database's folder {}.", weights.string(),
                impl_->path.parent_path().string());
  return impl_->thread->run([=](SQLite::Database& db) -> Status {
    RAT_ASSIGN(const int64_t run, store::run_number(db, id));
    SQLite::Statement insert(db,
                             "INSERT OR REPLACE INTO checkpoints (run, step, path, created_at) VALUES (?, ?, ?, ?)");
    insert.bind(1, run);
    insert.bind(2, step);
    insert.bind(3, relative.string());
    insert.bind(4, unix_now());
    insert.exec();
    return ok();
  });
}

Status StoreWriter::forget_checkpoint(const std::string& id, int64_t step) {
  return impl_->thread->run([=](SQLite::Database& db) -> Status {
    RAT_ASSIGN(const int64_t run, store::run_number(db, id));
    db.exec(fmt::format("DELETE FROM checkpoints WHERE run = {} AND step = {}", run, step));
    return ok();
  });
}

Status StoreWriter::set_data(const std::string& id, const std::string& description, const std::string& hash) {
  return impl_->update_run(id, "data_description = ?1, data_hash = ?2", {description, hash});
}

Status StoreWriter::set_spec(const std::string& id, const std::string& spec_json, const std::string& spec_hash,
                             int64_t steps_total) {
  return impl_->update_run(id, fmt::format("spec = ?1, spec_hash = ?2, steps_total = {}", steps_total),
                           {spec_json, spec_hash});
}

Status StoreWriter::rename_run(const std::string& id, const std::string& name) {
  if (name.find_first_not_of(" \t\r\n") == std::string::npos)
    return fail(ErrorCode::invalid_argument, "A run needs a name that is not blank.");
  RAT_TRY(check_label("The name", name));
  return impl_->update_run(id, "name = ?1", {name});
}

Status StoreWriter::set_tags(const std::string& id, const std::vector<std::string>& tags) {
  for (const std::string& tag : tags) RAT_TRY(check_label("A tag", tag));
  return impl_->thread->run([=](SQLite::Database& db) -> Status {
    RAT_ASSIGN(const int64_t run, store::run_number(db, id));
    db.exec(fmt::format("DELETE FROM tags WHERE run = {}", run));
    SQLite::Statement insert(db, "INSERT OR IGNORE INTO tags (run, tag) VALUES (?, ?)");
    for (const std::string& tag : tags) {
      if (tag.empty()) continue;
      insert.reset();
      insert.bind(1, run);
      insert.bind(2, tag);
      insert.exec();
    }
    return ok();
  });
}

Status StoreWriter::delete_run(const std::string& id) {
  return impl_->thread->run([=, this](SQLite::Database& db) -> Status {
    RAT_TRY(refuse_active(db, impl_->path, id, "delete"));
    db.exec(fmt::format("UPDATE runs SET deleted_at = {:.6f} WHERE run = {}", unix_now(), *store::run_number(db, id)));
    return ok();
  });
}

Status StoreWriter::undelete_run(const std::string& id) { return impl_->update_run(id, "deleted_at = 0", {}); }

Status StoreWriter::purge_run(const std::string& id) {
  if (!store::valid_run_id(id)) return fail(ErrorCode::invalid_argument, "'{}' is not a run id.", id);
  RAT_TRY(impl_->thread->run([=, this](SQLite::Database& db) -> Status {
    RAT_TRY(refuse_active(db, impl_->path, id, "purge"));
    db.exec(fmt::format("DELETE FROM runs WHERE run = {}", *store::run_number(db, id)));
    return ok();
  }));
  if (store::has_twin(impl_->path, id)) return ok();
  std::error_code error;
  fs::remove_all(run_folder(id), error);
  if (error)
    return fail(ErrorCode::io_failure, "Run {} is gone, but its folder {} could not be removed: {}.", id,
                run_folder(id).string(), error.message());
  return ok();
}

Status StoreWriter::record_evaluation(const std::string& id, const Evaluation& evaluation) {
  return impl_->thread->run([=](SQLite::Database& db) -> Status {
    RAT_ASSIGN(const int64_t run, store::run_number(db, id));
    Evaluation stamped = evaluation;
    stamped.commit = build_info::commit;
    stamped.created_at = unix_now();
    store::insert_evaluation(db, run, stamped);
    return ok();
  });
}

Status StoreWriter::truncate_metrics(const std::string& id, int64_t step) {
  return impl_->thread->run([=](SQLite::Database& db) -> Status {
    RAT_ASSIGN(const int64_t run, store::run_number(db, id));
    for (const char* table : {"metrics", "evaluations"})
      db.exec(fmt::format("DELETE FROM {} WHERE run = {} AND step > {}", table, run, step));
    store::rebuild_summary(db, run);
    return ok();
  });
}

Result<int64_t> StoreWriter::merge(const fs::path& other) {
  return store::merge_database(*this, *impl_->thread, other);
}
Status StoreWriter::flush() { return impl_->thread->flush(); }

void StoreWriter::log(const std::string& id, const std::string& metric, int64_t step, double value, double wall_s) {
  impl_->thread->log(id, metric, step, value, wall_s);
}
void StoreWriter::set_progress(const std::string& id, int64_t steps_done) {
  impl_->thread->set_progress(id, steps_done);
}
StoreWriter::Health StoreWriter::health() const { return impl_->thread->health(); }

}  // namespace rat
