#include "kernels/gated_scan/gated_scan.h"

#include "tests/support/compare.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"

namespace rat::kernels {
namespace {

struct Case {
  int64_t B, T, D, W, L;
};

const std::vector<Case> cases{{1, 1, 1, 1, 1},   {2, 7, 13, 13, 3},    {1, 5, 6, 2, 16},   {2, 64, 34, 17, 64},
                              {3, 17, 12, 4, 1}, {1, 33, 260, 130, 8}, {2, 70, 8, 8, 1000}};

TEST(GatedScan, MatchesTheUnrolledSum) {
  test::for_each_simd_target([] {
    for (const Case& c : cases) {
      const int64_t rows = c.B * c.T;
      const auto gate = test::uniform(static_cast<std::size_t>(rows * c.D), 1, 0, 1);
      const auto input = test::uniform(static_cast<std::size_t>(rows * c.W), 2);
      auto state = test::poison(gate.size());
      ASSERT_OK(
          gated_scan({{gate.data(), rows, c.D}, {input.data(), rows, c.W}, {state.data(), rows, c.D}, c.T, c.L}, {}));
      // |input| <= 1 keeps |state| <= 1. One step rounds by at most (2 (1 - gate) + gate + 1) u <= 3 u and a gate <= 1
      // never enlarges an old error: 3 L u; 4 leaves room for second-order terms. u = 2^-24.
      const double bound = 4.0 * static_cast<double>(std::min(c.L, c.T)) * 0x1p-24;
      EXPECT_TRUE(
          test::close(state, test::scan(test::widen(gate), test::widen(input), rows, c.T, c.D, c.W, c.L), bound))
          << "T " << c.T << " D " << c.D << " L " << c.L;
    }
  });
}

TEST(GatedScan, BackwardMatchesFiniteDifferences) {
  test::for_each_simd_target([] {
    for (const Case& c : cases) {
      if (c.T * c.D > 300) continue;  // differences cost a whole forward per value
      const int64_t rows = c.B * c.T;
      const auto gate = test::uniform(static_cast<std::size_t>(rows * c.D), 1, 0, 1);
      const auto input = test::uniform(static_cast<std::size_t>(rows * c.W), 2);
      const auto grad_state = test::uniform(gate.size(), 3);
      auto state = test::poison(gate.size()), grad_input = test::poison(input.size()),
           grad_gate = test::poison(gate.size());
      ASSERT_OK(
          gated_scan({{gate.data(), rows, c.D}, {input.data(), rows, c.W}, {state.data(), rows, c.D}, c.T, c.L}, {}));
      GatedScanBackwardArgs args{.gate = {gate.data(), rows, c.D},
                                 .input = {input.data(), rows, c.W},
                                 .state = {state.data(), rows, c.D},
                                 .grad_state = {grad_state.data(), rows, c.D},
                                 .grad_input = {grad_input.data(), rows, c.W},
                                 .grad_gate = {grad_gate.data(), rows, c.D},
                                 .tokens = c.T,
                                 .chunk_len = c.L};
      ASSERT_OK(gated_scan_backward(args, {}));
      const auto loss = [&](const test::Values& g, const test::Values& u) {
        return test::dot(test::scan(g, u, rows, c.T, c.D, c.W, c.L), test::widen(grad_state));
      };
      const auto g = test::widen(gate), u = test::widen(input);
      const auto want_input = test::numeric_gradient(u, [&](const test::Values& x) { return loss(g, x); });
      const auto want_gate = test::numeric_gradient(g, [&](const test::Values& x) { return loss(x, u); });
      // carried stays below 1 + g + g^2 ... <= L; rounding of L steps and of D / W summed channels.
      const double bound = 1e-5 * static_cast<double>(std::min(c.L, c.T)) + 1e-5;
      EXPECT_TRUE(test::close(grad_input, want_input, bound));
      EXPECT_TRUE(test::close(grad_gate, want_gate, bound));
      args.add_grad_gate = true;
      ASSERT_OK(gated_scan_backward(args, {}));
      test::Values twice = want_gate;
      for (double& value : twice) value *= 2;
      EXPECT_TRUE(test::close(grad_gate, twice, 2 * bound));
    }
  });
}

TEST(GatedScan, RefusesWrongShapes) {
  std::vector<float> x(64);
  const Rows<const float> six(x.data(), 4, 6), four(x.data(), 4, 4);
  const Status width = gated_scan({six, four, {x.data(), 4, 6}, 4, 2}, {});
  ASSERT_FALSE(width);
  EXPECT_NE(width.error().message.find("input width 4"), std::string::npos);
  EXPECT_FALSE(gated_scan({six, six, {x.data(), 4, 6}, 4, 0}, {}));
  EXPECT_FALSE(gated_scan({six, six, {x.data(), 4, 6}, 3, 2}, {}));
  EXPECT_FALSE(gated_scan({six, six, {x.data(), 3, 6}, 4, 2}, {}));
}

}  // namespace
}  // namespace rat::kernels
