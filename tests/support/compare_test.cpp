// The comparators must reject what is wrong: a comparator that cannot fail proves nothing.
#include "tests/support/compare.h"

namespace rat::test {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

TEST(Compare, AcceptsEqualAndWithinBound) {
  EXPECT_TRUE(compare(std::vector<float>{1, 2}, std::vector<double>{1, 2}, 0).passed);
  EXPECT_TRUE(compare(std::vector<float>{1, 2}, std::vector<double>{1, 2.01}, 0.02).passed);
  EXPECT_EQ(relative_error(std::vector<float>{3, 4}, std::vector<double>{3, 4}), 0);
}

TEST(Compare, RejectsNanInEitherArray) {
  EXPECT_FALSE(compare(std::vector<float>{1, nan}, std::vector<double>{1, 2}, 1e9).passed);
  EXPECT_FALSE(compare(std::vector<float>{1, 2}, std::vector<double>{1, nan}, 1e9).passed);
  EXPECT_FALSE(compare(std::vector<float>{nan}, std::vector<double>{nan}, 1e9).passed);
  EXPECT_FALSE(relative_error(std::vector<float>{1, nan}, std::vector<double>{1, 2}) <= 1e9);
}

TEST(Compare, RejectsWrongSizeAndEmpty) {
  EXPECT_FALSE(compare(std::vector<float>{1, 2}, std::vector<double>{1}, 1e9).passed);
  EXPECT_FALSE(compare(std::vector<float>{}, std::vector<double>{}, 1e9).passed);
  EXPECT_FALSE(relative_error(std::vector<float>{1, 2}, std::vector<double>{1}) <= 1e9);
  EXPECT_FALSE(relative_error(std::vector<float>{}, std::vector<double>{}) <= 1e9);
}

TEST(Compare, RejectsOneBadElementAndNamesIt) {
  std::vector<float> actual(1000, 1.0f);
  actual[777] = 1.1f;
  const Comparison c = compare(actual, std::vector<double>(1000, 1.0), 0.05);
  EXPECT_FALSE(c.passed);
  EXPECT_EQ(c.index, 777u);
  EXPECT_NEAR(c.worst, 0.1, 1e-6);
  EXPECT_FALSE(close(actual, std::vector<double>(1000, 1.0), 0.05));
}

TEST(Compare, RejectsSomethingWhereZeroIsExpected) {
  EXPECT_FALSE(relative_error(std::vector<float>{1e-30f}, std::vector<double>{0}) <= 1e9);
}

}  // namespace
}  // namespace rat::test
