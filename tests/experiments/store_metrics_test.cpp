// Metric points: every value as it was logged, summaries that fit them, and a caller that never waits.
#include <SQLiteCpp/SQLiteCpp.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

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

}  // namespace
}  // namespace rat
