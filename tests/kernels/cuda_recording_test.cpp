// Recorded work on a GPU. Skipped without one.
#include "kernels/recording/repeated_work.h"
#include "tests/support/device_rows.h"

namespace rat::kernels {
namespace {

// What lies in x when it is replayed counts, not what lay there before.
TEST(CudaRecording, ReplaysOnTheValuesOfNow) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const Exec exec{.backend = backend};
  const test::DeviceRows x(*backend, {1, 2, 3}, 1, 3), y(*backend, {0, 0, 0}, 1, 3);
  RepeatedWork repeated;
  const auto copy = [&] { return copy_rows({.x = x, .y = y}, exec); };
  for (float value = 1; value < 6; ++value) {
    const std::vector<float> values{value, 10 * value, -value};
    ASSERT_OK(upload({.host = values, .device = x.data()}, exec));
    ASSERT_OK(repeated.run({7}, exec, copy));
    EXPECT_EQ(y.read(), values);
    EXPECT_EQ(repeated.recorded(), value > 1);
  }
  const test::DeviceRows other(*backend, {5, 5, 5}, 1, 3);  // memory was taken
  ASSERT_OK(repeated.run({7}, exec, copy));
  EXPECT_FALSE(repeated.recorded());
  ASSERT_OK(repeated.run({7}, exec, copy));
  EXPECT_TRUE(repeated.recorded());
}

TEST(CudaRecording, RefusesCopiesFromTheHostAndGoesOn) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const Exec exec{.backend = backend};
  const test::DeviceRows x(*backend, {1, 2, 3}, 1, 3);
  const std::vector<float> values{4, 5, 6};
  RepeatedWork repeated;
  const auto copy = [&] { return upload({.host = values, .device = x.data()}, exec); };
  ASSERT_OK(repeated.run({}, exec, copy));
  const Status refused = repeated.run({}, exec, copy);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("recording"), std::string::npos) << refused.error().message;
  EXPECT_EQ(x.read(), values);  // the stream is as good as before
  ASSERT_OK(repeated.run({}, exec, copy));
}

}  // namespace
}  // namespace rat::kernels
