// Reading and copying a database while it is being written: snapshots, backups, merging.
#include <chrono>
#include <cmath>
#include <thread>

#include "tests/experiments/store_fixture.h"

namespace rat {
namespace {

namespace fs = std::filesystem;

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

}  // namespace
}  // namespace rat
