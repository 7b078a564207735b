// The store when the disk fails, or the process dies, at each single write of a small scenario, one after another.
#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstring>

#include "experiments/store/migrations.h"
#include "tests/experiments/fault_vfs.h"
#include "tests/experiments/store_fixture.h"
#include "tests/experiments/store_scenario.h"

extern char** environ;

namespace rat {
namespace {

namespace fs = std::filesystem;

constexpr int64_t most_writes = 2000;  // of any scenario here: a loop that passes it would not end

// What was promised is there, whole, and nothing is torn.
void check_promises(const fs::path& db, const Promised& promised) {
  const auto reader = StoreReader::open(db);
  ASSERT_OK(reader);
  ASSERT_OK(reader->check());
  if (promised.run_id[0] == 0) return;
  const auto run = reader->run(promised.run_id);
  ASSERT_OK(run);
  const auto points = reader->series(promised.run_id, "loss");
  ASSERT_OK(points);
  ASSERT_GE(static_cast<int64_t>(points->size()), promised.points);
  for (std::size_t i = 0; i < points->size(); ++i) {
    ASSERT_EQ((*points)[i].step, static_cast<int64_t>(i));
    ASSERT_EQ((*points)[i].value, 0.5 * static_cast<double>(i));
  }
  if (!points->empty()) {
    ASSERT_EQ(run->metrics.at("loss").count, static_cast<int64_t>(points->size()));
  }
  if (promised.tagged) {
    ASSERT_EQ(run->tags, std::vector<std::string>{scenario_tag});
  }
  if (promised.ended) {
    ASSERT_EQ(run->state, RunState::finished);
  }
}

void check_sentence(const std::string& problem) {
  EXPECT_NE(problem.find("runs.db"), std::string::npos) << problem;
  EXPECT_EQ(problem.find('\n'), std::string::npos) << problem;
  EXPECT_EQ(problem.back(), '.') << problem;
}

class EveryWrite : public ::testing::TestWithParam<Fault> {};

TEST_P(EveryWrite, FailsOnceAndNothingPromisedIsLost) {
  install_fault_vfs();
  int64_t faults = 0, reported = 0;
  for (int64_t at = 1; at < most_writes; ++at) {
    const TemporaryFolder folder(memory_disk());
    Promised promised{};
    std::vector<std::string> problems;
    arm_fault(GetParam(), at);
    const Status done = run_scenario(
        folder / "runs.db", [&](const Promised& now) { promised = now; }, problems);
    const bool happened = fault_happened();
    disarm_fault();
    ASSERT_TRUE(done) << "write " << at << ", the second try too: " << done.error().message;
    ASSERT_TRUE(promised.ended);
    for (const std::string& problem : problems) check_sentence(problem);
    check_promises(folder / "runs.db", promised);
    if (::testing::Test::HasFailure()) FAIL() << "write " << at;
    if (!happened) break;  // the scenario has fewer writes than that
    ++faults;
    reported += problems.empty() ? 0 : 1;
  }
  EXPECT_GT(faults, 20) << "the scenario writes too little for this test to mean anything";
  EXPECT_GT(reported, faults / 4) << "failures that nobody heard of";
}

INSTANTIATE_TEST_SUITE_P(Store, EveryWrite, ::testing::Values(Fault::io_error, Fault::disk_full),
                         [](const auto& info) { return info.param == Fault::io_error ? "IoError" : "DiskFull"; });

// Runs `store_crash_writer DB ACK MODE AT`; true when it was killed, false when it came to its end.
bool dies_at(const std::string& mode, const fs::path& db, const fs::path& acknowledged, int64_t at) {
  std::vector<std::string> arguments{std::string(RAT_BINARY_DIR) + "/bin/store_crash_writer", db.string(),
                                     acknowledged.string(), mode, std::to_string(at)};
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  pid_t pid = 0;
  EXPECT_EQ(posix_spawn(&pid, raw[0], nullptr, nullptr, raw.data(), environ), 0);
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  if (WIFSIGNALED(status)) {
    EXPECT_EQ(WTERMSIG(status), SIGKILL);
    return true;
  }
  EXPECT_EQ(WEXITSTATUS(status), 0);
  return false;
}

TEST(StoreKill, AtEveryWriteOfAScenario) {
  int64_t kills = 0;
  for (int64_t at = 1; at < most_writes; ++at) {
    const TemporaryFolder folder(memory_disk());
    const bool killed = dies_at("kill-at", folder / "runs.db", folder / "ack", at);
    Promised promised{};
    const std::string bytes = file_bytes(folder / "ack");
    if (bytes.size() == sizeof promised) std::memcpy(&promised, bytes.data(), sizeof promised);
    {
      const auto writer = StoreWriter::open(folder / "runs.db");
      ASSERT_TRUE(writer) << "killed at write " << at << ": " << writer.error().message;
    }
    check_promises(folder / "runs.db", promised);
    if (::testing::Test::HasFailure()) FAIL() << "killed at write " << at;
    if (!killed) break;
    ++kills;
  }
  EXPECT_GT(kills, 20);
}

TEST(StoreKill, AtEveryWriteOfAMigrationLeavesTheOldOrTheNewVersion) {
  const int oldest = store::current_version(), newest = static_cast<int>(scenario_migrations().size());
  ASSERT_GT(newest, oldest);
  int64_t kills = 0, left_old = 0;
  for (int64_t at = 1; at < most_writes; ++at) {
    const TemporaryFolder folder(memory_disk());
    const fs::path path = folder / "runs.db";
    {
      auto writer = StoreWriter::open(path);
      ASSERT_OK(writer);
      for (const char* name : {"one", "two"}) {
        const auto id = (*writer)->create_run(new_run(name));
        ASSERT_OK(id);
        for (int64_t step = 0; step < 50; ++step) (*writer)->log(*id, "loss", step, 1.0, 0);
        ASSERT_OK((*writer)->end_run(*id, RunState::finished));
      }
    }
    const bool killed = dies_at("migrate", path, folder / "ack", at);
    SQLite::Database db(path.string(), SQLite::OPEN_READWRITE, 5000);
    const int version = db.execAndGet("PRAGMA user_version").getInt();
    EXPECT_EQ(db.execAndGet("PRAGMA integrity_check").getString(), "ok");
    EXPECT_TRUE(version == oldest || version == newest) << "killed at write " << at << ": version " << version;
    const bool has_notes = db.execAndGet("SELECT count(*) FROM sqlite_master WHERE name LIKE 'notes%'").getInt() > 0;
    EXPECT_EQ(has_notes, version == newest);
    EXPECT_EQ(db.execAndGet("SELECT count(*) FROM metrics").getInt(), 100);
    if (version == newest) {
      EXPECT_EQ(db.execAndGet("SELECT count(*) FROM notes JOIN runs USING (run) WHERE note = 'moved'").getInt(), 2);
    } else {
      ++left_old;
      store::migrate(db, scenario_migrations());  // and the next start finishes it
      EXPECT_EQ(db.execAndGet("PRAGMA user_version").getInt(), newest);
    }
    if (::testing::Test::HasFailure()) FAIL() << "killed at write " << at;
    if (!killed) break;
    ++kills;
  }
  EXPECT_GT(kills, 5);
  EXPECT_GT(left_old, 0);
}

}  // namespace
}  // namespace rat
