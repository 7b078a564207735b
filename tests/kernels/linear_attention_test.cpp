#include "kernels/linear_attention/linear_attention.h"

#include "kernels/base/parallel.h"
#include "kernels/head_norm/head_norm.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"

namespace rat::kernels {
namespace {

struct Case {
  int64_t B, T, H, P, KV, shift;  // KV: heads of keys and values
  int64_t channels() const { return H * P; }
  int64_t kv() const { return KV * P; }
};

const std::vector<Case> cases{{1, 1, 1, 2, 1, 0},   {2, 9, 3, 4, 3, 0},   {1, 130, 2, 5, 2, 0},  {1, 7, 2, 4, 2, 3},
                              {1, 6, 1, 4, 1, 6},   {1, 6, 1, 4, 1, 100}, {1, 9, 4, 3, 2, 2},    {3, 64, 1, 4, 1, 0},
                              {1, 700, 1, 4, 1, 65}, {1, 400, 6, 2, 2, 1}, {2, 10, 2, 2, 1, 1}};

struct Inputs {
  test::Values q, k, v;
};

// phi of one head of one row.
test::Values features(const test::Values& x, std::size_t at, int64_t P) {
  test::Values phi;
  for (const double sign : {1.0, -1.0}) {
    double sum = 0;
    for (int64_t p = 0; p < P; ++p) sum += std::exp(sign * x[at + static_cast<std::size_t>(p)]);
    for (int64_t p = 0; p < P; ++p) phi.push_back(std::exp(sign * x[at + static_cast<std::size_t>(p)]) / sum);
  }
  return phi;
}

// The sum over pairs, as the definition has it.
test::Values reference(const Case& c, const Inputs& in) {
  test::Values out(static_cast<std::size_t>(c.B * c.T * c.channels()));
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h) {
      std::vector<test::Values> keys;
      const auto kv_at = [&](int64_t i) { return static_cast<std::size_t>((b * c.T + i) * c.kv() + h * c.P % c.kv()); };
      for (int64_t i = 0; i < c.T; ++i) keys.push_back(features(in.k, kv_at(i), c.P));
      for (int64_t t = 0; t < c.T; ++t) {
        const auto at = static_cast<std::size_t>((b * c.T + t) * c.channels() + h * c.P);
        const test::Values query = features(in.q, at, c.P);
        for (int64_t i = 0; i <= t - c.shift; ++i) {
          const double weight = test::dot(query, keys[static_cast<std::size_t>(i)]);
          for (std::size_t p = 0; p < static_cast<std::size_t>(c.P); ++p) out[at + p] += weight * in.v[kv_at(i) + p];
        }
      }
    }
  return out;
}

struct Data {
  std::vector<float> q, k, v, out;
  LinearAttentionArgs args;

  explicit Data(const Case& c) {
    const int64_t rows = c.B * c.T;
    q = test::uniform(static_cast<std::size_t>(rows * c.channels()), 1, -2, 2);
    k = test::uniform(static_cast<std::size_t>(rows * c.kv()), 2, -2, 2);
    v = test::uniform(static_cast<std::size_t>(rows * c.kv()), 3, -2, 2);
    out = test::poison(q.size());
    args = {.tokens = c.T,
            .heads = c.H,
            .head_size = c.P,
            .shift = c.shift,
            .q = {q.data(), rows, c.channels()},
            .k = {k.data(), rows, c.kv()},
            .v = {v.data(), rows, c.kv()},
            .out = {out.data(), rows, c.channels()}};
  }
  Inputs wide() const { return {test::widen(q), test::widen(k), test::widen(v)}; }
};

TEST(LinearAttention, ForwardIsTheSumOverPairs) {
  test::for_each_simd_target([] {
    for (const Case& c : cases) {
      Data data(c);
      ASSERT_OK(linear_attention(data.args, {}));
      EXPECT_TRUE(test::close(data.out, reference(c, data.wide()), 1e-5)) << c.T << " shift " << c.shift;
    }
  });
}

TEST(LinearAttention, BackwardMatchesFiniteDifferencesAndAdds) {
  for (const Case& c : cases) {
    if (c.T > 20) continue;  // differences cost a whole forward per value
    Data data(c);
    const auto grad_out = test::uniform(data.q.size(), 7);
    std::vector<float> grad_q(data.q.size(), 2.0f), grad_k(data.k.size(), 2.0f), grad_v(data.k.size(), 2.0f);
    const int64_t rows = c.B * c.T;
    ASSERT_OK(linear_attention_backward({data.args,
                                         {grad_out.data(), rows, c.channels()},
                                         {grad_q.data(), rows, c.channels()},
                                         {grad_k.data(), rows, c.kv()},
                                         {grad_v.data(), rows, c.kv()}},
                                        {}));
    const auto check = [&](const std::vector<float>& actual, test::Values Inputs::*which) {
      Inputs in = data.wide();
      auto want = test::numeric_gradient(in.*which, [&](const test::Values& x) {
        in.*which = x;
        return test::dot(reference(c, in), test::widen(grad_out));
      });
      for (double& value : want) value += 2.0;
      EXPECT_TRUE(test::close(actual, want, 2e-5)) << "T " << c.T;
    };
    check(grad_q, &Inputs::q), check(grad_k, &Inputs::k), check(grad_v, &Inputs::v);
  }
}

// Long sequences, whose spans start from summed states: against the derivatives of the equations, pair by pair.
TEST(LinearAttention, BackwardOfManyTilesMatchesTheEquations) {
  for (const Case& c : {Case{1, 700, 1, 4, 1, 65}, Case{1, 300, 4, 2, 2, 0}}) {
    Data data(c);
    const Inputs in = data.wide();
    const auto grad_out = test::uniform(data.q.size(), 7);
    const test::Values to_out = test::widen(grad_out);
    std::vector<float> grad_q(data.q.size()), grad_k(data.k.size()), grad_v(data.k.size());
    const int64_t rows = c.T;
    ASSERT_OK(linear_attention_backward({data.args,
                                         {grad_out.data(), rows, c.channels()},
                                         {grad_q.data(), rows, c.channels()},
                                         {grad_k.data(), rows, c.kv()},
                                         {grad_v.data(), rows, c.kv()}},
                                        {}));
    test::Values want_q(grad_q.size()), want_k(grad_k.size()), want_v(grad_v.size());
    const auto P = static_cast<std::size_t>(c.P);
    const auto through_features = [&](const test::Values& phi, const test::Values& to_phi, test::Values& to,
                                      std::size_t at) {
      for (std::size_t half : {std::size_t{0}, P}) {
        double mean = 0;
        for (std::size_t p = 0; p < P; ++p) mean += phi[half + p] * to_phi[half + p];
        for (std::size_t p = 0; p < P; ++p) to[at + p] += (half ? -1 : 1) * phi[half + p] * (to_phi[half + p] - mean);
      }
    };
    for (int64_t h = 0; h < c.H; ++h)
      for (int64_t t = 0; t < c.T; ++t) {
        const auto q_at = static_cast<std::size_t>(t * c.channels() + h * c.P);
        const test::Values query = features(in.q, q_at, c.P);
        test::Values to_query(2 * P);
        for (int64_t i = 0; i <= t - c.shift; ++i) {
          const auto k_at = static_cast<std::size_t>(i * c.kv() + h * c.P % c.kv());
          const test::Values key = features(in.k, k_at, c.P);
          double along = 0;
          for (std::size_t p = 0; p < P; ++p) {
            along += to_out[q_at + p] * in.v[k_at + p];
            want_v[k_at + p] += test::dot(query, key) * to_out[q_at + p];
          }
          test::Values to_key(2 * P);
          for (std::size_t f = 0; f < 2 * P; ++f) to_query[f] += along * key[f], to_key[f] = along * query[f];
          through_features(key, to_key, want_k, k_at);
        }
        through_features(query, to_query, want_q, q_at);
      }
    EXPECT_LE(test::relative_error(grad_q, want_q), 1e-5);
    EXPECT_LE(test::relative_error(grad_k, want_k), 1e-5);
    EXPECT_LE(test::relative_error(grad_v, want_v), 1e-5);
  }
}

TEST(LinearAttention, DoesNotDependOnTheThreadCount) {
  const Case c{1, 700, 2, 4, 2, 3};
  const auto run = [&] {
    Data data(c);
    RAT_CHECK(bool(linear_attention(data.args, {})), "");
    const auto grad_out = test::uniform(data.q.size(), 7);
    for (int i = 0; i < 3; ++i) data.out.insert(data.out.end(), data.q.size(), 0.0f);
    float* grad = data.out.data() + data.q.size();
    const int64_t n = static_cast<int64_t>(data.q.size());
    RAT_CHECK(bool(linear_attention_backward({data.args,
                                              {grad_out.data(), c.T, 8},
                                              {grad, c.T, 8},
                                              {grad + n, c.T, 8},
                                              {grad + 2 * n, c.T, 8}},
                                             {})),
              "");
    return data.out;
  };
  const int before = thread_count();
  set_thread_count(1);
  const auto one = run();
  set_thread_count(5);
  EXPECT_EQ(run(), one);
  set_thread_count(before);
}

TEST(LinearAttention, StateOfAbsorbedTokensAnswersTheLastQuery) {
  const Case c{1, 150, 4, 4, 2, 9};
  Data data(c);
  ASSERT_OK(linear_attention(data.args, {}));
  std::vector<float> state(static_cast<std::size_t>(2 * c.kv() * c.P), 0.0f);
  const int64_t seen = c.T - c.shift;
  for (const auto& [first, count] : {std::pair{int64_t{0}, seen - 1}, std::pair{seen - 1, int64_t{1}}})
    ASSERT_OK(linear_absorb({.head_size = c.P,
                             .k = data.args.k.row_range(first, count),
                             .v = data.args.v.row_range(first, count),
                             .state = {state.data(), 2 * c.kv(), c.P}},
                            {}));
  auto out = test::poison(static_cast<std::size_t>(c.channels()));
  ASSERT_OK(linear_read({.head_size = c.P,
                         .q = data.args.q.row_range(c.T - 1, 1),
                         .state = {state.data(), 2 * c.kv(), c.P},
                         .out = {out.data(), 1, c.channels()}},
                        {}));
  EXPECT_LE(test::relative_error(out, std::span(data.out).last(out.size())), 1e-5);
}

TEST(LinearAttention, StatesOfABatchAreEachAsAlone) {
  for (const int64_t n : {1, 3, 100}) {
    const Case c{4, n, 4, 4, 2, 0};
    Data data(c);
    const int64_t states = 2 * c.kv();
    auto together = test::uniform(static_cast<std::size_t>(c.B * states * c.P), 9), alone = together;
    auto read = test::poison(static_cast<std::size_t>(c.B * c.channels())), read_alone = read;
    const Output state(together.data(), c.B * states, c.P), one(alone.data(), c.B * states, c.P);
    const Output out(read.data(), c.B, c.channels()), out_alone(read_alone.data(), c.B, c.channels());
    const Input last(data.args.q.row(n - 1), c.B, c.channels(), n * data.args.q.stride);  // queries of the last tokens
    ASSERT_OK(linear_absorb({.head_size = c.P, .k = data.args.k, .v = data.args.v, .state = state}, {}));
    ASSERT_OK(linear_read({.head_size = c.P, .q = last, .state = state, .out = out}, {}));
    for (int64_t b = 0; b < c.B; ++b) {
      const Output own = one.row_range(b * states, states);
      ASSERT_OK(linear_absorb({.head_size = c.P,
                               .k = data.args.k.row_range(b * n, n),
                               .v = data.args.v.row_range(b * n, n),
                               .state = own},
                              {}));
      ASSERT_OK(linear_read(
          {.head_size = c.P, .q = last.row_range(b, 1), .state = own, .out = out_alone.row_range(b, 1)}, {}));
    }
    EXPECT_EQ(together, alone) << n;
    EXPECT_EQ(read, read_alone) << n;
    EXPECT_FALSE(linear_read({.head_size = c.P, .q = last, .state = state.row_range(0, states), .out = out}, {}));
    const Input uneven = data.args.k.row_range(0, c.B * n - 1);
    EXPECT_FALSE(linear_absorb({.head_size = c.P, .k = uneven, .v = uneven, .state = state}, {}));
  }
}

TEST(LinearAttention, WeightsAreSharesAndNanWhereUnseen) {
  const Case c{2, 70, 2, 4, 1, 2};
  Data data(c);
  const int64_t rows = c.B * c.H * c.T;
  auto weights = test::poison(static_cast<std::size_t>(rows * c.T));
  ASSERT_OK(linear_weights({data.args, {weights.data(), rows, c.T}}, {}));
  const Inputs in = data.wide();
  const auto at = [&](int64_t b, int64_t h, int64_t t, int64_t i) {
    return weights[static_cast<std::size_t>(((b * c.H + h) * c.T + t) * c.T + i)];
  };
  for (int64_t t = 0; t < c.T; ++t) {
    double sum = 0;
    for (int64_t i = 0; i < c.T; ++i) {
      EXPECT_EQ(std::isnan(at(1, 1, t, i)), i > t - c.shift);
      if (i <= t - c.shift) sum += static_cast<double>(at(1, 1, t, i));
    }
    if (t >= c.shift) {
      EXPECT_NEAR(sum, 1.0, 1e-5);
    }
  }
  const auto row = [&](const test::Values& x, int64_t t, int64_t width, int64_t column) {
    return features(x, static_cast<std::size_t>((c.T + t) * width + column), c.P);
  };
  const double ratio = test::dot(row(in.q, 50, 8, 4), row(in.k, 3, 4, 0)) / test::dot(row(in.q, 50, 8, 4), row(in.k, 9, 4, 0));
  EXPECT_NEAR(at(1, 1, 50, 3) / at(1, 1, 50, 9), ratio, 1e-4);
}

TEST(LinearAttention, RefusesWrongShapes) {
  Data data({1, 9, 4, 3, 2, 2});
  auto args = data.args;
  args.shift = -1;
  EXPECT_FALSE(linear_attention(args, {}));
  args = data.args;
  args.k.cols = 5;
  EXPECT_FALSE(linear_attention(args, {}));
  args = data.args;
  args.tokens = 7;
  EXPECT_FALSE(linear_attention(args, {}));
}

TEST(HeadNorm, ForwardAndBackwardMatchTheFormula) {
  test::for_each_simd_target([] {
    for (const auto& [rows, H, P] : {std::tuple{3, 2, 4}, std::tuple{1, 1, 2}, std::tuple{5, 3, 18}}) {
      const int64_t D = H * P;
      const auto n = static_cast<std::size_t>(rows * D);
      const auto x = test::uniform(n, 1, -2, 2), weight = test::uniform(static_cast<std::size_t>(D), 2, -2, 2);
      const auto grad_y = test::uniform(n, 3);
      const auto formula = [&](const test::Values& in, const test::Values& w) {
        test::Values y;
        for (std::size_t at = 0; at < in.size(); at += static_cast<std::size_t>(P)) {
          const auto slice = [&](const test::Values& from, std::size_t begin) {
            return test::Values(from.begin() + static_cast<std::ptrdiff_t>(begin),
                                from.begin() + static_cast<std::ptrdiff_t>(begin) + P);
          };
          for (const double value : test::rms_norm(slice(in, at), slice(w, at % static_cast<std::size_t>(D)), 1e-8))
            y.push_back(value);
        }
        return y;
      };
      std::vector<float> y(n, 1.0f), grad_x = test::poison(n), grad_weight(static_cast<std::size_t>(D), 1.0f);
      ASSERT_OK(head_norm({.head_size = P, .x = {x.data(), rows, D}, .weight = weight, .y = {y.data(), rows, D},
                           .add = true},
                          {}));
      auto want = formula(test::widen(x), test::widen(weight));
      for (double& value : want) value += 1;
      EXPECT_TRUE(test::close(y, want, 1e-5));
      ASSERT_OK(head_norm_backward({.head_size = P,
                                    .x = {x.data(), rows, D},
                                    .weight = weight,
                                    .grad_y = {grad_y.data(), rows, D},
                                    .grad_x = {grad_x.data(), rows, D},
                                    .grad_weight = grad_weight},
                                   {}));
      const auto loss = [&](const test::Values& in, const test::Values& w) {
        return test::dot(formula(in, w), test::widen(grad_y));
      };
      EXPECT_LE(test::relative_error(grad_x, test::numeric_gradient(test::widen(x), [&](const test::Values& in) {
                  return loss(in, test::widen(weight));
                })),
                1e-5);
      auto to_weight = test::numeric_gradient(test::widen(weight),
                                              [&](const test::Values& w) { return loss(test::widen(x), w); });
      for (double& value : to_weight) value += 1;
      EXPECT_LE(test::relative_error(grad_weight, to_weight), 1e-5);
    }
  });
}

}  // namespace
}  // namespace rat::kernels
