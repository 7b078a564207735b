#include "experiments/store/writer_thread.h"

#include <sqlite3.h>

#include <algorithm>

#include "experiments/store/process.h"

namespace rat::store {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t batch_points = 200;
constexpr auto batch_delay = 250ms;
constexpr auto retry_delay = 500ms;
constexpr auto heartbeat_interval = 30s;
constexpr std::size_t points_per_transaction = 10'000;
constexpr int checkpoint_pages = 1000;  // 4 MiB of log
constexpr int64_t log_alarm_bytes = int64_t{256} << 20;
constexpr int checkpoint_busy_ms = 200;
constexpr auto checkpoint_retry = 2s;       // while somebody's reading keeps the log from being emptied
constexpr int large_log_pages = 16 * 1000;  // 64 MiB: given back to the disk as soon as it is empty

int count_log_pages(void* pages, sqlite3*, const char*, int now) {
  *static_cast<int*>(pages) = now;
  return SQLITE_OK;
}

}  // namespace

WriterThread::WriterThread(std::filesystem::path path, std::unique_ptr<SQLite::Database> db)
    : path_(std::move(path)), db_(std::move(db)), checkpoint_at_pages_(checkpoint_pages) {
  sqlite3_wal_hook(db_->getHandle(), count_log_pages, &log_pages_);
  next_heartbeat_ = Clock::now() + heartbeat_interval;
  thread_ = std::thread([this] { loop(); });
}

WriterThread::~WriterThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

Status WriterThread::run(Work work, bool keep_trying) {
  std::future<Status> done;
  {
    const std::lock_guard lock(mutex_);
    Command& command = commands_.emplace_back(Command{std::move(work), keep_trying, {}});
    done = command.done.get_future();
  }
  wake_.notify_one();
  return done.get();
}

Status WriterThread::flush() { return run({}); }

void WriterThread::log(const std::string& run, const std::string& metric, int64_t step, double value, double wall_s) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (incoming_.empty()) first_queued_ = Clock::now();
    incoming_.push_back({runs_.index_of(run), metrics_.index_of(metric), step, value, wall_s});
    wake = incoming_.size() == 1 || incoming_.size() == batch_points;
  }
  if (wake) wake_.notify_one();
}

void WriterThread::set_progress(const std::string& run, int64_t steps_done) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    wake = incoming_progress_.empty() && incoming_.empty();
    if (wake) first_queued_ = Clock::now();
    incoming_progress_[runs_.index_of(run)] = {steps_done, unix_now()};
  }
  if (wake) wake_.notify_one();
}

StoreWriter::Health WriterThread::health() const {
  const std::lock_guard lock(mutex_);
  StoreWriter::Health health = health_;
  if (health.problem.empty()) health.problem = log_problem_;
  health.queued += static_cast<int64_t>(incoming_.size());
  return health;
}

bool WriterThread::has_work() const {
  if (stopping_ || !commands_.empty()) return true;
  return incoming_.size() >= batch_points && Clock::now() >= retry_at_;
}

WriterThread::Clock::time_point WriterThread::next_wake() const {
  Clock::time_point wake = next_heartbeat_;
  if (!incoming_.empty() || !incoming_progress_.empty())
    wake = std::min(wake, std::max(first_queued_ + batch_delay, retry_at_));
  if (health_.queued > 0 || !pending_.deferred.empty() || must_reopen_) wake = std::min(wake, retry_at_);
  return std::min(wake, checkpoint_again_at_);
}

void WriterThread::take_queued() {
  pending_.points.insert(pending_.points.end(), incoming_.begin(), incoming_.end());
  incoming_.clear();
  for (const auto& [run, progress] : incoming_progress_) pending_.progress[run] = progress;
  incoming_progress_.clear();
  pending_.run_names = runs_.names();
  pending_.metric_names = metrics_.names();
  health_.queued = static_cast<int64_t>(pending_.points.size());
}

void WriterThread::loop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    // Waits for the moment, which each new first point may bring nearer: hence the loop around the timed wait.
    while (!has_work() && Clock::now() < next_wake()) wake_.wait_until(lock, next_wake());
    take_queued();
    std::deque<Command> commands = std::move(commands_);
    commands_.clear();
    const bool stop = stopping_;
    lock.unlock();

    if (const Status points = commit_pending(); !points || commands.empty()) report(points);
    for (Command& command : commands) run_command(command);
    heartbeat();
    checkpoint_if_due();
    watch_log();

    lock.lock();
    if (stop && commands_.empty()) break;
  }
  lock.unlock();
  try {
    db_->exec("PRAGMA wal_checkpoint(TRUNCATE)");
  } catch (const SQLite::Exception&) {
    // The log stays beside the file; the next opening reads it.
  }
  db_.reset();
}

// After an I/O error SQLite's idea of what reached the disk cannot be trusted, least of all after a failed sync: the
// connection is closed and what was not acknowledged is written again on a new one.
Status WriterThread::reopen_if_needed() {
  if (!must_reopen_) return ok();
  db_.reset();
  auto opened = open_database(path_, Access::write);
  if (!opened) return fail(ErrorCode::io_failure, "{}", opened.error().message);  // whatever it is, try again later
  db_ = *std::move(opened);
  sqlite3_wal_hook(db_->getHandle(), count_log_pages, &log_pages_);
  must_reopen_ = false;
  return ok();
}

Status WriterThread::execute(const Work& work) {
  RAT_TRY(reopen_if_needed());
  Status status = guarded(path_, [&]() -> Status {
    try {
      WriteTransaction transaction(*db_);
      RAT_TRY(work(*db_));
      transaction.commit();
      return ok();
    } catch (const SQLite::Exception& error) {
      const int code = error.getErrorCode() & 0xff;
      must_reopen_ = code == SQLITE_IOERR || code == SQLITE_CORRUPT || code == SQLITE_NOTADB || code == SQLITE_CANTOPEN;
      throw;
    }
  });
  return status;
}

Status WriterThread::commit_points(std::size_t count) {
  int64_t unknown = 0;
  RAT_TRY(execute([&](SQLite::Database& db) -> Status {
    unknown = write_points(db, std::span(pending_.points).first(count), pending_.run_names, pending_.metric_names);
    for (const auto& [run, progress] : pending_.progress)
      write_progress(db, pending_.run_names[static_cast<std::size_t>(run)], progress);
    return ok();
  }));
  dropped_ += unknown;
  pending_.progress.clear();
  pending_.points.erase(pending_.points.begin(), pending_.points.begin() + static_cast<std::ptrdiff_t>(count));
  const std::lock_guard lock(mutex_);
  health_.queued = static_cast<int64_t>(pending_.points.size());
  health_.last_commit_at = unix_now();
  return ok();
}

Status WriterThread::commit_pending() {
  RAT_TRY(reopen_if_needed());  // also when nothing waits: the next command then finds an open file
  while (!pending_.deferred.empty()) {
    const Status status = execute(pending_.deferred.front());
    if (!status && status.error().code == ErrorCode::io_failure) return status;
    pending_.deferred.pop_front();
  }
  while (!pending_.points.empty() || !pending_.progress.empty())
    RAT_TRY(commit_points(std::min(pending_.points.size(), points_per_transaction)));
  return ok();
}

void WriterThread::run_command(Command& command) {
  if (!command.work) {
    command.done.set_value(commit_pending());
    return;
  }
  const Status status = execute(command.work);
  report(status);
  if (!status && status.error().code == ErrorCode::io_failure && command.keep_trying)
    pending_.deferred.push_back(std::move(command.work));
  command.done.set_value(status);
}

void WriterThread::report(const Status& status) {
  const std::lock_guard lock(mutex_);
  const bool refused =
      !status && (status.error().code == ErrorCode::io_failure || status.error().code == ErrorCode::corrupt_data);
  retry_at_ = refused ? Clock::now() + retry_delay : Clock::time_point{};
  if (refused)
    health_.problem = status.error().message;
  else if (dropped_ > 0)
    health_.problem =
        fmt::format("{} metric values were logged for runs that are not in the database and are lost.", dropped_);
  else
    health_.problem.clear();
}

void WriterThread::watch_log() {
  const int64_t bytes = int64_t{log_pages_} * 4096;
  const std::lock_guard lock(mutex_);
  log_problem_ = bytes > log_alarm_bytes
                     ? fmt::format("A program that reads {} keeps its log from being emptied ({} MiB); close it.",
                                   path_.string(), bytes >> 20)
                     : "";
}

void WriterThread::heartbeat() {
  if (Clock::now() < next_heartbeat_) return;
  next_heartbeat_ = Clock::now() + heartbeat_interval;
  const ProcessIdentity& self = this_process();
  const std::string mine = "state IN ('queued', 'running') AND pid = ? AND pid_start = ? AND boot_id = ?";
  const auto bind = [&](SQLite::Statement& statement) {
    statement.bind(1, self.pid), statement.bind(2, self.start), statement.bind(3, self.boot_id);
  };
  const Status status = guarded(path_, [&]() -> Status {
    if (must_reopen_) return ok();
    SQLite::Statement any(*db_, "SELECT 1 FROM runs WHERE " + mine);
    bind(any);
    if (!any.executeStep()) return ok();
    any.reset();
    return execute([&](SQLite::Database& db) -> Status {
      SQLite::Statement update(db, fmt::format("UPDATE runs SET heartbeat_at = {} WHERE {}", unix_now(), mine));
      bind(update);
      update.exec();
      return ok();
    });
  });
  if (!status) report(status);
}

// FULL takes the write lock first, so no other process can commit and restart the log in the middle: SQLite before
// 3.51.3 could then mark frames as copied that were not.
void WriterThread::checkpoint_if_due() {
  const auto now = Clock::now();
  if (log_pages_ < checkpoint_at_pages_ && now < checkpoint_again_at_) return;
  if (must_reopen_) {
    checkpoint_again_at_ = now + checkpoint_retry;
    return;
  }
  sqlite3* handle = db_->getHandle();
  wait_when_busy(handle, checkpoint_busy_ms);
  int in_log = 0, copied = 0;
  const int code = sqlite3_wal_checkpoint_v2(handle, nullptr, SQLITE_CHECKPOINT_FULL, &in_log, &copied);
  const bool all = code == SQLITE_OK && copied == in_log;
  bool shortened = true;
  if (all && log_pages_ > large_log_pages)
    shortened = sqlite3_wal_checkpoint_v2(handle, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) == SQLITE_OK;
  wait_when_busy(handle, busy_timeout_ms);
  const bool done = all && shortened;
  checkpoint_at_pages_ = done ? checkpoint_pages : log_pages_ + checkpoint_pages;
  checkpoint_again_at_ = done ? Clock::time_point::max() : now + checkpoint_retry;
  if (done) log_pages_ = 0;
}

}  // namespace rat::store
