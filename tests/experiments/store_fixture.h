// A folder of its own for each store test, and small helpers around the store.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "core/io/sha256.h"
#include "experiments/store/store.h"

namespace rat {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "rat-store-XXXXXX").string();
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

#define ASSERT_OK(expression)                              \
  do {                                                     \
    const auto& assert_ok_ = (expression);                 \
    ASSERT_TRUE(assert_ok_) << assert_ok_.error().message; \
  } while (false)
#define EXPECT_OK(expression)                              \
  do {                                                     \
    const auto& expect_ok_ = (expression);                 \
    EXPECT_TRUE(expect_ok_) << expect_ok_.error().message; \
  } while (false)

}  // namespace rat
