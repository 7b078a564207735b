// Memory of the cuda backend: uploads, downloads, copies. Skipped without a GPU.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

TEST(CudaMemory, RowsAreUploadedGatheredAndReadBack) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const std::vector<float> values = test::uniform(7 * 5, 1);
  const test::DeviceRows x(*backend, values, 7, 5), y(*backend, test::poison(3 * 2), 3, 2);
  const std::vector<int32_t> rows{6, 0, 6};
  ASSERT_OK(copy_rows({.x = x.rows().columns(1, 2), .y = y, .rows = rows}, {.backend = backend}));
  const std::vector<float> got = y.read();
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 2; ++j)
      EXPECT_EQ(got[i * 2 + j], values[static_cast<std::size_t>(rows[i]) * 5 + 1 + j]);
  ASSERT_OK(zero({.x = x.rows().columns(3, 1)}, {.backend = backend}));
  EXPECT_EQ(x.read()[3], 0.0f);
  EXPECT_EQ(x.read()[4], values[4]);
}

// Uploads queue up behind work that takes the device a while, through pinned memory that is used many times over.
TEST(CudaMemory, UploadedValuesMayBeChangedAtOnce) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const std::size_t count : {std::size_t{1}, std::size_t{70001}, std::size_t{1} << 20, (std::size_t{1} << 20) + 1}) {
    constexpr std::size_t blocks = 40;
    Memory memory(*backend), slow(*backend);
    auto* const device = static_cast<float*>(memory.ensure(blocks * count * sizeof(float)));
    const Output busy(static_cast<float*>(slow.ensure(std::size_t{1} << 30)), 1 << 14, 1 << 14);
    std::vector<float> values(count), got(count);
    for (std::size_t b = 0; b < blocks; ++b) {
      if (b % 8 == 0) ASSERT_OK(zero({.x = busy}, {.backend = backend}));
      std::fill(values.begin(), values.end(), static_cast<float>(b));
      ASSERT_OK(upload({.host = values, .device = device + b * count}, {.backend = backend}));
    }
    for (std::size_t b = 0; b < blocks; ++b) {
      const Input rows(device + b * count, 1, static_cast<int64_t>(count));
      ASSERT_OK(download({.rows = rows, .host = got.data()}, {.backend = backend}));
      EXPECT_EQ(std::count(got.begin(), got.end(), static_cast<float>(b)), static_cast<std::ptrdiff_t>(count)) << b;
    }
  }
}

TEST(CudaMemory, GrowingKeepsWhatWasThere) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  Memory memory(*backend);
  const std::vector<float> values = test::uniform(100, 2);
  ASSERT_OK(upload({.host = values, .device = static_cast<float*>(memory.grow(400))}, {.backend = backend}));
  const auto* grown = static_cast<const float*>(memory.grow(100000));
  std::vector<float> got(100);
  ASSERT_OK(download({.rows = Input(grown, 1, 100), .host = got.data()}, {.backend = backend}));
  EXPECT_EQ(got, values);
}

TEST(CudaMemory, TooMuchIsRefusedWithTheNumbers) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  Memory memory(*backend);
  try {
    memory.ensure(std::size_t{1} << 50);
    FAIL() << "a petabyte was granted";
  } catch (const OutOfMemory& problem) {
    EXPECT_NE(std::string(problem.what()).find("1125899906842624"), std::string::npos) << problem.what();
  }
}

}  // namespace
}  // namespace rat::kernels
