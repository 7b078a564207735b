// What is not a run database, or a broken one: refused in one sentence, and not a byte changed.
#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "experiments/store/database.h"
#include "experiments/store/process.h"
#include "experiments/store/store.h"
#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

// Foreign and broken files: one sentence, and not a byte changed.
class ForeignFile : public ::testing::Test {
 protected:
  void refuse(const fs::path& path, const std::string& part, bool writer_too = true) {
    const bool regular = fs::is_regular_file(path);
    const std::string before = regular ? sha256_hex(file_bytes(path)) : "";
    const auto start = std::chrono::steady_clock::now();
    const auto read = StoreReader::open(path);
    ASSERT_FALSE(read) << path;
    EXPECT_NE(read.error().message.find(part), std::string::npos) << read.error().message;
    if (writer_too) {
      const auto write = StoreWriter::open(path);
      ASSERT_FALSE(write) << path;
      EXPECT_NE(write.error().message.find(part), std::string::npos) << write.error().message;
    }
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(2));
    if (regular) {
      EXPECT_EQ(sha256_hex(file_bytes(path)), before);
    }
    EXPECT_FALSE(fs::exists(path.string() + "-wal"));
    EXPECT_FALSE(fs::exists(path.string() + "-journal"));
  }
  fs::path sqlite_file(const std::string& name, const std::string& sql) {
    SQLite::Database db((folder_ / name).string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    db.exec(sql);
    return folder_ / name;
  }
  TemporaryFolder folder_;
};

TEST_F(ForeignFile, AreRefusedUntouched) {
  refuse(sqlite_file("plain.db", "create table t (x); insert into t values (1)"), "another program");
  refuse(sqlite_file("app.db", "pragma application_id = 1234; create table t (x)"), "another program");
  refuse(sqlite_file("empty-app.db", "pragma application_id = 1234"), "another program");
  refuse(
      sqlite_file("newer.db",
                  fmt::format("pragma application_id = {}; pragma user_version = 999; create table t (x)", 0x52415457)),
      "newer RAT Workbench");
  write_bytes(folder_ / "text",
              "Four score and seven years ago, and a good deal more text than a header would need to be read in full.");
  refuse(folder_ / "text", "not a run database");
  write_bytes(folder_ / "short", "SQLite format 3");
  refuse(folder_ / "short", "not a run database");
  write_bytes(folder_ / "empty", "");
  refuse(folder_ / "empty", "an empty file", false);
  fs::create_directory(folder_ / "folder");
  refuse(folder_ / "folder", "is a folder");
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  refuse(folder_ / "pipe", "a device or a pipe");
  fs::create_symlink("/dev/zero", folder_ / "zero");
  refuse(folder_ / "zero", "a device or a pipe");
  fs::create_symlink("nowhere", folder_ / "dangling");
  refuse(folder_ / "dangling", "link to a file that does not exist");
  EXPECT_FALSE(StoreReader::open(folder_ / "absent"));
}

TEST_F(ForeignFile, OpenWalDatabaseOfAnotherProgramIsRefused) {
  SQLite::Database db((folder_ / "wal.db").string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
  db.exec("pragma journal_mode = wal; create table t (x); insert into t values (1)");
  const std::string before = sha256_hex(file_bytes(folder_ / "wal.db")),
                    log = sha256_hex(file_bytes(folder_ / "wal.db-wal"));
  EXPECT_FALSE(StoreReader::open(folder_ / "wal.db"));
  EXPECT_FALSE(StoreWriter::open(folder_ / "wal.db"));
  EXPECT_EQ(sha256_hex(file_bytes(folder_ / "wal.db")), before);
  EXPECT_EQ(sha256_hex(file_bytes(folder_ / "wal.db-wal")), log);
}

TEST_F(ForeignFile, HostileSchemasAreRefused) {
  const auto ours = [&](const std::string& name) {
    auto writer = StoreWriter::open(folder_ / name);
    EXPECT_TRUE(writer);
    return folder_ / name;
  };
  const auto tamper = [&](const std::string& name, const std::string& sql) {
    SQLite::Database(ours(name).string(), SQLite::OPEN_READWRITE).exec(sql);
    const auto opened = StoreReader::open(folder_ / name);
    EXPECT_FALSE(opened) << name;
    EXPECT_FALSE(StoreWriter::open(folder_ / name)) << name;
  };
  tamper("trigger.db", "create trigger t after insert on runs begin delete from runs; end");
  tamper("view.db", "alter table tags rename to tags2; create view tags as select * from tags2");
  tamper("missing.db", "drop table checkpoints");
}

// A few random bytes of a real database are flipped: an error or an answer, never a crash.
TEST_F(ForeignFile, RandomDamageNeverCrashes) {
  const fs::path good = folder_ / "good.db";
  {
    auto writer = StoreWriter::open(good);
    ASSERT_OK(writer);
    for (int i = 0; i < 5; ++i) {
      const auto id = (*writer)->create_run(new_run(fmt::format("run {}", i)));
      ASSERT_OK(id);
      for (int64_t step = 0; step < 100; ++step) (*writer)->log(*id, "loss", step, 1.0, 0);
      ASSERT_OK((*writer)->end_run(*id, RunState::finished));
    }
  }
  const std::string bytes = file_bytes(good);
  std::mt19937_64 random(1);
  int refused = 0;
  for (int round = 0; round < 150; ++round) {
    std::string damaged = bytes;
    for (int flips = 0; flips < 20; ++flips) damaged[random() % damaged.size()] ^= static_cast<char>(1 << random() % 8);
    const fs::path path = folder_ / fmt::format("damaged-{}.db", round);
    write_bytes(path, damaged);
    const auto reader = StoreReader::open(path);
    if (!reader) {
      ++refused;
      continue;
    }
    (void)reader->runs();
    (void)reader->series("run 1", "loss");
    if (!reader->check()) ++refused;
    const auto writer = StoreWriter::open(path);
    if (writer) (void)(*writer)->create_run(new_run("after damage"));
    fs::remove(path);
  }
  EXPECT_GT(refused, 0);
}

TEST(StoreLimits, NetworkFileSystemsAreKnownByTheirMagic) {
  EXPECT_EQ(store::network_file_system(0x6969), "NFS");
  EXPECT_EQ(store::network_file_system(0xff534d42), "CIFS");
  EXPECT_EQ(store::network_file_system(0xef53), "");      // ext4
  EXPECT_EQ(store::network_file_system(0x01021994), "");  // tmpfs
}

// One SQLite library, and below 3.51.3 one writer must be the one checkpointer (writer_thread.cpp).
TEST(StoreLimits, OneSqliteLibraryInTheProcess) { EXPECT_EQ(sqlite3_libversion_number(), SQLITE_VERSION_NUMBER); }

}  // namespace
}  // namespace rat
