// Comparisons that fail closed: NaN, a wrong size and an empty array never pass.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace rat::test {

struct Comparison {
  bool passed = false;
  double worst = 0;
  std::size_t index = 0;
};

// Passes only when every |actual - expected| <= bound. `error > bound` would let NaN through.
template <class A, class E>
Comparison compare(const A& actual, const E& expected, double bound) {
  Comparison result;
  result.passed = std::size(actual) == std::size(expected) && std::size(actual) > 0;
  for (std::size_t i = 0; result.passed && i < std::size(actual); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (!(error <= result.worst)) result.worst = error, result.index = i;
    result.passed = error <= bound;
  }
  return result;
}

// ||actual - expected|| / ||expected||; infinite for a wrong size or an empty array, NaN if either holds NaN.
template <class A, class E>
double relative_error(const A& actual, const E& expected) {
  if (std::size(actual) != std::size(expected) || std::size(actual) == 0)
    return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < std::size(actual); ++i) {
    const double a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
    difference += (a - e) * (a - e);
    norm += e * e;
  }
  if (norm == 0) return difference == 0 ? 0 : std::numeric_limits<double>::infinity();
  return std::sqrt(difference / norm);
}

template <class A, class E>
::testing::AssertionResult close(const A& actual, const E& expected, double bound) {
  const Comparison c = compare(actual, expected, bound);
  if (c.passed) return ::testing::AssertionSuccess();
  auto failure = ::testing::AssertionFailure() << "sizes " << std::size(actual) << " and " << std::size(expected)
                                               << ", error " << c.worst << " at " << c.index << ", bound " << bound;
  if (c.index < std::size(actual) && c.index < std::size(expected))
    failure << ", actual " << actual[c.index] << ", expected " << expected[c.index];
  return failure;
}

}  // namespace rat::test

#define EXPECT_OK(expression)                                                        \
  do {                                                                               \
    auto&& rat_status = (expression);                                                \
    EXPECT_TRUE(bool(rat_status)) << (rat_status ? "" : rat_status.error().message); \
  } while (false)
#define ASSERT_OK(expression)                                                        \
  do {                                                                               \
    auto&& rat_status = (expression);                                                \
    ASSERT_TRUE(bool(rat_status)) << (rat_status ? "" : rat_status.error().message); \
  } while (false)
