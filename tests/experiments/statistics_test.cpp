// Expected values are computed by hand or from another formula.
#include "experiments/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rat {
namespace {

constexpr double inf = std::numeric_limits<double>::infinity();

TEST(Statistics, MedianAndQuartiles) {
  const std::vector<double> odd{5, 1, 3}, even{4, 1, 3, 2}, one{7}, none;
  EXPECT_EQ(median(odd), 3);
  EXPECT_EQ(median(even), 2.5);
  EXPECT_EQ(quartiles(even).q1, 1.75);
  EXPECT_EQ(quartiles(even).q3, 3.25);
  EXPECT_EQ(quartiles(one).q1, 7);
  EXPECT_TRUE(std::isnan(median(none)));
  EXPECT_TRUE(std::isnan(median(std::vector<double>{1, NAN})));
  EXPECT_EQ(median(std::vector<double>{1, 2, inf}), 2);
  EXPECT_EQ(median(std::vector<float>{1, 2, 4}), 2);
}

TEST(Statistics, SmoothingIsTheNormalisedWeightedMean) {
  const std::vector<double> y{1, 4, -2, 8, 3};
  const double s = 0.9;
  const auto smoothed = smooth(y, s);
  for (std::size_t i = 0; i < y.size(); ++i) {
    double sum = 0, weights = 0;
    for (std::size_t j = 0; j <= i; ++j) {
      const double weight = std::pow(s, static_cast<double>(i - j));
      sum += weight * y[j];
      weights += weight;
    }
    EXPECT_NEAR(smoothed[i], sum / weights, 1e-12);
  }
  EXPECT_EQ(smooth(y, 0), y);
}

TEST(Statistics, SmoothingPassesNonFiniteAndLeavesConstants) {
  const std::vector<double> y{1, NAN, 3, inf};
  const auto smoothed = smooth(y, 0.5);
  EXPECT_EQ(smoothed[0], 1);
  EXPECT_TRUE(std::isnan(smoothed[1]));
  EXPECT_NEAR(smoothed[2], (0.5 * 1 + 3) / 1.5, 1e-12);
  EXPECT_EQ(smoothed[3], inf);
  const std::vector<double> constant(100, 0.1);
  EXPECT_EQ(smooth(constant, 0.97), constant);
  EXPECT_TRUE(smooth({}, 0.9).empty());
}

TEST(Statistics, HalfLives) {
  EXPECT_NEAR(smoothing_half_life(0.6), 1.357, 1e-3);
  EXPECT_NEAR(smoothing_half_life(0.99), 68.97, 1e-2);
  EXPECT_NEAR(smoothing_half_life(0.999), 692.8, 0.1);
  EXPECT_EQ(smoothing_half_life(0), 0);
  for (const double s : {0.1, 0.6, 0.97}) EXPECT_NEAR(smoothing_weight(smoothing_half_life(s)), s, 1e-12);
}

TEST(Statistics, SpreadOverSeeds) {
  const Spread s = spread(std::vector<double>{1, 2, 3, 4});
  EXPECT_EQ(s.n, 4);
  EXPECT_EQ(s.mean, 2.5);
  EXPECT_NEAR(s.deviation, std::sqrt(5.0 / 3), 1e-12);
  EXPECT_NEAR(s.high - s.mean, 3.1824 * std::sqrt(5.0 / 3) / 2, 1e-9);
  EXPECT_TRUE(std::isnan(spread(std::vector<double>{1}).low));
  EXPECT_TRUE(std::isnan(spread({}).mean));
  std::vector<double> many(61, 0.0);
  many[0] = 61;  // mean 1, variance 61
  // t(0.975, 60) = 2.0003 from a printed table
  EXPECT_NEAR(spread(many).high, 1 + 2.0003 * std::sqrt(61.0) / std::sqrt(61.0), 2e-4);
}

// Against the definition, for all four goals and many random point sets with ties.
TEST(Statistics, ParetoFrontFollowsItsDefinition) {
  uint64_t state = 1;
  const auto random = [&] {
    return static_cast<double>((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) / (1u << 31);
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<double> x, y;
    for (int i = 0; i < 15; ++i) x.push_back(std::floor(random() * 8)), y.push_back(std::floor(random() * 8));
    x[3] = NAN;
    for (const Goal x_goal : {Goal::minimise, Goal::maximise})
      for (const Goal y_goal : {Goal::minimise, Goal::maximise}) {
        const double a = x_goal == Goal::minimise ? 1 : -1, b = y_goal == Goal::minimise ? 1 : -1;
        std::vector<bool> expected(x.size());
        std::size_t count = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
          bool beaten = std::isnan(x[i]) || std::isnan(y[i]);
          for (std::size_t j = 0; j < x.size(); ++j)
            beaten |= a * x[j] <= a * x[i] && b * y[j] <= b * y[i] && (x[j] != x[i] || y[j] != y[i]);
          expected[i] = !beaten;
          count += !beaten;
        }
        const auto front = pareto_front(x, y, x_goal, y_goal);
        ASSERT_EQ(front.size(), count);
        for (std::size_t k = 0; k < front.size(); ++k) {
          EXPECT_TRUE(expected[front[k]]);
          if (k > 0) {
            EXPECT_LE(x[front[k - 1]], x[front[k]]);
          }
        }
      }
  }
}

TEST(Statistics, StaircaseBendsOnTheBeatenSide) {
  const std::vector<double> x{1, 2, 4, 4}, y{5, 3, 1, 1};
  EXPECT_EQ(pareto_staircase(x, y, Goal::minimise, Goal::minimise),
            (std::vector<FrontPoint>{{1, 5}, {2, 5}, {2, 3}, {4, 3}, {4, 1}}));
  const std::vector<double> speed{10, 20, 40}, loss{1, 2, 3};  // faster is better, lower is better
  EXPECT_EQ(pareto_staircase(speed, loss, Goal::maximise, Goal::minimise),
            (std::vector<FrontPoint>{{10, 1}, {10, 2}, {20, 2}, {20, 3}, {40, 3}}));
  EXPECT_TRUE(pareto_staircase({}, {}, Goal::minimise, Goal::minimise).empty());
}

}  // namespace
}  // namespace rat
