// A training session on a tiny text, and helpers to wait for what its thread does.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <thread>

#include "experiments/session.h"
#include "tests/experiments/tiny_run.h"

namespace rat {

using Clock = std::chrono::steady_clock;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr double reaction_limit_ms = 1000;  // everything is several times slower
#else
inline constexpr double reaction_limit_ms = 300;  // 100 ms is the promise; the machine may be busy with other tests
#endif

template <class Condition>
bool wait_for(Condition&& condition, double seconds = 60) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

inline double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

class Session : public ::testing::Test {
 protected:
  void SetUp() override {
    write_tiny_text(text_);
    auto opened = StoreWriter::open(folder_ / "runs.db");
    ASSERT_OK(opened);
    store_ = *std::move(opened);
    session_ = std::make_unique<TrainingSession>(*store_);
  }
  std::shared_ptr<const TrainingStatus> status() { return session_->status(); }
  bool is(SessionActivity activity) { return status()->activity == activity; }
  std::vector<RunRow> runs() {
    EXPECT_OK(store_->flush());
    return *StoreReader::open(store_->path())->runs();
  }
  // A run whose single step takes long: hundreds of milliseconds on two cores.
  RunSpec slow_spec() {
    RunSpec spec = tiny_spec(text_, "rat:16*4", 1000000);
    spec.model.d_model = 128;
    spec.model.heads = 4;
    spec.model.groups = 2;
    spec.train.batch = 16;
    spec.train.seq_len = 256;
    spec.train.eval_every = 0;
    return spec;
  }
  RunSpec endless() {
    RunSpec spec = tiny_spec(text_, "rat:8*2", 1000000);
    spec.train.eval_every = 0;
    return spec;
  }

  TemporaryFolder folder_;
  std::filesystem::path text_ = folder_ / "text.txt";
  std::unique_ptr<StoreWriter> store_;
  std::unique_ptr<TrainingSession> session_;
};

}  // namespace rat
