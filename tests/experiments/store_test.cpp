// The run database in one process: what is written is what is read, and what is refused is left alone.
#include "experiments/store/store.h"

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
#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

class Store : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = StoreWriter::open(path_);
    ASSERT_OK(opened);
    writer_ = *std::move(opened);
  }
  StoreReader reader() {
    auto reader = StoreReader::open(path_);
    EXPECT_TRUE(reader) << reader.error().message;
    return *std::move(reader);
  }
  RunRow run(const std::string& id) {
    const auto row = reader().run(id);
    EXPECT_TRUE(row) << row.error().message;
    return row ? *row : RunRow{};
  }
  std::string create(const std::string& name, RunState state = RunState::running) {
    const auto id = writer_->create_run(new_run(name, state));
    EXPECT_TRUE(id) << id.error().message;
    return id ? *id : "";
  }
  fs::path save_checkpoint_files(const std::string& id, int64_t step) {
    const fs::path folder = writer_->run_folder(id);
    fs::create_directories(folder);
    const fs::path weights = folder / fmt::format("step-{:08}.safetensors", step);
    write_bytes(folder / fmt::format("step-{:08}.optimizer.safetensors", step), "optimizer");
    write_bytes(weights, "weights");
    return weights;
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "runs.db";
  std::unique_ptr<StoreWriter> writer_;
};

TEST_F(Store, RunRowSaysWhoComputedIt) {
  NewRun fresh = new_run("first");
  fresh.seed = 12345678901234567890u;
  fresh.sweep_id = "sweep", fresh.device = "cpu", fresh.dtype = "f32", fresh.data_hash = "abc",
  fresh.data_description = "a text";
  const auto id = writer_->create_run(fresh);
  ASSERT_OK(id);
  const RunRow row = run(*id);
  EXPECT_EQ(row.name, "first");
  EXPECT_EQ(row.state, RunState::running);
  EXPECT_EQ(row.seed, fresh.seed);
  EXPECT_EQ(row.sweep_id, "sweep");
  EXPECT_EQ(row.layers, "rat:16*4");
  EXPECT_EQ(row.steps_total, 100);
  EXPECT_EQ(row.data_hash, "abc");
  EXPECT_EQ(row.host, this_process().host);
  EXPECT_FALSE(row.cpu.empty());
  EXPECT_FALSE(row.commit.empty());
  EXPECT_NE(row.build.find("SQLite"), std::string::npos);
  EXPECT_NEAR(row.created_at, unix_now(), 60);
  EXPECT_NEAR(row.started_at, unix_now(), 60);
  EXPECT_EQ(row.ended_at, 0);
}

TEST_F(Store, ValuesSurviveBitForBit) {
  const std::string id = create("values");
  const std::vector<double> values{0.0,
                                   -0.0,
                                   1.0,
                                   -1.5,
                                   std::numeric_limits<double>::infinity(),
                                   -std::numeric_limits<double>::infinity(),
                                   std::numeric_limits<double>::denorm_min(),
                                   -std::numeric_limits<double>::denorm_min(),
                                   std::numeric_limits<double>::max(),
                                   1.0 / 3,
                                   9007199254740993.0,
                                   1e-300};
  int64_t step = 0;
  for (const double value : values) {
    writer_->log(id, "x", step, value, 0.5 * static_cast<double>(step));
    ++step;
  }
  writer_->log(id, "x", step, std::nan(""), 1);
  writer_->log(id, "x", (int64_t{1} << 53) + 1, 7, 2);
  ASSERT_OK(writer_->flush());
  const auto points = reader().series(id, "x");
  ASSERT_OK(points);
  ASSERT_EQ(points->size(), values.size() + 2);
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(std::bit_cast<uint64_t>((*points)[i].value), std::bit_cast<uint64_t>(values[i])) << "value " << values[i];
  EXPECT_TRUE(std::isnan((*points)[values.size()].value));
  EXPECT_EQ(points->back().step, (int64_t{1} << 53) + 1);
  EXPECT_EQ((*points)[3].wall_s, 1.5);
  const auto later = reader().series(id, "x", step - 1);
  ASSERT_OK(later);
  EXPECT_EQ(later->size(), 2u);
}

TEST_F(Store, SummariesFollowThePoints) {
  const std::string id = create("summary");
  for (const double value : {3.0, 1.0, std::nan(""), 2.0}) {
    const int64_t step = static_cast<int64_t>(run(id).metrics["loss"].count);
    writer_->log(id, "loss", step, value, 0);
    writer_->log(id, "val_accuracy", step, value, 0);
    ASSERT_OK(writer_->flush());
  }
  RunRow row = run(id);
  EXPECT_EQ(row.metrics["loss"].count, 4);
  EXPECT_EQ(row.metrics["loss"].last, 2.0);
  EXPECT_EQ(row.metrics["loss"].last_step, 3);
  EXPECT_EQ(row.metrics["loss"].best, 1.0);
  EXPECT_EQ(row.metrics["val_accuracy"].best, 3.0);
  EXPECT_EQ(*reader().metric_names(id), (std::vector<std::string>{"loss", "val_accuracy"}));

  writer_->log(id, "loss", 1, 9.0, 0);  // a step logged again replaces the first: 1.0 was the best
  ASSERT_OK(writer_->flush());
  EXPECT_EQ(run(id).metrics["loss"].count, 4);
  EXPECT_EQ(run(id).metrics["loss"].best, 2.0);

  ASSERT_OK(writer_->truncate_metrics(id, 1));
  row = run(id);
  EXPECT_EQ(row.metrics["loss"].count, 2);
  EXPECT_EQ(row.metrics["loss"].last, 9.0);
  EXPECT_EQ(row.metrics["loss"].best, 3.0);
  ASSERT_OK(writer_->truncate_metrics(id, -1));
  EXPECT_TRUE(run(id).metrics.empty());
}

TEST_F(Store, PointsAppearWithoutAFlush) {
  const std::string id = create("live");
  auto watching = reader();
  const int64_t before = *watching.data_version();
  writer_->log(id, "loss", 1, 2.5, 0.1);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (watching.series(id, "loss")->empty() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(watching.series(id, "loss")->size(), 1u);
  EXPECT_NE(*watching.data_version(), before);
}

TEST_F(Store, PointsOfUnknownRunsAreReported) {
  writer_->log("nosuchid", "loss", 1, 2.5, 0.1);
  ASSERT_OK(writer_->flush());
  writer_->log(create("real"), "loss", 1, 2.5, 0.1);
  ASSERT_OK(writer_->flush());
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  EXPECT_NE(writer_->health().problem.find("not in the database"), std::string::npos) << writer_->health().problem;
}

TEST_F(Store, RenameTagDeleteUndeletePurge) {
  const std::string id = create("old");
  ASSERT_OK(writer_->end_run(id, RunState::finished));
  ASSERT_OK(writer_->rename_run(id, "new name"));
  EXPECT_FALSE(writer_->rename_run(id, "  "));
  ASSERT_OK(writer_->set_tags(id, {"b", "a", "b", ""}));
  EXPECT_EQ(run(id).name, "new name");
  EXPECT_EQ(run(id).tags, (std::vector<std::string>{"a", "b"}));
  ASSERT_OK(writer_->delete_run(id));
  EXPECT_TRUE(reader().runs()->empty());
  EXPECT_EQ(reader().runs(true)->size(), 1u);
  ASSERT_OK(writer_->undelete_run(id));
  EXPECT_EQ(reader().runs()->size(), 1u);
  ASSERT_OK(writer_->record_checkpoint(id, 5, save_checkpoint_files(id, 5)));
  writer_->log(id, "loss", 1, 1, 1);
  ASSERT_OK(writer_->purge_run(id));
  EXPECT_TRUE(reader().runs(true)->empty());
  EXPECT_FALSE(fs::exists(writer_->run_folder(id)));
  EXPECT_OK(reader().check());
  EXPECT_FALSE(writer_->purge_run("../../etc"));
  EXPECT_FALSE(writer_->rename_run("nosuchid", "x"));
}

TEST_F(Store, ARunningRunIsNotDeleted) {
  const std::string id = create("busy");
  for (const Status& status : {writer_->delete_run(id), writer_->purge_run(id)}) {
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("stop it"), std::string::npos);
  }
}

TEST_F(Store, FindsByIdPrefixOrName) {
  const std::string a = create("twin"), b = create("twin"), c = create("single");
  EXPECT_EQ(reader().run("single")->id, c);
  EXPECT_EQ(reader().run(a)->id, a);
  EXPECT_EQ(reader().run(a.substr(0, 7))->id, a);
  const auto twin = reader().run("twin");
  ASSERT_FALSE(twin);
  EXPECT_NE(twin.error().message.find(b), std::string::npos);
  EXPECT_FALSE(reader().run("missing"));
  EXPECT_FALSE(reader().run(""));
}

TEST_F(Store, NewestCompleteCheckpointSurvivesAMove) {
  const std::string id = create("moved");
  for (const int64_t step : {10, 20, 30})
    ASSERT_OK(writer_->record_checkpoint(id, step, save_checkpoint_files(id, step)));
  EXPECT_NE(run(id).checkpoint.find("step-00000030.safetensors"), std::string::npos);
  fs::remove(writer_->run_folder(id) / "step-00000030.optimizer.safetensors");
  EXPECT_NE(run(id).checkpoint.find("step-00000020.safetensors"), std::string::npos);
  const Status incomplete = reader().check();
  ASSERT_FALSE(incomplete);
  EXPECT_NE(incomplete.error().message.find("step 30"), std::string::npos) << incomplete.error().message;
  ASSERT_OK(writer_->forget_checkpoint(id, 30));
  EXPECT_OK(reader().check());
  EXPECT_FALSE(writer_->record_checkpoint(id, 40, "/elsewhere/step-00000040.safetensors"));

  writer_.reset();
  const fs::path elsewhere = folder_.path().string() + "-moved";
  fs::rename(folder_.path(), elsewhere);
  const auto moved = StoreReader::open(elsewhere / "runs.db");
  ASSERT_OK(moved);
  EXPECT_EQ(moved->run(id)->checkpoint, (elsewhere / "checkpoints" / id / "step-00000020.safetensors").string());
  fs::rename(elsewhere, folder_.path());
}

TEST_F(Store, ColoursCycleAndStay) {
  std::vector<std::string> ids;
  for (int i = 0; i < 10; ++i) ids.push_back(create(fmt::format("run {}", i), RunState::queued));
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 10u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(run(ids[static_cast<std::size_t>(i)]).color, i % 8);
}

TEST_F(Store, DeadProcessesAreCrashedOrStopped) {
  const std::string running = create("running"), queued = create("queued", RunState::queued),
                    other = create("other host");
  const std::string reused = create("pid reused"), rebooted = create("before a reboot");
  ASSERT_OK(writer_->flush());
  {
    SQLite::Database db(path_.string(), SQLite::OPEN_READWRITE, 5000);
    const auto change = [&](const std::string& id, const std::string& what) {
      ASSERT_EQ(db.exec(fmt::format("UPDATE runs SET {} WHERE id = '{}'", what, id)), 1);
    };
    change(running, "pid = 4194305");  // above the largest pid there is
    change(queued, "pid = 4194305");
    change(other, fmt::format("host = 'elsewhere', heartbeat_at = {}", unix_now() - 60));
    change(reused, "pid_start = pid_start + 1");
    change(rebooted, "boot_id = 'another'");
  }
  EXPECT_EQ(run(running).state, RunState::crashed);
  EXPECT_NE(run(running).error.find("4194305"), std::string::npos);
  EXPECT_EQ(run(queued).state, RunState::stopped);
  EXPECT_EQ(run(queued).error, "The program ended before it started.");
  EXPECT_EQ(run(other).state, RunState::running);
  EXPECT_EQ(run(reused).state, RunState::crashed);
  EXPECT_EQ(run(rebooted).state, RunState::crashed);
  // A reader only derives; the next writer writes it down.
  const auto stored = [&](const std::string& id) {
    SQLite::Database db(path_.string(), SQLite::OPEN_READONLY, 5000);
    return db.execAndGet(fmt::format("SELECT state FROM runs WHERE id = '{}'", id)).getString();
  };
  EXPECT_EQ(stored(running), "running");
  SetUp();
  EXPECT_EQ(stored(running), "crashed");
  EXPECT_EQ(stored(queued), "stopped");
  EXPECT_EQ(stored(other), "running");
}

TEST_F(Store, BackupWhileWritingIsConsistent) {
  const std::string id = create("busy");
  std::jthread logger([&](std::stop_token stop) {
    for (int64_t step = 0; !stop.stop_requested(); ++step) {
      for (const char* name : {"a", "b"}) writer_->log(id, name, step, static_cast<double>(step), 0);
      if (step % 50 == 0) (void)writer_->flush();
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const fs::path copy = folder_ / "copy.db";
  EXPECT_OK(reader().backup(copy));
  EXPECT_FALSE(reader().backup(copy)) << "an existing file must not be overwritten";
  logger.request_stop();
  logger.join();
  const auto backup = StoreReader::open(copy);
  ASSERT_OK(backup);
  EXPECT_OK(backup->check());
  const auto points = backup->series(id, "a");
  ASSERT_OK(points);
  ASSERT_FALSE(points->empty());
  for (std::size_t i = 0; i < points->size(); ++i)
    ASSERT_EQ((*points)[i].step, static_cast<int64_t>(i)) << "not a prefix";
}

TEST_F(Store, AReaderSeesOnlyWholeCommitsWhileAWriterWrites) {
  const std::string id = create("busy");
  std::jthread logger([&](std::stop_token stop) {
    for (int64_t step = 0; !stop.stop_requested(); ++step) {
      writer_->log(id, "loss", step, 1.0 / static_cast<double>(step + 1), 0);
      if (step % 100 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  auto watching = reader();
  int64_t last = 0;
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  while (std::chrono::steady_clock::now() < until) {
    const auto row = watching.run(id);
    ASSERT_OK(row);
    const auto summary = row->metrics.find("loss");
    if (summary == row->metrics.end()) continue;
    EXPECT_GE(summary->second.count, last);
    EXPECT_EQ(summary->second.count, summary->second.last_step + 1) << "a summary that does not fit its points";
    last = summary->second.count;
    EXPECT_GE(static_cast<int64_t>(watching.series(id, "loss")->size()), last);
  }
  EXPECT_GT(last, 0);
}

TEST_F(Store, MergeCopiesWhatIsMissing) {
  const std::string id = create("here");
  writer_->log(id, "loss", 1, std::nan(""), 0.5);
  writer_->log(id, "loss", 2, 3.0, 0.7);
  ASSERT_OK(writer_->set_tags(id, {"tag"}));
  ASSERT_OK(writer_->record_checkpoint(id, 7, save_checkpoint_files(id, 7)));
  ASSERT_OK(writer_->end_run(id, RunState::finished));
  const std::string busy = create("still running");
  ASSERT_OK(writer_->flush());

  const fs::path other_path = folder_ / "other/runs.db";
  auto other = StoreWriter::open(other_path);
  ASSERT_OK(other);
  const auto count = (*other)->merge(path_);
  ASSERT_OK(count);
  EXPECT_EQ(*count, 1);
  EXPECT_EQ(*(*other)->merge(path_), 0);
  EXPECT_FALSE((*other)->merge(other_path));
  const auto merged = StoreReader::open(other_path);
  ASSERT_OK(merged);
  const RunRow row = *merged->run(id);
  EXPECT_EQ(row.state, RunState::finished);
  EXPECT_EQ(row.tags, std::vector<std::string>{"tag"});
  EXPECT_EQ(row.metrics.at("loss").last, 3.0);
  EXPECT_EQ(row.checkpoint, ((*other)->run_folder(id) / "step-00000007.safetensors").string());
  EXPECT_TRUE(std::isnan(merged->series(id, "loss")->front().value));
  EXPECT_OK(merged->check());
}

TEST_F(Store, LoggingNeverWaitsForTheDisk) {
  const std::string id = create("fast");
  SQLite::Database lock(path_.string(), SQLite::OPEN_READWRITE, 5000);
  lock.exec("BEGIN IMMEDIATE");  // the disk, as the writer sees it, stands still
  double worst_ms = 0;
  for (int64_t step = 0; step < 20000; ++step) {
    const auto start = std::chrono::steady_clock::now();
    writer_->log(id, "loss", step, 1.0, 0);
    worst_ms =
        std::max(worst_ms, std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  EXPECT_LT(worst_ms, 100.0);  // a lock held by the disk would be seconds
  EXPECT_GT(writer_->health().queued, 10000);
  lock.exec("ROLLBACK");
  ASSERT_OK(writer_->flush());
  EXPECT_EQ(reader().series(id, "loss")->size(), 20000u);
}

// Of this thread: other tests on the machine do not count.
double cpu_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

TEST_F(Store, ListsFiveThousandRunsQuickly) {
  {
    SQLite::Database db(path_.string(), SQLite::OPEN_READWRITE, 5000);
    SQLite::Transaction transaction(db);
    db.exec(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) INSERT INTO runs (id, name, "
        "state, spec, "
        "spec_hash, created_at) SELECT 'run' || i, 'name ' || i, 'finished', hex(zeroblob(400)), 'h', i FROM n");
    db.exec(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO metric_names (name, "
        "larger_is_better) SELECT 'metric_' || i, 0 FROM n");
    db.exec(
        "INSERT INTO metric_summary (run, name_id, count, last_step, last, best) SELECT run, name_id, 500, 500, 1.5, "
        "1.25 FROM runs, metric_names");
    transaction.commit();
  }
  auto listing = reader();
  double best_ms = 1e9;
  for (int i = 0; i < 3; ++i) {
    const double start = cpu_ms();
    const auto runs = listing.runs();
    best_ms = std::min(best_ms, cpu_ms() - start);
    ASSERT_OK(runs);
    ASSERT_EQ(runs->size(), 5000u);
    EXPECT_EQ(runs->front().name, "name 5000");
    EXPECT_EQ(runs->front().metrics.size(), 20u);
  }
  RecordProperty("runs_ms", std::to_string(best_ms));
  std::printf("5,000 runs x 20 metrics: %.0f ms of processor time\n", best_ms);
  EXPECT_LT(best_ms, 4000);  // 100 ms is the aim in Release; ThreadSanitizer takes 1,200
}

}  // namespace
}  // namespace rat
