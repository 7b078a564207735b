// Memory of the CPU backend, and the copies that every backend has.
#include "kernels/memory/memory.h"

#include <gtest/gtest.h>

#include <cmath>

#include "kernels/gated_scan/gated_scan.h"
#include "kernels/matmul/matmul.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

TEST(Memory, GrowingKeepsTheContentsAndNeverShrinks) {
  Memory memory;
  auto* data = static_cast<float*>(memory.grow(3 * sizeof(float)));
  for (int i = 0; i < 3; ++i) data[i] = static_cast<float>(i + 1);
  data = static_cast<float*>(memory.grow(5000 * sizeof(float)));
  EXPECT_EQ(std::vector<float>(data, data + 3), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(memory.grow(10), data);
  Memory taken = std::move(memory);
  EXPECT_EQ(taken.data(), data);
}

TEST(Memory, MoreThanThereIsSaysHowMuchWasWanted) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizers end a program that asks for so much";
#endif
  Memory memory;
  try {
    memory.ensure(std::size_t{1} << 60);
    FAIL() << "an exabyte was granted";
  } catch (const OutOfMemory& problem) {
    EXPECT_NE(std::string(problem.what()).find("1152921504606846976"), std::string::npos) << problem.what();
  }
}

TEST(Memory, RowsAreGatheredZeroedAndReadDense) {
  std::vector<float> x = test::uniform(6 * 4, 1);
  const std::vector<float> before = x;
  std::vector<float> y(3 * 2, 9.0f);
  const std::vector<int32_t> rows{5, 0, 5};
  const Output all(x.data(), 6, 4);
  ASSERT_OK(copy_rows({.x = all.columns(1, 2), .y = Output(y.data(), 3, 2), .rows = rows}, {}));
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 2; ++j) EXPECT_EQ(y[i * 2 + j], before[static_cast<std::size_t>(rows[i]) * 4 + 1 + j]);
  ASSERT_OK(zero({.x = all.columns(3, 1)}, {}));
  std::vector<float> read(6 * 2);
  ASSERT_OK(download({.rows = all.columns(2, 2), .host = read.data()}, {}));
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(read[i * 2], before[i * 4 + 2]);
    EXPECT_EQ(read[i * 2 + 1], 0.0f);
  }
  std::vector<uint16_t> rounded(6 * 2);
  ASSERT_OK(round_weights({.x = read, .out = rounded}, {}));
  ASSERT_OK(widen({.x = rounded.data(), .y = all.columns(1, 2)}, {}));
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(x[i * 4], before[i * 4]);
    EXPECT_NEAR(x[i * 4 + 1], before[i * 4 + 2], 0.004 * std::abs(before[i * 4 + 2]));
    EXPECT_EQ(x[i * 4 + 2], 0.0f);
  }
  const std::vector<int32_t> outside{6};
  EXPECT_FALSE(copy_rows({.x = all, .y = Output(y.data(), 1, 4), .rows = outside}, {}));
}

// A recurrence cut in two goes on from its state, also in place: what decoding does.
TEST(GatedScan, GoesOnFromAState) {
  constexpr int64_t T = 11, D = 6, W = 3, cut = 7;
  std::vector<float> gate = test::uniform(T * D, 1, 0.0f, 1.0f), input = test::uniform(T * W, 2);
  std::vector<float> whole(T * D), parts(T * D);
  const Output g(gate.data(), T, D), x(input.data(), T, W), out(parts.data(), T, D);
  ASSERT_OK(gated_scan({g, x, Output(whole.data(), T, D), T, T}, {}));
  ASSERT_OK(gated_scan({g.row_range(0, cut), x.row_range(0, cut), out.row_range(0, cut), cut, cut}, {}));
  std::vector<float> running(parts.begin() + (cut - 1) * D, parts.begin() + cut * D);
  const Output state(running.data(), 1, D);
  for (int64_t t = cut; t < T; ++t) {
    ASSERT_OK(gated_scan({g.row_range(t, 1), x.row_range(t, 1), state, 1, 1, state}, {}));
    std::copy(running.begin(), running.end(), parts.begin() + t * D);
  }
  EXPECT_EQ(parts, whole);
}

}  // namespace
}  // namespace rat::kernels
