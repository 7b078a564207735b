// rms_norm, rope, gelu, gates, cross-entropy, embedding and AdamW against float64 formulas and their differences.
#include "kernels/adamw/adamw.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gating/gating.h"
#include "kernels/gelu/gelu.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"

namespace rat::kernels {
namespace {

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

TEST(RmsNorm, ForwardAndBackward) {
  test::for_each_simd_target([] {
    for (const auto& [N, D] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 7}, {5, 16}, {4, 33}}) {
      const auto x = test::uniform(size(N * D), 1), weight = test::uniform(size(D), 2, 0.5f, 1.5f);
      const auto grad_y = test::uniform(x.size(), 3);
      auto y = test::poison(x.size()), grad_x = test::poison(x.size());
      std::vector<float> grad_weight(weight.size(), 0.0f);
      ASSERT_OK(rms_norm({.x = {x.data(), N, D}, .weight = weight, .y = {y.data(), N, D}}, {}));
      EXPECT_TRUE(test::close(y, test::rms_norm(test::widen(x), test::widen(weight)), 2e-6));
      RmsNormBackwardArgs args{.x = {x.data(), N, D},
                               .weight = weight,
                               .grad_y = {grad_y.data(), N, D},
                               .grad_x = {grad_x.data(), N, D},
                               .grad_weight = grad_weight};
      ASSERT_OK(rms_norm_backward(args, {}));
      const auto loss = [&](const test::Values& a, const test::Values& w) {
        return test::dot(test::rms_norm(a, w), test::widen(grad_y));
      };
      const auto want_x =
          test::numeric_gradient(test::widen(x), [&](const auto& a) { return loss(a, test::widen(weight)); });
      const auto want_w =
          test::numeric_gradient(test::widen(weight), [&](const auto& w) { return loss(test::widen(x), w); });
      // 1 / rms of a row may be large when D is small; errors scale with it.
      EXPECT_TRUE(test::close(grad_x, want_x, D == 1 ? 1e-3 : 2e-5));
      EXPECT_TRUE(test::close(grad_weight, want_w, 1e-5));
      args.add_grad_x = true;
      ASSERT_OK(rms_norm_backward(args, {}));
      for (std::size_t i = 0; i < grad_x.size(); ++i) EXPECT_NEAR(grad_x[i], 2 * want_x[i], D == 1 ? 2e-3 : 4e-5);
    }
  });
}

TEST(Rope, RotatesHalvesByPositionAndBack) {
  test::for_each_simd_target([] {
    const int64_t P = 10, heads = 3, T = 7, B = 2, W = heads * P, L = 2, first = 5;
    RopeTable table(P, 10000.0);
    table.ensure(10);
    const auto x = test::uniform(size(B * T * W), 1);
    auto y = test::poison(x.size());
    ASSERT_OK(rope({.x = {x.data(), B * T, W},
                    .y = {y.data(), B * T, W},
                    .table = &table,
                    .tokens = T,
                    .chunk_len = L,
                    .first = first},
                   {}));
    test::Values want(x.size());
    for (int64_t row = 0; row < B * T; ++row)
      for (int64_t c = 0; c < W; ++c) {
        const int64_t j = c % P, position = (first + row % T) / L;
        const double angle =
            static_cast<double>(position) / std::pow(10000.0, static_cast<double>(j % (P / 2)) * 2.0 / P);
        const double other = x[size(row * W + (j < P / 2 ? c + P / 2 : c - P / 2))] * (j < P / 2 ? -1.0 : 1.0);
        want[size(row * W + c)] = x[size(row * W + c)] * std::cos(angle) + other * std::sin(angle);
      }
    EXPECT_TRUE(test::close(y, want, 5e-7));
    std::vector<float> back(x.size(), 1.0f);
    ASSERT_OK(rope({.x = {y.data(), B * T, W},
                    .y = {back.data(), B * T, W},
                    .table = &table,
                    .tokens = T,
                    .chunk_len = L,
                    .first = first,
                    .inverse = true,
                    .add = true},
                   {}));
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i] + 1.0f, 1e-6);
    EXPECT_FALSE(
        rope({.x = {x.data(), B * T, W}, .y = {y.data(), B * T, W}, .table = &table, .tokens = T, .first = 9}, {}));
  });
}

TEST(Gelu, IsExactOverTheWholeRange) {
  test::for_each_simd_target([] {
    std::vector<float> x;
    for (float v = -12; v <= 12; v += 0.00371f) x.push_back(v);
    x.insert(x.end(), {-1e30f, -100.0f, 0.0f, 1e-20f, 100.0f, 1e30f});
    auto y = test::poison(x.size()), again = test::poison(x.size());
    std::vector<float> grad(x.size(), 1.0f);
    const auto n = static_cast<int64_t>(x.size());
    ASSERT_OK(gelu({{x.data(), 1, n}, {y.data(), 1, n}}, {}));
    ASSERT_OK(gelu_backward({{x.data(), 1, n}, {again.data(), 1, n}, {grad.data(), 1, n}}, {}));
    EXPECT_EQ(y, again);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double v = x[i];
      // Phi has an absolute error of about 1e-7, and x multiplies it; far out the product is exact or 0.
      EXPECT_NEAR(y[i], test::gelu(v), 2e-7 * std::max(1.0, std::abs(v))) << v;
      const double slope = std::erfc(-v / std::sqrt(2.0)) / 2 + v * std::exp(-v * v / 2) / std::sqrt(2 * M_PI);
      EXPECT_NEAR(grad[i], slope, 5e-7) << v;
    }
    std::vector<float> bad{std::numeric_limits<float>::quiet_NaN()};
    ASSERT_OK(gelu({{bad.data(), 1, 1}, {bad.data(), 1, 1}}, {}));
    EXPECT_TRUE(std::isnan(bad[0]));
  });
}

TEST(Gating, SigmoidAndGateGradients) {
  test::for_each_simd_target([] {
    const int64_t N = 5, D = 19;
    auto x = test::uniform(size(N * D), 1, -8, 8);
    const auto raw = test::widen(x);
    const auto bias = test::uniform(size(D), 2), y = test::uniform(x.size(), 3), grad = test::uniform(x.size(), 4);
    ASSERT_OK(sigmoid({{x.data(), N, D}, bias}, {}));
    const auto gate = [&](const test::Values& in, std::size_t i) {
      return 1 / (1 + std::exp(-in[i] - bias[i % size(D)]));
    };
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], gate(raw, i), 2e-7);
    auto mixed = test::poison(x.size()), grad_y = test::poison(x.size()), grad_gate = test::poison(x.size());
    ASSERT_OK(output_gate({{x.data(), N, D}, {y.data(), N, D}, {mixed.data(), N, D}}, {}));
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_FLOAT_EQ(mixed[i], x[i] * y[i]);
    ASSERT_OK(output_gate_backward(
        {{x.data(), N, D}, {y.data(), N, D}, {grad.data(), N, D}, {grad_y.data(), N, D}, {grad_gate.data(), N, D}},
        {}));
    const auto want = test::numeric_gradient(raw, [&](const test::Values& in) {
      double sum = 0;
      for (std::size_t i = 0; i < in.size(); ++i)
        sum += gate(in, i) * static_cast<double>(y[i]) * static_cast<double>(grad[i]);
      return sum;
    });
    EXPECT_TRUE(test::close(grad_gate, want, 1e-6));
    std::vector<float> direct = grad;
    std::vector<float> grad_bias(size(D), 1.0f);
    ASSERT_OK(gate_gradient({{x.data(), N, D}, {direct.data(), N, D}, grad_bias}, {}));
    for (std::size_t d = 0; d < size(D); ++d) {
      double sum = 1;
      for (std::size_t i = d; i < x.size(); i += size(D)) {
        const double g = gate(raw, i), expected = static_cast<double>(grad[i]) * g * (1 - g);
        EXPECT_NEAR(direct[i], expected, 1e-6);
        sum += expected;
      }
      EXPECT_NEAR(grad_bias[d], sum, 5e-6);
    }
    std::vector<float> extreme{-1000, 1000, std::numeric_limits<float>::quiet_NaN()};
    ASSERT_OK(sigmoid({{extreme.data(), 1, 3}, {}}, {}));
    EXPECT_NEAR(extreme[0], 0, 1e-37);
    EXPECT_EQ(extreme[1], 1);
    EXPECT_TRUE(std::isnan(extreme[2]));
  });
}

TEST(CrossEntropy, LossGradientAndIgnoredRows) {
  test::for_each_simd_target([] {
    const int64_t N = 6, V = 29;
    auto logits = test::uniform(size(N * V), 1, -5, 5);
    logits[3] = 90;  // one dominant logit
    const auto raw = test::widen(logits);
    const std::vector<int32_t> targets{3, -1, 0, 28, 7, 9};
    CrossEntropySums sums;
    const auto loss = [&](const test::Values& x) {
      double sum = 0;
      for (std::size_t i = 0; i < targets.size(); ++i)
        if (targets[i] >= 0) sum += test::cross_entropy(x, i * size(V), size(V), size(targets[i]));
      return sum;
    };
    ASSERT_OK(cross_entropy({.logits = {logits.data(), N, V}, .targets = targets, .sums = &sums}, {}));
    EXPECT_NEAR(sums.loss, loss(raw), 1e-5);
    EXPECT_EQ(sums.targets, 5);
    EXPECT_GE(sums.correct, 1);
    EXPECT_TRUE(test::close(logits, raw, 0));  // no gradient asked for: untouched
    ASSERT_OK(
        cross_entropy({.logits = {logits.data(), N, V}, .targets = targets, .grad_scale = 0.5f, .sums = &sums}, {}));
    const auto want = test::numeric_gradient(raw, [&](const auto& x) { return 0.5 * loss(x); });
    EXPECT_TRUE(test::close(logits, want, 1e-6));
    std::vector<float> tie{1, 2, 2};
    CrossEntropySums second;
    ASSERT_OK(cross_entropy({.logits = {tie.data(), 1, 3}, .targets = std::vector<int32_t>{2}, .sums = &second}, {}));
    EXPECT_EQ(second.correct, 0);  // the first of the largest is 1
    EXPECT_FALSE(
        cross_entropy({.logits = {tie.data(), 1, 3}, .targets = std::vector<int32_t>{3}, .sums = &second}, {}));
  });
}

TEST(Embedding, LooksUpAndAddsRepeatedTokens) {
  const int64_t V = 5, D = 70;
  const auto table = test::uniform(size(V * D), 1);
  const std::vector<int32_t> ids{4, 0, 4};
  auto out = test::poison(size(3 * D));
  ASSERT_OK(embedding({ids, {table.data(), V, D}, {out.data(), 3, D}}, {}));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i], table[size(ids[i / size(D)] * D) + i % size(D)]);
  std::vector<float> grad(table.size(), 1.0f);
  ASSERT_OK(embedding_backward({ids, {out.data(), 3, D}, {grad.data(), V, D}}, {}));
  EXPECT_FLOAT_EQ(grad[size(4 * D)], 1 + 2 * table[size(4 * D)]);
  EXPECT_EQ(grad[size(2 * D)], 1);
  const std::vector<uint16_t> rounded(size(3 * D));
  const Status refused = embedding_backward({ids, {out.data(), 3, D}, {grad.data(), V, D}, rounded.data()}, {});
  ASSERT_FALSE(refused);  // the CPU's halves of blocks hand on f32
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_FALSE(embedding({std::vector<int32_t>{5}, {table.data(), V, D}, {out.data(), 1, D}}, {}));
  EXPECT_FALSE(embedding({std::vector<int32_t>{-1}, {table.data(), V, D}, {out.data(), 1, D}}, {}));
}

TEST(AdamW, ThreeStepsMatchFloat64) {
  test::for_each_simd_target([] {
    const std::size_t n = 37;
    auto value = test::uniform(n, 1);
    std::vector<float> m(n, 0.0f), v(n, 0.0f);
    test::Values p = test::widen(value), pm(n, 0.0), pv(n, 0.0);
    const double clips[] = {0.5, 1e3, 0.0};
    double squares = 0;
    for (int step = 1; step <= 3; ++step) {
      const auto grad = test::uniform(n, size(10 + step));
      const double c1 = 1 - std::pow(0.9, step), c2 = 1 - std::pow(0.95, step);
      const AdamWTensor tensor{value, grad, m, v};
      ASSERT_OK(adamw({.tensors = {&tensor, 1},
                       .lr = 0.01,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .eps = 1e-8,
                       .weight_decay = 0.1,
                       .correction1 = c1,
                       .correction2 = c2,
                       .clip = clips[step - 1],
                       .squared_norm = &squares},
                      {}));
      const double norm = std::sqrt(test::dot(test::widen(grad), test::widen(grad)));
      EXPECT_NEAR(squares, norm * norm, 1e-5);
      const double scale = clips[step - 1] == 0 ? 1.0 : std::min(1.0, clips[step - 1] / (norm + 1e-6));
      EXPECT_EQ(scale < 1, step == 1) << norm;
      for (std::size_t i = 0; i < n; ++i) {
        const double g = scale * static_cast<double>(grad[i]);
        pm[i] = 0.9 * pm[i] + 0.1 * g;
        pv[i] = 0.95 * pv[i] + 0.05 * g * g;
        p[i] -= 0.01 * (pm[i] / c1 / (std::sqrt(pv[i] / c2) + 1e-8) + 0.1 * p[i]);
      }
      EXPECT_TRUE(test::close(value, p, 1e-6));
    }
  });
}

TEST(AdamW, ChangesNothingWhereTheGradientIsNotFinite) {
  test::for_each_simd_target([] {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30f}) {
      auto value = test::uniform(40, 1), other = test::uniform(3, 2), m = test::uniform(40, 3), v = test::uniform(40, 4);
      auto grad = test::uniform(40, 5);
      grad[38] = bad;  // the square of the last is too large
      const auto want = std::tuple(value, other, m, v);
      const AdamWTensor tensors[] = {{other, std::span(grad).first(3), std::span(m).first(3), std::span(v).first(3)},
                                     {value, grad, m, v}};
      double squares = 0;
      ASSERT_OK(adamw({.tensors = tensors, .lr = 0.1, .eps = 1e-8, .weight_decay = 0.1, .squared_norm = &squares}, {}));
      EXPECT_FALSE(std::isfinite(squares));
      EXPECT_EQ(std::tuple(value, other, m, v), want);
    }
  });
}

}  // namespace
}  // namespace rat::kernels
