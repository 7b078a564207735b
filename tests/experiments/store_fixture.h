// A folder of its own for each store test, and small helpers around the store.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "core/io/sha256.h"
#include "experiments/store/store.h"
#include "tests/support/compare.h"

namespace rat {

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& in = std::filesystem::temp_directory_path()) {
    std::string name = (in / "rat-store-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// Where a test that syncs hundreds of times and makes its own disk errors need not wait for a disk.
inline std::filesystem::path memory_disk() {
  std::error_code error;
  const std::filesystem::path shared = "/dev/shm";
  const auto space = std::filesystem::space(shared, error);
  const bool usable = !error && space.available > (64u << 20) && access(shared.c_str(), W_OK) == 0;
  return usable ? shared : std::filesystem::temp_directory_path();
}

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline NewRun new_run(const std::string& name, RunState state = RunState::running) {
  NewRun run;
  run.name = name;
  run.spec_json = "{}";
  run.spec_hash = "hash";
  run.layers = "rat:16*4";
  run.steps_total = 100;
  run.state = state;
  return run;
}

// A database of its own with a writer open.
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
  std::filesystem::path save_checkpoint_files(const std::string& id, int64_t step) {
    const std::filesystem::path folder = writer_->run_folder(id);
    std::filesystem::create_directories(folder);
    const std::filesystem::path weights = folder / fmt::format("step-{:08}.safetensors", step);
    write_bytes(folder / fmt::format("step-{:08}.optimizer.safetensors", step), "optimizer");
    write_bytes(weights, "weights");
    return weights;
  }

  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "runs.db";
  std::unique_ptr<StoreWriter> writer_;
};

}  // namespace rat
