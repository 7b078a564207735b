// Evaluations in the run database: what is recorded is what is read, all or nothing, and older files still open.
#include <SQLiteCpp/SQLiteCpp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <chrono>
#include <limits>
#include <thread>

#include "experiments/store/database.h"
#include "experiments/store/migrations.h"
#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

EvaluationPoint value(const std::string& metric, double number, std::optional<double> depth = {},
                      std::optional<int64_t> position = {}) {
  EvaluationPoint point{metric, 64, depth, position, number, 0.125, 32, 512};
  return point;
}

Evaluation measured(const std::string& task, int64_t step, const std::string& settings = "{}") {
  Evaluation evaluation;
  evaluation.task = task;
  evaluation.step = step;
  evaluation.settings = settings;
  evaluation.data_description = "a text, \"quoted\"";
  evaluation.data_hash = "abc";
  evaluation.device = "cpu";
  evaluation.dtype = "f32";
  evaluation.notes = {"first note", "second note"};
  evaluation.elapsed_s = 1.5;
  evaluation.points = {value("loss", 2.5), value("accuracy", -0.0, 0.25), value("loss", std::nan(""), {}, 7),
                       value("loss", std::numeric_limits<double>::infinity(), {}, 8)};
  evaluation.points[1].standard_error = std::nan("");
  return evaluation;
}

class StoreEvaluations : public ::testing::Test {
 protected:
  void SetUp() override {
    auto opened = StoreWriter::open(path_);
    ASSERT_OK(opened);
    writer_ = *std::move(opened);
    const auto id = writer_->create_run(new_run("first"));
    ASSERT_OK(id);
    id_ = *id;
  }
  std::vector<Evaluation> stored(const std::string& task = "", const fs::path& path = {}) {
    const auto reader = StoreReader::open(path.empty() ? path_ : path);
    EXPECT_TRUE(reader) << reader.error().message;
    const auto list = reader->evaluations(id_, task);
    EXPECT_TRUE(list) << list.error().message;
    return list ? *list : std::vector<Evaluation>{};
  }

  TemporaryFolder folder_;
  fs::path path_ = folder_ / "runs.db";
  std::unique_ptr<StoreWriter> writer_;
  std::string id_;
};

TEST_F(StoreEvaluations, WhatIsRecordedIsRead) {
  const Evaluation written = measured("length", 20);
  ASSERT_OK(writer_->record_evaluation(id_, written));
  ASSERT_OK(writer_->record_evaluation(id_, measured("needle", 20)));
  const std::vector<Evaluation> all = stored();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(stored("needle").size(), 1u);
  const Evaluation& read = all[0];
  EXPECT_EQ(read.task, "length");
  EXPECT_EQ(read.step, 20);
  EXPECT_EQ(read.settings, "{}");
  EXPECT_EQ(read.data_description, written.data_description);
  EXPECT_EQ(read.data_hash, "abc");
  EXPECT_EQ(read.notes, written.notes);
  EXPECT_EQ(read.elapsed_s, 1.5);
  EXPECT_FALSE(read.commit.empty());
  EXPECT_GT(read.created_at, 1.7e9);
  ASSERT_EQ(read.points.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    const EvaluationPoint &got = read.points[i], &expected = written.points[i];
    EXPECT_EQ(got.metric, expected.metric);
    EXPECT_EQ(got.seq_len, 64);
    EXPECT_EQ(got.depth, expected.depth);
    EXPECT_EQ(got.position, expected.position);
    EXPECT_TRUE(std::isnan(expected.value)
                    ? std::isnan(got.value)
                    : std::bit_cast<uint64_t>(got.value) == std::bit_cast<uint64_t>(expected.value));
    EXPECT_EQ(std::isnan(got.standard_error), i == 1);
    EXPECT_EQ(got.sequences, 32);
    EXPECT_EQ(got.targets, 512);
  }
  EXPECT_FALSE(writer_->record_evaluation("nobody", written));
}

TEST_F(StoreEvaluations, MeasuredAgainItIsReplacedMeasuredOtherwiseItIsAdded) {
  ASSERT_OK(writer_->record_evaluation(id_, measured("length", 20)));
  Evaluation again = measured("length", 20);
  again.points = {value("loss", 1)};
  ASSERT_OK(writer_->record_evaluation(id_, again));
  ASSERT_EQ(stored().size(), 1u);
  EXPECT_EQ(stored()[0].points.size(), 1u);
  ASSERT_OK(writer_->record_evaluation(id_, measured("length", 20, R"({"lengths":[8]})")));
  ASSERT_OK(writer_->record_evaluation(id_, measured("length", 40)));
  EXPECT_EQ(stored().size(), 3u);
  SQLite::Database db(path_.string(), SQLite::OPEN_READONLY);
  EXPECT_EQ(db.execAndGet("select count(*) from evaluation_points").getInt(), 1 + 4 + 4) << "no point is left behind";
  EXPECT_EQ(db.execAndGet("select count(*) from evaluation_values").getInt(), 9);
  EXPECT_EQ(db.execAndGet("select count(*) from evaluation_list").getInt(), 3)
      << "numbers over all depths and positions";
}

TEST_F(StoreEvaluations, FollowTheirRun) {
  ASSERT_OK(writer_->record_evaluation(id_, measured("length", 20)));
  ASSERT_OK(writer_->record_evaluation(id_, measured("length", 40)));
  ASSERT_OK(writer_->truncate_metrics(id_, 30));
  ASSERT_EQ(stored().size(), 1u) << "of weights that will be computed again";
  EXPECT_EQ(stored()[0].step, 20);
  ASSERT_OK(writer_->end_run(id_, RunState::finished));

  auto other = StoreWriter::open(folder_ / "other.db");
  ASSERT_OK(other);
  const auto merged = (*other)->merge(path_);
  ASSERT_OK(merged);
  EXPECT_EQ(*merged, 1);
  const std::vector<Evaluation> copied = stored("", folder_ / "other.db");
  ASSERT_EQ(copied.size(), 1u);
  EXPECT_EQ(copied[0].points.size(), 4u);
  EXPECT_EQ(copied[0].created_at, stored()[0].created_at);

  ASSERT_OK(writer_->purge_run(id_));
  SQLite::Database db(path_.string(), SQLite::OPEN_READONLY);
  EXPECT_EQ(
      db.execAndGet("select (select count(*) from evaluations) + (select count(*) from evaluation_points)").getInt(),
      0);
}

TEST_F(StoreEvaluations, AFileOfVersion1IsReadAsItIsAndMigratedByAWriter) {
  writer_.reset();
  const fs::path old = folder_ / "old.db";
  {
    SQLite::Database db(old.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE);
    store::migrate(db, store::migrations().first(1));
    db.exec(fmt::format(
        "insert into runs (id, name, state, spec, spec_hash) values ('{}', 'old', 'finished', '{{}}', 'h')", id_));
  }
  const std::string before = file_bytes(old);
  EXPECT_TRUE(stored("", old).empty());
  EXPECT_EQ(StoreReader::open(old)->runs()->size(), 1u);
  EXPECT_EQ(file_bytes(old), before) << "a reader changes nothing";
  {
    auto writer = StoreWriter::open(old);
    ASSERT_OK(writer);
    ASSERT_OK((*writer)->record_evaluation(id_, measured("length", 1)));
  }
  EXPECT_EQ(stored("", old).size(), 1u);
  SQLite::Database db(old.string(), SQLite::OPEN_READONLY);
  EXPECT_EQ(db.execAndGet("pragma user_version").getInt(), store::current_version());
}

// Killed at any moment, an evaluation is there with all its points or not at all.
TEST_F(StoreEvaluations, AKillLeavesAllOfAnEvaluationOrNothing) {
  writer_.reset();
  constexpr int points = 300;
  int survivors = 0;
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto writer = StoreWriter::open(path_);
      Evaluation evaluation = measured("loss_by_position", 0);
      for (int64_t position = 0; position < points; ++position)
        evaluation.points.push_back(value("loss", static_cast<double>(position), {}, position));
      for (int64_t step = 1000 * round; writer; ++step) {
        evaluation.step = step;
        (void)(*writer)->record_evaluation(id_, evaluation);
      }
      _exit(1);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(40 + 13 * round));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    for (const Evaluation& one : stored()) {
      ASSERT_EQ(one.points.size(), 4u + points);
      EXPECT_EQ(one.points.back().position, points - 1);
      ++survivors;
    }
  }
  EXPECT_GT(survivors, 0) << "the writers did too little for this test to mean anything";
  const auto writer = StoreWriter::open(path_);
  ASSERT_OK(writer);
  const auto reader = StoreReader::open(path_);
  ASSERT_OK(reader);
  EXPECT_OK(reader->check());
}

}  // namespace
}  // namespace rat
