#include "experiments/store/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "experiments/store/migrations.h"

namespace rat::store {
namespace {

namespace fs = std::filesystem;

// The first bytes of an SQLite file, which say whose it is without opening it with SQLite.
struct Header {
  std::array<unsigned char, 108> bytes{};
  std::size_t size = 0;

  bool is_sqlite() const { return size >= 100 && std::memcmp(bytes.data(), "SQLite format 3", 16) == 0; }
  int32_t number(std::size_t at) const {
    return static_cast<int32_t>(uint32_t{bytes[at]} << 24 | uint32_t{bytes[at + 1]} << 16 |
                                uint32_t{bytes[at + 2]} << 8 | uint32_t{bytes[at + 3]});
  }
  int32_t user_version() const { return number(60); }
  int32_t application() const { return number(68); }
  // Page 1 is the schema table: a leaf (13) without cells means that nothing was ever created in this file.
  bool has_no_tables() const { return size >= 105 && bytes[100] == 13 && bytes[103] == 0 && bytes[104] == 0; }
};

Error foreign(const fs::path& path, std::string_view what) {
  return fail(ErrorCode::corrupt_data,
              "{} is {}, not a run database of RAT Workbench; it was left as it is, choose another file.",
              path.string(), what);
}

Error newer(const fs::path& path, int version) {
  return fail(
      ErrorCode::unsupported,
      "{} was written by a newer RAT Workbench (database version {}, this program knows {}); update this program.",
      path.string(), version, current_version());
}

Result<Header> read_header(const fs::path& path) {
  // O_NONBLOCK: a pipe put there after the check must not make this wait.
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fail(ErrorCode::io_failure, "Cannot open {}: {}.", path.string(), std::strerror(errno));
  Header header;
  const ssize_t got = pread(file, header.bytes.data(), header.bytes.size(), 0);
  const int error = errno;
  close(file);
  if (got < 0) return fail(ErrorCode::io_failure, "Cannot read {}: {}.", path.string(), std::strerror(error));
  header.size = static_cast<std::size_t>(got);
  return header;
}

bool has_log(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path.string() + "-wal", error);
  return !error && size > 0;
}

// Refuses what is not ours, before SQLite could touch it.
Status check_existing(const fs::path& path, Access access) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0)
    return fail(ErrorCode::io_failure, "Cannot open {}: {}.", path.string(), std::strerror(errno));
  if (S_ISDIR(info.st_mode))
    return fail(ErrorCode::invalid_argument, "{} is a folder; give the database file in it.", path.string());
  if (!S_ISREG(info.st_mode)) return foreign(path, "a device or a pipe");
  RAT_ASSIGN(const Header header, read_header(path));
  if (header.size == 0) {
    if (access == Access::write) return ok();  // a first start that was killed before its first write
    return foreign(path, "an empty file");
  }
  if (!header.is_sqlite()) return foreign(path, "something else");
  if (header.application() == application_id)
    return header.user_version() > current_version() ? newer(path, header.user_version()) : ok();
  if (header.application() != 0) return foreign(path, "an SQLite database of another program");
  if (has_log(path)) return ok();  // the header may still be in the log: decided after opening read-only
  if (header.has_no_tables() && header.user_version() == 0 && access == Access::write) return ok();
  return foreign(path, "an SQLite database of another program");
}

Status check_folder(const fs::path& folder) {
  struct statfs info {};
  if (statfs(folder.c_str(), &info) != 0)
    return fail(ErrorCode::io_failure, "Cannot look at the folder {}: {}.", folder.string(), std::strerror(errno));
  const std::string network = network_file_system(static_cast<uint64_t>(static_cast<uint32_t>(info.f_type)));
  if (network.empty()) return ok();
  return fail(ErrorCode::unsupported,
              "{} is on {}, a network file system, where SQLite's write-ahead log loses data; put the database on a "
              "local disk.",
              folder.string(), network);
}

// Percent-encoded, because only a URI can say `immutable`: a database on read-only media has no place for a lock file.
std::string immutable_uri(const fs::path& path) {
  std::string uri = "file:";
  for (const char c : fs::absolute(path).string()) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || std::strchr("/-_.~", c) != nullptr;
    uri += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return uri + "?immutable=1";
}

// SQLite's busy handler: `tries` is 0 at the start of a wait; 0 gives up.
int pause_for_lock(void* limit_ms, int tries) {
  using Clock = std::chrono::steady_clock;
  thread_local Clock::time_point start;
  if (tries == 0) start = Clock::now();
  if (Clock::now() - start >= std::chrono::milliseconds(reinterpret_cast<intptr_t>(limit_ms))) return 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return 1;
}

void configure(SQLite::Database& db, Access access) {
  sqlite3* handle = db.getHandle();
  wait_when_busy(handle, busy_timeout_ms);
  for (const auto& [option, value] :
       {std::pair{SQLITE_DBCONFIG_DEFENSIVE, 1}, std::pair{SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0},
        std::pair{SQLITE_DBCONFIG_ENABLE_TRIGGER, 0}})
    sqlite3_db_config(handle, option, value, nullptr);
  sqlite3_limit(handle, SQLITE_LIMIT_LENGTH, 64 << 20);
  sqlite3_extended_result_codes(handle, 1);
  db.exec(
      "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = 0; PRAGMA foreign_keys = ON;"
      "PRAGMA temp_store = MEMORY; PRAGMA synchronous = FULL");
  if (access == Access::read) db.exec("PRAGMA query_only = ON");
}

// Switching to WAL needs the file for itself and does not wait for it, so two first starts must take turns here.
void switch_to_wal(SQLite::Database& db) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(busy_timeout_ms);
  for (;;) {
    try {
      if (db.execAndGet("PRAGMA journal_mode").getString() == "wal") return;
      if (db.execAndGet("PRAGMA journal_mode = WAL").getString() == "wal") return;
    } catch (const SQLite::Exception& error) {
      const int code = error.getErrorCode() & 0xff;
      if ((code != SQLITE_BUSY && code != SQLITE_LOCKED) || std::chrono::steady_clock::now() > deadline) throw;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

// A crafted file may call our tables views or hang triggers on them; ours has neither.
Status check_schema(SQLite::Database& db, const fs::path& path) {
  if (db.execAndGet("SELECT count(*) FROM sqlite_master WHERE type = 'trigger' OR sql LIKE 'create virtual%'")
          .getInt() != 0)
    return fail(ErrorCode::corrupt_data,
                "{} holds triggers or virtual tables, which a run database never has; it is not opened.",
                path.string());
  std::vector<std::string> tables{"runs", "tags", "metric_names", "metrics", "metric_summary", "checkpoints"};
  if (db.execAndGet("PRAGMA user_version").getInt() >= 2)
    tables.insert(tables.end(), {"evaluations", "evaluation_points"});
  for (const std::string& name : tables) {
    SQLite::Statement query(db, "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?");
    query.bind(1, name);
    query.executeStep();
    if (query.getColumn(0).getInt() != 1)
      return fail(ErrorCode::corrupt_data, "{} has no table '{}'; the database is damaged, restore a backup.",
                  path.string(), name);
  }
  return ok();
}

// What older versions lack is empty for a reader: migrations since this one only add tables.
constexpr int oldest_readable = 1;

// Reads identity through SQLite, so that what is still in the log counts; in one transaction, or another program's
// first start could come between the application's number and the tables and look like a foreign file.
Status check_identity(SQLite::Database& db, const fs::path& path, Access access) {
  SQLite::Transaction snapshot(db);
  const int application = db.execAndGet("PRAGMA application_id").getInt();
  const int version = db.execAndGet("PRAGMA user_version").getInt();
  const int objects = db.execAndGet("SELECT count(*) FROM sqlite_master").getInt();
  if (application == 0 && version == 0 && objects == 0 && access == Access::write) return ok();
  if (application != application_id) return foreign(path, "an SQLite database of another program");
  if (version > current_version()) return newer(path, version);
  if (version < oldest_readable && access == Access::read)
    return fail(ErrorCode::unsupported,
                "{} has the older database version {}; open it once for writing to bring it to version {}.",
                path.string(), version, current_version());
  return ok();
}

// A connection belongs to one thread, so SQLite need not lock at every call: that is a sixth of reading a long table.
constexpr int one_thread = SQLITE_OPEN_NOMUTEX;

Result<std::unique_ptr<SQLite::Database>> open_reader(const fs::path& path) {
  const bool read_only_folder = access(path.parent_path().empty() ? "." : path.parent_path().c_str(), W_OK) != 0;
  auto db = read_only_folder && !has_log(path)
                ? std::make_unique<SQLite::Database>(immutable_uri(path),
                                                     SQLite::OPEN_READONLY | SQLite::OPEN_URI | one_thread)
                : std::make_unique<SQLite::Database>(path.string(), SQLite::OPEN_READONLY | one_thread);
  configure(*db, Access::read);
  RAT_TRY(check_identity(*db, path, Access::read));
  RAT_TRY(check_schema(*db, path));
  return db;
}

Result<std::unique_ptr<SQLite::Database>> open_writer(const fs::path& path) {
  if (has_log(path)) {
    SQLite::Database look(path.string(), SQLite::OPEN_READONLY);
    wait_when_busy(look.getHandle(), busy_timeout_ms);
    RAT_TRY(check_identity(look, path, Access::write));
  }
  auto db = std::make_unique<SQLite::Database>(path.string(),
                                               SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE | one_thread);
  configure(*db, Access::write);
  RAT_TRY(check_identity(*db, path, Access::write));
  switch_to_wal(*db);
  migrate(*db);
  RAT_TRY(check_schema(*db, path));
  return db;
}

}  // namespace

void wait_when_busy(sqlite3* connection, int milliseconds) {
  sqlite3_busy_handler(connection, pause_for_lock, reinterpret_cast<void*>(static_cast<intptr_t>(milliseconds)));
}

std::string network_file_system(uint64_t magic) {
  // FUSE and 9p are not here: both also carry local disks (ntfs-3g, container roots), where the log works.
  switch (magic) {
    case 0x6969:
      return "NFS";
    case 0x517b:
      return "SMB";
    case 0xff534d42:
      return "CIFS";
    case 0xfe534d42:
      return "SMB2";
    case 0x564c:
      return "NCP";
    case 0x5346414f:
      return "AFS";
    case 0x73757245:
      return "Coda";
    case 0x00c36400:
      return "Ceph";
    case 0x0bd00bd0:
      return "Lustre";
    case 0x47504653:
      return "GPFS";
    case 0x19830326:
      return "BeeGFS";
    default:
      return "";
  }
}

Error sqlite_error(const SQLite::Exception& error, const fs::path& path) {
  switch (error.getErrorCode() & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return fail(ErrorCode::io_failure, "{} is being written by another program; close it or try again.",
                  path.string());
    case SQLITE_FULL:
      return fail(ErrorCode::io_failure, "The disk that holds {} is full; free some space, writing is tried again.",
                  path.string());
    case SQLITE_READONLY:
      return fail(ErrorCode::io_failure, "{} is read-only; change its permissions or choose another file.",
                  path.string());
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return fail(ErrorCode::corrupt_data, "{} is damaged ({}); restore a backup.", path.string(), error.what());
    case SQLITE_CANTOPEN:
      return fail(ErrorCode::io_failure, "Cannot open {} or its log file; check the permissions of its folder.",
                  path.string());
    default:
      return fail(ErrorCode::io_failure, "{}: {}.", path.string(), error.what());
  }
}

Result<std::unique_ptr<SQLite::Database>> open_database(const fs::path& path, Access access) {
  using Opened = Result<std::unique_ptr<SQLite::Database>>;
  std::error_code error;
  const bool exists = fs::exists(path, error);
  if (!exists && fs::is_symlink(fs::symlink_status(path, error)))
    return fail(ErrorCode::not_found, "{} is a link to a file that does not exist.", path.string());
  if (!exists && access == Access::read)
    return fail(ErrorCode::not_found, "{} does not exist; start a run to create it, or give another file with --db.",
                path.string());
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!exists) {
    fs::create_directories(folder, error);
    if (error) return fail(ErrorCode::io_failure, "Cannot create the folder {}: {}.", folder.string(), error.message());
  }
  RAT_TRY(check_folder(folder));
  if (exists) RAT_TRY(check_existing(path, access));
  if (exists && access == Access::write && ::access(path.c_str(), W_OK) != 0)
    return fail(ErrorCode::io_failure, "{} cannot be written: {}; change its permissions or choose another file.",
                path.string(), std::strerror(errno));
  return guarded(path, [&]() -> Opened { return access == Access::read ? open_reader(path) : open_writer(path); });
}

}  // namespace rat::store
