// The thread behind StoreWriter: the only writer and the only checkpointer of this process. Points queue up in memory
// and are committed in batches (after 250 ms or 200 points); commands are committed one by one, in order, after the
// points logged before them. While the disk refuses, points wait in memory and are tried again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "experiments/store/database.h"
#include "experiments/store/metric_writer.h"
#include "experiments/store/store.h"

namespace rat::store {

class WriterThread {
 public:
  WriterThread(std::filesystem::path path, std::unique_ptr<SQLite::Database> db);
  ~WriterThread();  // commits what is queued

  using Work = std::function<Status(SQLite::Database&)>;
  // Runs `work` in a transaction on the writer thread and waits for its commit. `keep_trying`: when the disk refuses,
  // the error is returned but the work stays queued and is done when the disk allows it.
  Status run(Work work, bool keep_trying = false);
  Status flush();

  void log(const std::string& run, const std::string& metric, int64_t step, double value, double wall_s);
  void set_progress(const std::string& run, int64_t steps_done);
  StoreWriter::Health health() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Command {
    Work work;  // empty: a flush
    bool keep_trying = false;
    std::promise<Status> done;
  };
  struct Pending {  // owned by the writer thread
    std::vector<LoggedPoint> points;
    std::map<int32_t, Progress> progress;
    std::vector<std::string> run_names, metric_names;
    std::deque<Work> deferred;
  };

  void loop();
  bool has_work() const;                // under the lock
  Clock::time_point next_wake() const;  // under the lock
  void take_queued();                   // under the lock
  Status commit_pending();
  Status commit_points(std::size_t count);
  Status execute(const Work& work);
  void run_command(Command& command);
  void heartbeat();
  void checkpoint_if_due();
  void watch_log();
  void report(const Status& status);
  Status reopen_if_needed();

  const std::filesystem::path path_;
  std::unique_ptr<SQLite::Database> db_;
  Pending pending_;
  bool must_reopen_ = false;
  int log_pages_ = 0, checkpoint_at_pages_ = 0;
  int64_t dropped_ = 0;
  Clock::time_point retry_at_{}, next_heartbeat_{};
  Clock::time_point checkpoint_again_at_ = Clock::time_point::max();  // while a reader keeps the log from emptying

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<LoggedPoint> incoming_;
  std::map<int32_t, Progress> incoming_progress_;
  NameTable runs_, metrics_;
  Clock::time_point first_queued_{};
  std::deque<Command> commands_;
  StoreWriter::Health health_;
  std::string log_problem_;
  bool stopping_ = false;
  std::thread thread_;  // last: starts when everything else is ready
};

}  // namespace rat::store
