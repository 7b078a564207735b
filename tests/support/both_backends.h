// Runs an op on the CPU backend and on a device from the same values, in rows with a stride, and compares.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat::test {

// Rows in a backend's memory with other values between them, which must stay as they are.
class SpacedRows {
 public:
  // `spaced`: 3 columns before and 2 after, so that rows begin at odd addresses.
  SpacedRows(const kernels::Backend& backend, const std::vector<float>& values, int64_t rows, int64_t cols,
             bool spaced = true)
      : lead_(spaced ? 3 : 0),
        cols_(cols),
        all_(backend, space_out(values, rows, cols, spaced), rows, stride(cols, spaced)) {}
  kernels::Output rows() const { return all_.rows().columns(lead_, cols_); }
  operator kernels::Output() const { return rows(); }
  operator kernels::Input() const { return rows(); }
  std::vector<float> read() const { return all_.read(); }  // with what is between the rows

 private:
  static int64_t stride(int64_t cols, bool spaced) { return spaced ? cols + 5 : cols; }
  static std::vector<float> space_out(const std::vector<float>& values, int64_t rows, int64_t cols, bool spaced) {
    RAT_CHECK(static_cast<int64_t>(values.size()) == rows * cols, "values fill the rows");
    const int64_t width = stride(cols, spaced);
    std::vector<float> all(static_cast<std::size_t>(rows * width), 0.25f);
    for (int64_t i = 0; i < rows; ++i)
      std::copy_n(values.begin() + i * cols, cols, all.begin() + i * width + (spaced ? 3 : 0));
    return all;
  }
  int64_t lead_, cols_;
  DeviceRows all_;
};

// Every value within bound times the largest expected value; NaN only where NaN is expected.
inline ::testing::AssertionResult agrees(std::vector<float> actual, std::vector<float> expected, double bound = 2e-5) {
  double largest = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!std::isnan(expected[i])) largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    else if (i < actual.size() && std::isnan(actual[i])) actual[i] = expected[i] = 0;
  }
  return close(actual, expected, bound * largest);
}

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// run(backend) returns a list of results: the device's agree with the CPU's, and come out again bit by bit.
template <class Run>
void expect_parity(const kernels::Backend& device, const Run& run, double bound = 2e-5) {
  const std::vector<std::vector<float>> want = run(kernels::cpu_backend()), got = run(device), again = run(device);
  ASSERT_EQ(got.size(), want.size());
  ASSERT_EQ(again.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_TRUE(agrees(got[i], want[i], bound)) << "result " << i;
    EXPECT_TRUE(same_bits(got[i], again[i])) << "result " << i << " differs from run to run";
  }
}

}  // namespace rat::test
