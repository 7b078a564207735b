#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "experiments/store/database.h"
#include "experiments/store/evaluations.h"
#include "experiments/store/rows.h"
#include "experiments/store/store.h"

namespace rat {

namespace fs = std::filesystem;

struct StoreReader::Impl {
  fs::path path;
  std::unique_ptr<SQLite::Database> db;

  // Several queries of one answer see one state of the database.
  template <class Work>
  auto in_snapshot(Work&& work) -> decltype(work()) {
    return store::guarded(path, [&]() -> decltype(work()) {
      const SQLite::Transaction snapshot(*db, SQLite::TransactionBehavior::DEFERRED);
      return work();
    });
  }

  // `exact`: which run has that very id; `among`: those that a name or the start of an id may mean.
  Result<RunRow> find(const std::string& wanted, const std::string& exact, const std::string& among) {
    return in_snapshot([&]() -> Result<RunRow> {
      for (const std::string& where :
           {exact, "r.name = ?1 AND " + among, "substr(r.id, 1, length(?1)) = ?1 AND " + among}) {
        if (wanted.empty()) break;
        std::vector<RunRow> found = store::read_runs(*db, path, where, wanted);
        if (found.size() == 1) return std::move(found.front());
        if (found.empty()) continue;
        std::vector<std::string> ids;
        for (std::size_t i = 0; i < std::min<std::size_t>(found.size(), 5); ++i) ids.push_back(found[i].id);
        return fail(ErrorCode::invalid_argument, "'{}' means {} runs ({}{}); give an id.", wanted, found.size(),
                    fmt::join(ids, ", "), found.size() > 5 ? ", ..." : "");
      }
      return fail(ErrorCode::not_found, "There is no run '{}'; `rat runs list` shows the runs there are.", wanted);
    });
  }
};

StoreReader::StoreReader() : impl_(std::make_unique<Impl>()) {}
StoreReader::StoreReader(StoreReader&&) noexcept = default;
StoreReader& StoreReader::operator=(StoreReader&&) noexcept = default;
StoreReader::~StoreReader() = default;

Result<StoreReader> StoreReader::open(const fs::path& path) {
  StoreReader reader;
  reader.impl_->path = path;
  RAT_ASSIGN(reader.impl_->db, store::open_database(path, store::Access::read));
  return reader;
}

Result<std::vector<RunRow>> StoreReader::runs(bool include_deleted) const {
  return impl_->in_snapshot([&]() -> Result<std::vector<RunRow>> {
    return store::read_runs(*impl_->db, impl_->path, include_deleted ? "1" : "r.deleted_at = 0");
  });
}

Result<RunRow> StoreReader::run(const std::string& id_or_name) const {
  return impl_->find(id_or_name, "r.id = ?1", "r.deleted_at = 0");
}

Result<RunRow> StoreReader::deleted_run(const std::string& id_or_name) const {
  return impl_->find(id_or_name, "r.id = ?1 AND r.deleted_at != 0", "r.deleted_at != 0");
}

Result<std::vector<std::string>> StoreReader::metric_names(const std::string& run_id) const {
  return store::guarded(impl_->path, [&]() -> Result<std::vector<std::string>> {
    SQLite::Statement query(
        *impl_->db,
        "SELECT n.name FROM metric_summary s JOIN metric_names n USING (name_id) JOIN runs r USING (run) "
        "WHERE r.id = ? ORDER BY n.name");
    query.bind(1, run_id);
    std::vector<std::string> names;
    while (query.executeStep()) names.push_back(query.getColumn(0).getString());
    return names;
  });
}

Result<std::vector<MetricPoint>> StoreReader::series(const std::string& run_id, const std::string& metric,
                                                     int64_t after_step) const {
  return store::guarded(impl_->path, [&]() -> Result<std::vector<MetricPoint>> {
    SQLite::Statement query(
        *impl_->db,
        "SELECT step, value, kind, wall FROM metrics WHERE run = (SELECT run FROM runs WHERE id = ?) "
        "AND name_id = (SELECT name_id FROM metric_names WHERE name = ?) AND step > ? ORDER BY step");
    query.bind(1, run_id);
    query.bind(2, metric);
    query.bind(3, after_step);
    std::vector<MetricPoint> points;
    while (query.executeStep())
      points.push_back({query.getColumn(0).getInt64(), store::read_value(query.getColumn(1), query.getColumn(2)),
                        query.getColumn(3).getDouble()});
    return points;
  });
}

Result<std::vector<Evaluation>> StoreReader::evaluations(const std::string& run_id, const std::string& task) const {
  return impl_->in_snapshot([&]() -> Result<std::vector<Evaluation>> {
    RAT_ASSIGN(const int64_t run, store::run_number(*impl_->db, run_id));
    return store::read_evaluations(*impl_->db, run, task);
  });
}

Result<int64_t> StoreReader::data_version() const {
  return store::guarded(impl_->path,
                        [&]() -> Result<int64_t> { return impl_->db->execAndGet("PRAGMA data_version").getInt64(); });
}

Status StoreReader::check() const {
  return store::guarded(impl_->path, [&]() -> Status {
    const std::string integrity = impl_->db->execAndGet("PRAGMA integrity_check(1)").getString();
    if (integrity != "ok")
      return fail(ErrorCode::corrupt_data, "{} is damaged ({}); restore a backup.", impl_->path.string(), integrity);
    SQLite::Statement orphans(*impl_->db, "PRAGMA foreign_key_check");
    if (orphans.executeStep())
      return fail(ErrorCode::corrupt_data, "{}: table '{}' has rows of a run that is not there; restore a backup.",
                  impl_->path.string(), orphans.getColumn(0).getString());
    SQLite::Statement files(
        *impl_->db, "SELECT r.id, c.step, c.path FROM checkpoints c JOIN runs r USING (run) ORDER BY r.id, c.step");
    int64_t missing = 0;
    std::string first;
    while (files.executeStep()) {
      if (store::checkpoint_is_complete(store::stored_path(impl_->path, files.getColumn(2).getString()))) continue;
      if (missing++ == 0)
        first = fmt::format("run {} step {}", files.getColumn(0).getString(), files.getColumn(1).getInt64());
    }
    if (missing > 0)
      return fail(ErrorCode::not_found, "{} checkpoint(s) recorded in {} are missing on disk, first {}.", missing,
                  impl_->path.string(), first);
    return ok();
  });
}

Status StoreReader::backup(const fs::path& to) const {
  std::error_code error;
  if (fs::exists(fs::symlink_status(to, error)))
    return fail(ErrorCode::invalid_argument, "{} already exists; choose another name for the backup.", to.string());
  const fs::path temporary = to.string() + ".partial";
  fs::remove(temporary, error);
  const Status copied = store::guarded(temporary, [&]() -> Status {
    impl_->db->exec("PRAGMA query_only = OFF");  // VACUUM INTO only reads this file, but the switch forbids it
    SQLite::Statement vacuum(*impl_->db, "VACUUM INTO ?");
    vacuum.bind(1, temporary.string());
    vacuum.exec();
    return ok();
  });
  impl_->db->tryExec("PRAGMA query_only = ON");
  if (copied) {
    const int file = ::open(temporary.c_str(), O_RDONLY | O_CLOEXEC);
    const bool synced = file >= 0 && fsync(file) == 0;
    if (file >= 0) close(file);
    if (synced) fs::rename(temporary, to, error);
    if (synced && !error) return ok();
  }
  std::error_code ignored;
  fs::remove(temporary, ignored);
  if (!copied) return copied;
  return fail(ErrorCode::io_failure, "The backup {} could not be completed: {}.", to.string(),
              error ? error.message() : "sync failed");
}

fs::path default_database_path() {
  const char* data_home = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  fs::path base =
      data_home && *data_home == '/' ? fs::path(data_home) : fs::path(home && *home ? home : ".") / ".local" / "share";
  return base / "rat-workbench" / "runs.db";
}

}  // namespace rat
