// One SQLite connection with our safety settings, and what may be opened at all. Used inside store/ only.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <filesystem>
#include <memory>
#include <string>

#include "kernels/base/status.h"

namespace rat::store {

inline constexpr int32_t application_id = 0x52415457;  // "RATW"
inline constexpr int busy_timeout_ms = 10'000;

enum class Access { read, write };

// Opens `path` after checking, without SQLite, that it is a run database; `write` also creates and migrates it.
// The connection never checkpoints by itself (wal_autocheckpoint = 0).
Result<std::unique_ptr<SQLite::Database>> open_database(const std::filesystem::path& path, Access access);

// How long this connection waits for another's lock. SQLite's own waiting doubles its pauses up to 100 ms and so hardly
// ever meets the moment between two transactions of a busy writer: with several of them one would starve.
void wait_when_busy(sqlite3* connection, int milliseconds);

// Name of the network file system that statfs's `magic` stands for; "" for anything else.
std::string network_file_system(uint64_t magic);

// Turns an SQLite error into one sentence about `path`.
Error sqlite_error(const SQLite::Exception& error, const std::filesystem::path& path);

// Runs `work` (returning Status or Result); exceptions of the library become Errors here and go no further.
template <class Work>
auto guarded(const std::filesystem::path& path, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const SQLite::Exception& error) {
    return sqlite_error(error, path);
  } catch (const std::exception& error) {
    return fail(ErrorCode::io_failure, "{}: {}.", path.string(), error.what());
  }
}

// BEGIN IMMEDIATE ... COMMIT; rolled back when it goes out of scope first.
class WriteTransaction {
 public:
  explicit WriteTransaction(SQLite::Database& db) : transaction_(db, SQLite::TransactionBehavior::IMMEDIATE) {}
  void commit() { transaction_.commit(); }

 private:
  SQLite::Transaction transaction_;
};

}  // namespace rat::store
