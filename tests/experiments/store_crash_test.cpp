// The store when processes are killed, race each other, or the disk is full.
#include "tests/experiments/store_crash.h"

#include <SQLiteCpp/SQLiteCpp.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <bit>
#include <chrono>
#include <cstring>
#include <random>
#include <set>
#include <thread>

#include "experiments/store/rows.h"
#include "tests/experiments/store_fixture.h"

extern char** environ;

namespace rat {
namespace {

namespace fs = std::filesystem;

pid_t spawn_writer(const fs::path& db, const fs::path& acknowledged, const std::string& count = "") {
  const std::string program = std::string(RAT_BINARY_DIR) + "/bin/store_crash_writer";
  std::vector<std::string> arguments{program, db.string(), acknowledged.string()};
  if (!count.empty()) arguments.push_back(count);
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  pid_t pid = 0;
  return posix_spawn(&pid, program.c_str(), nullptr, nullptr, raw.data(), environ) == 0 ? pid : -1;
}

Acknowledged read_note(const fs::path& path) {
  Acknowledged note{};
  const std::string bytes = file_bytes(path);
  if (bytes.size() == sizeof note) std::memcpy(&note, bytes.data(), sizeof note);
  return note;
}

// Every point of the run is right, none is missing before the newest, none that was acknowledged is missing.
void check_points(const StoreReader& reader, const Acknowledged& note) {
  int64_t longest = 0, shortest = std::numeric_limits<int64_t>::max();
  const RunRow run = *reader.run(note.run_id);
  for (int metric = 0; metric < crash_metrics; ++metric) {
    const auto points = reader.series(note.run_id, crash_metric_name(metric));
    ASSERT_OK(points);
    const auto count = static_cast<int64_t>(points->size());
    ASSERT_GE(count, note.steps) << "acknowledged points are lost";
    for (int64_t i = 0; i < count; ++i) {
      const MetricPoint& point = (*points)[static_cast<std::size_t>(i)];
      ASSERT_EQ(point.step, i) << "a hole";
      const double expected = crash_value(i, metric);
      ASSERT_TRUE(std::isnan(expected) ? std::isnan(point.value)
                                       : std::bit_cast<uint64_t>(point.value) == std::bit_cast<uint64_t>(expected));
    }
    longest = std::max(longest, count), shortest = std::min(shortest, count);
    if (count > 0) {
      ASSERT_EQ(run.metrics.at(crash_metric_name(metric)).count, count) << "the summary does not fit the points";
    }
  }
  EXPECT_LE(longest - shortest, 1) << "points are not in the order in which they were logged";
  EXPECT_GE(run.steps_done, note.steps);
}

TEST(StoreCrash, TwoHundredKillsLoseNothingAcknowledged) {
  std::mt19937 random(7);
  std::unique_ptr<TemporaryFolder> folder;
  int with_points = 0;
  int64_t acknowledged_steps = 0;
  for (int round = 0; round < 200; ++round) {
    // A new folder now and then, so that creating the file is killed as well.
    if (round % 8 == 0) folder = std::make_unique<TemporaryFolder>();
    const fs::path db = *folder / "runs.db", ack = *folder / fmt::format("ack-{}", round);
    const pid_t child = spawn_writer(db, ack);
    ASSERT_GT(child, 0);
    if (round % 8 >= 2) {  // the first two rounds on a new file may be killed while creating it
      const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (read_note(ack).run_id[0] == 0 && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    std::this_thread::sleep_for(
        std::chrono::microseconds(round % 8 < 2 ? random() % 30'000 : 20'000 + random() % 130'000));
    ASSERT_EQ(kill(child, SIGKILL), 0) << "the writer ended by itself";
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status));

    const Acknowledged note = read_note(ack);
    if (note.run_id[0] != 0) {
      // A reader alone, before anyone repairs anything.
      const auto reader = StoreReader::open(db);
      ASSERT_OK(reader);
      ASSERT_EQ(reader->run(note.run_id)->state, RunState::crashed);
      check_points(*reader, note);
      ++with_points;
      acknowledged_steps += note.steps;
    }
    auto writer = StoreWriter::open(db);
    ASSERT_OK(writer);
    const auto reader = StoreReader::open(db);
    ASSERT_OK(reader);
    ASSERT_OK(reader->check());
    const std::vector<RunRow> runs = *reader->runs();
    for (const RunRow& run : runs) ASSERT_EQ(run.state, RunState::crashed);
    if (::testing::Test::HasFatalFailure()) return;
  }
  EXPECT_GE(with_points, 150);
  EXPECT_GT(acknowledged_steps, 1000) << "the writers did too little for this test to mean anything";
}

// How the processes fall into each other's first start differs every time, hence several rounds.
TEST(StoreCrash, ManyFirstStartsAtOnceMakeOneDatabase) {
  for (int round = 0; round < 12; ++round) {
    const TemporaryFolder folder;
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i)
      children.push_back(spawn_writer(folder / "new/runs.db", folder / fmt::format("ack-{}", i), "3"));
    for (const pid_t child : children) {
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_TRUE(WIFEXITED(status));
      EXPECT_EQ(WEXITSTATUS(status), 0);
    }
    const auto reader = StoreReader::open(folder / "new/runs.db");
    ASSERT_OK(reader);
    std::set<std::string> ids;
    const std::vector<RunRow> runs = *reader->runs();
    for (const RunRow& run : runs) {
      ids.insert(run.id);
      EXPECT_EQ(run.state, RunState::finished);
    }
    EXPECT_EQ(ids.size(), 24u);
    EXPECT_OK(reader->check());
    if (::testing::Test::HasFailure()) return;
  }
}

// A disk that is full: a small tmpfs where mounting is allowed, else a limit on the size of files.
class FullDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    mounted_ = mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=2m") == 0;
    if (mounted_) return;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit small = before_;
    small.rlim_cur = 2 << 20;
    if (setrlimit(RLIMIT_FSIZE, &small) != 0) GTEST_SKIP() << "neither a tmpfs nor a file size limit can be set here";
    limited_ = true;
  }
  void TearDown() override {
    writer_.reset();
    if (mounted_) umount2(folder_.path().c_str(), MNT_DETACH);
    if (limited_) setrlimit(RLIMIT_FSIZE, &before_);
  }
  void free_space() {
    if (mounted_)
      ASSERT_EQ(mount("tmpfs", folder_.path().c_str(), "tmpfs", MS_REMOUNT, "size=256m"), 0);
    else
      ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before_), 0);
  }
  TemporaryFolder folder_;
  std::unique_ptr<StoreWriter> writer_;
  bool mounted_ = false, limited_ = false;
  rlimit before_{};
};

TEST_F(FullDisk, PointsWaitInMemoryAndNothingIsMissingAfterwards) {
  auto opened = StoreWriter::open(folder_ / "runs.db");
  ASSERT_OK(opened);
  writer_ = *std::move(opened);
  const std::string id = *writer_->create_run(new_run("patient"));
  int64_t step = 0;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  // No faster than the writer, so that what waits afterwards is what came after the disk was full.
  while (writer_->health().problem.empty() && std::chrono::steady_clock::now() < deadline) {
    for (int i = 0; i < 500; ++i, ++step) writer_->log(id, "loss", step, static_cast<double>(step), 0);
    while (writer_->health().queued > 2000 && writer_->health().problem.empty())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const std::string problem = writer_->health().problem;
  ASSERT_FALSE(problem.empty());
  EXPECT_NE(problem.find("runs.db"), std::string::npos) << problem;
  for (int i = 0; i < 50'000; ++i, ++step) writer_->log(id, "loss", step, static_cast<double>(step), 0);
  EXPECT_FALSE(writer_->flush()) << "nothing may be called committed that is not";
  EXPECT_GE(writer_->health().queued, 50'000);
  // The end of a run is kept as well, and written when the disk allows.
  (void)writer_->end_run(id, RunState::finished);

  free_space();
  const auto recovered = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (writer_->health().queued > 0 && std::chrono::steady_clock::now() < recovered)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ASSERT_OK(writer_->flush());
  EXPECT_TRUE(writer_->health().problem.empty()) << writer_->health().problem;
  const auto reader = StoreReader::open(folder_ / "runs.db");
  ASSERT_OK(reader);
  const auto points = reader->series(id, "loss");
  ASSERT_OK(points);
  ASSERT_EQ(static_cast<int64_t>(points->size()), step);
  for (int64_t i = 0; i < step; ++i) ASSERT_EQ((*points)[static_cast<std::size_t>(i)].step, i);
  EXPECT_EQ(reader->run(id)->state, RunState::finished);
  EXPECT_OK(reader->check());
}

}  // namespace
}  // namespace rat
