// When work is started, recorded and replayed, seen by a backend that only counts.
#include "kernels/recording/repeated_work.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/compare.h"

namespace rat::kernels {
namespace {

// What a backend that can record was asked to do.
struct Calls {
  int begun = 0, ended = 0, replayed = 0, forgotten = 0;
  uint64_t memory_changes = 0;
  bool end_fails = false;
};
Calls calls;

Backend counting_backend() {
  calls = {};
  Backend backend = cpu_backend();
  backend.begin_recording = []() -> Status { return ++calls.begun, ok(); };
  backend.end_recording = []() -> Result<void*> {
    ++calls.ended;
    if (calls.end_fails) return fail(ErrorCode::device_failure, "the recording cannot be made ready");
    return static_cast<void*>(&calls);
  };
  backend.replay = [](void* recording) -> Status {
    EXPECT_EQ(recording, &calls);
    return ++calls.replayed, ok();
  };
  backend.forget_recording = [](void*) { ++calls.forgotten; };
  backend.memory_changes = [] { return calls.memory_changes; };
  return backend;
}

class RepeatedWorkTest : public testing::Test {
 protected:
  // Runs it once more; how often the work was started so far.
  int run(RepeatedWork::Key key = {1}) {
    EXPECT_OK(repeated_.run(key, {.backend = &backend_}, [&]() -> Status { return ++started_, ok(); }));
    return started_;
  }
  const Backend backend_ = counting_backend();
  RepeatedWork repeated_;
  int started_ = 0;
};

TEST_F(RepeatedWorkTest, RunsThenRecordsThenReplays) {
  EXPECT_EQ(run(), 1);
  EXPECT_EQ(calls.begun, 0);
  EXPECT_EQ(run(), 2);  // recorded, and replayed at once
  EXPECT_EQ(calls.begun, 1);
  EXPECT_EQ(calls.replayed, 1);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(run(), 2);
  EXPECT_EQ(calls.begun, 1);
  EXPECT_EQ(calls.replayed, 6);
  EXPECT_EQ(calls.forgotten, 0);
}

TEST_F(RepeatedWorkTest, StartsAnewWhenAnythingIsDifferent) {
  const auto recorded_again = [&] {
    const int before = started_, replays = calls.replayed;
    run(), run(), run();
    return started_ == before + 2 && calls.replayed == replays + 2;
  };
  EXPECT_TRUE(recorded_again());
  ++calls.memory_changes;
  EXPECT_TRUE(recorded_again());
  EXPECT_EQ(calls.forgotten, 1);
  std::thread([&] { EXPECT_TRUE(recorded_again()); }).join();
  EXPECT_TRUE(recorded_again());
  EXPECT_EQ(calls.begun, calls.ended);
  EXPECT_EQ(calls.forgotten, calls.begun - 1);  // one is left
}

TEST_F(RepeatedWorkTest, KeysTakeTurnsWithARecordingEach) {
  EXPECT_EQ(run({1}), 1);
  EXPECT_EQ(run({2}), 2);
  EXPECT_EQ(run({1}), 3);  // recorded
  EXPECT_EQ(run({2}), 4);
  for (int i = 0; i < 3; ++i) EXPECT_EQ((run({1}), run({2})), 4);
  EXPECT_EQ(calls.begun, 2);
  EXPECT_EQ(calls.forgotten, 0);
  ++calls.memory_changes;
  EXPECT_EQ(run({2}), 5);
  EXPECT_EQ(calls.forgotten, 2) << "recordings of every key are stale";
}

TEST_F(RepeatedWorkTest, TheOldestOfManyKeysIsForgotten) {
  for (int64_t key = 0; key < 9; ++key) run({key}), run({key});
  EXPECT_EQ(calls.begun, 9);
  EXPECT_EQ(calls.forgotten, 1);
  const int before = started_;
  EXPECT_EQ(run({8}), before);
  EXPECT_EQ(run({1}), before);
  EXPECT_EQ(run({0}), before + 1);
}

TEST_F(RepeatedWorkTest, MemoryTakenByTheWorkItselfCountsOnlyOnce) {
  const auto work = [&]() -> Status {
    if (started_++ == 0) ++calls.memory_changes;
    return ok();
  };
  for (int i = 0; i < 4; ++i) EXPECT_OK(repeated_.run({}, {.backend = &backend_}, work));
  EXPECT_EQ(started_, 2);
  EXPECT_EQ(calls.replayed, 3);
}

TEST_F(RepeatedWorkTest, ErrorsEndTheRecordingAndAreReported) {
  run();
  const auto broken = repeated_.run({1}, {.backend = &backend_},
                                    []() -> Status { return fail(ErrorCode::cancelled, "stopped in the middle"); });
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::cancelled);
  EXPECT_EQ(calls.ended, 1);
  EXPECT_EQ(calls.forgotten, 1);
  EXPECT_EQ(calls.replayed, 0);
  EXPECT_EQ(run(), 2);
  calls.end_fails = true;
  const auto unready = repeated_.run({1}, {.backend = &backend_}, []() -> Status { return ok(); });
  ASSERT_FALSE(unready);
  EXPECT_EQ(unready.error().message, "the recording cannot be made ready");
  calls.end_fails = false;
  EXPECT_EQ(run(), 3);  // from the start again
  EXPECT_EQ(run(), 4);
  EXPECT_EQ(calls.replayed, 1);
}

TEST_F(RepeatedWorkTest, GivesItsRecordingBack) {
  {
    RepeatedWork own;
    for (int i = 0; i < 2; ++i) EXPECT_OK(own.run({}, {.backend = &backend_}, []() -> Status { return ok(); }));
    EXPECT_TRUE(own.recorded());
  }
  EXPECT_EQ(calls.forgotten, 1);
}

TEST(RepeatedWork, IsStartedEveryTimeOnTheCpu) {
  RepeatedWork repeated;
  int started = 0;
  for (int i = 0; i < 4; ++i) EXPECT_OK(repeated.run({}, {}, [&]() -> Status { return ++started, ok(); }));
  EXPECT_EQ(started, 4);
  EXPECT_FALSE(repeated.recorded());
}

}  // namespace
}  // namespace rat::kernels
