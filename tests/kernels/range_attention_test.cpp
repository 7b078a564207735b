#include "kernels/range_attention/range_attention.h"

#include "tests/support/compare.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"
#include "tests/support/simd_targets.h"

namespace rat::kernels {
namespace {

using test::AttentionCase;

// B, T, H, P, W, K, chunk, offset, window, own
const std::vector<AttentionCase> cases{{1, 1, 1, 2, 2, 1},                      // attention, one token
                                       {2, 13, 3, 4, 12, 13},                   // attention
                                       {1, 150, 2, 6, 12, 150},                 // several blocks of query rows
                                       {2, 11, 2, 4, 8, 11, 1, 1, 0},           // window 0: own token only
                                       {1, 140, 2, 4, 8, 140, 1, 1, 9},         // window
                                       {1, 5, 1, 4, 4, 5, 1, 1, 100},           // window > T
                                       {2, 11, 6, 4, 12, 3, 3, 0, -1, true},    // RAT: G = 3, H = 6, ragged last chunk
                                       {1, 9, 4, 2, 4, 8, 1, 0, -1, true},      // RAT with L = 1
                                       {1, 5, 2, 4, 8, 0, 16, 0, -1, true},     // RAT with T < L: only the own key
                                       {1, 300, 2, 4, 4, 99, 3, 0, -1, true},   // RAT, several blocks
                                       // RAT+ with dilation and initial tokens; the last number is key/value heads
                                       {2, 17, 2, 4, 8, 17, 1, 1, 0, false, 4, 0},
                                       {1, 19, 3, 4, 12, 19, 1, 1, 3, false, 4, 2},
                                       {1, 18, 1, 4, 4, 18, 1, 1, 2, false, 5, 7},
                                       {1, 12, 2, 4, 8, 12, 1, 1, 1, false, 100, 0},
                                       {1, 12, 2, 4, 8, 12, 1, 1, 30, false, 4, 3},
                                       {1, 11, 1, 4, 4, 11, 1, 1, 2, false, 3, 4},
                                       {1, 1300, 1, 4, 4, 1300, 1, 1, 70, false, 2, 90},
                                       // shared keys and values
                                       {2, 13, 6, 4, 24, 13, 1, 1, -1, false, 0, 0, 2},
                                       {1, 150, 4, 4, 16, 150, 1, 1, 20, false, 0, 0, 1},
                                       {1, 14, 4, 2, 8, 14, 1, 1, 2, false, 3, 1, 2}};

struct Data {
  std::vector<float> q, k, v, own_q, own_k, own_v, out, lse;
  RangeAttentionArgs args;

  explicit Data(const AttentionCase& c) {
    const int64_t D = c.H * c.P, rows = c.B * c.T;
    const auto fill = [](int64_t n, uint64_t seed) {
      return test::uniform(static_cast<std::size_t>(n), seed, -1.5f, 1.5f);
    };
    q = fill(rows * c.W, 1);
    k = fill(std::max<int64_t>(1, c.B * c.K) * c.kv_width(), 2);
    v = fill(std::max<int64_t>(1, c.B * c.K) * c.kv_width(), 3);
    own_q = fill(rows * c.W, 4), own_k = fill(rows * D, 5), own_v = fill(rows * D, 6);
    out = test::poison(static_cast<std::size_t>(rows * D)), lse = test::poison(static_cast<std::size_t>(rows * c.H));
    const int64_t kv = c.kv_width();
    args.shape = {c.B, c.T, c.H, c.P, c.K, {c.chunk, c.offset, c.window}, kv};
    args.q = {q.data(), rows, c.W};
    args.k = {k.data(), kv, c.K * kv};
    args.v = {v.data(), kv, c.K * kv};
    if (c.dilation > 0) {
      args.more_count = 2;
      const auto every = [&](const float* data) {
        return Sequences<const float>{data + (c.dilation - 1) * kv, c.dilation * kv, c.K * kv};
      };
      args.more[0] = {c.K / c.dilation, KeyRange::dilated(c.dilation, c.window, c.initial), every(k.data()),
                      every(v.data()),  c.dilation - 1,                                     c.dilation};
      args.more[1] = {std::min(c.K, c.initial), KeyRange::before_window(c.window, c.initial), args.k, args.v, 0, 1};
    }
    if (c.own) {
      args.own_q = {own_q.data(), rows, c.W};
      args.own_k = {own_k.data(), rows, D};
      args.own_v = {own_v.data(), rows, D};
    }
    args.out = {out.data(), rows, D};
    args.lse = {lse.data(), c.B * c.H, c.T};
  }
  test::AttentionInputs wide() const {
    return {test::widen(q), test::widen(k), test::widen(v), test::widen(own_q), test::widen(own_k), test::widen(own_v)};
  }
};

// Scores are at most P 1.5^2 / sqrt P < 6 and sums run over at most 300 terms: 1e-5 is about 100 roundings.
constexpr double bound = 1e-5;

TEST(RangeAttention, ForwardMatchesExplicitMask) {
  test::for_each_simd_target([] {
    for (const AttentionCase& c : cases) {
      Data data(c);
      ASSERT_OK(range_attention(data.args, {}));
      test::Values lse;
      EXPECT_TRUE(test::close(data.out, test::attention(c, data.wide(), nullptr, &lse), bound)) << c.T;
      EXPECT_TRUE(test::close(data.lse, lse, bound));
    }
  });
}

TEST(RangeAttention, WeightsAreThoseOfForwardAndNanWhereMasked) {
  for (const AttentionCase& c : cases) {
    Data data(c);
    const int64_t cols = c.K + (c.own ? 1 : 0), rows = c.B * c.H * c.T;
    auto weights = test::uniform(static_cast<std::size_t>(rows * cols), 9);
    ASSERT_OK(attention_weights({data.args, {weights.data(), rows, cols}}, {}));
    test::Values want;
    test::attention(c, data.wide(), &want);
    ASSERT_EQ(want.size(), weights.size());
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) {
        const auto at = static_cast<std::size_t>(i * cols + j);
        const bool masked = j < c.K && !c.sees(i % c.T, j);
        EXPECT_EQ(std::isnan(weights[at]), masked);
        if (!masked) {
          EXPECT_NEAR(weights[at], want[at], bound);
        }
      }
  }
}

TEST(RangeAttention, BackwardMatchesFiniteDifferences) {
  test::for_each_simd_target([] {
    for (const AttentionCase& c : cases) {
      if (c.T > 14) continue;  // differences cost a whole forward per value
      Data data(c);
      const int64_t D = c.H * c.P, rows = c.B * c.T;
      ASSERT_OK(range_attention(data.args, {}));
      const auto grad_out = test::uniform(data.out.size(), 7);
      auto grad_q = test::poison(data.q.size()), grad_own_q = test::poison(data.q.size());
      auto grad_own_k = test::poison(data.out.size()), grad_own_v = test::poison(data.out.size());
      std::vector<float> grad_k(data.k.size(), 0.0f), grad_v(data.v.size(), 0.0f);
      const int64_t kv = c.kv_width();
      RangeAttentionBackwardArgs args{data.args,
                                      {grad_out.data(), rows, D},
                                      {grad_q.data(), rows, c.W},
                                      {grad_k.data(), kv, c.K * kv},
                                      {grad_v.data(), kv, c.K * kv},
                                      {},
                                      {},
                                      {}};
      const auto every = [&](float* grad) {
        return Sequences<float>{grad + (c.dilation - 1) * kv, c.dilation * kv, c.K * kv};
      };
      if (c.dilation > 0) args.more = {{{every(grad_k.data()), every(grad_v.data())}, {args.grad_k, args.grad_v}}};
      if (c.own) {
        args.grad_own_q = {grad_own_q.data(), rows, c.W};
        args.grad_own_k = {grad_own_k.data(), rows, D};
        args.grad_own_v = {grad_own_v.data(), rows, D};
      }
      ASSERT_OK(range_attention_backward(args, {}));
      const auto check = [&](const std::vector<float>& actual, test::Values test::AttentionInputs::*which) {
        test::AttentionInputs in = data.wide();
        const auto want = test::numeric_gradient(in.*which, [&](const test::Values& x) {
          in.*which = x;
          return test::dot(test::attention(c, in), test::widen(grad_out));
        });
        EXPECT_TRUE(test::close(actual, want, 2e-5)) << "T " << c.T << " own " << c.own;
      };
      check(grad_q, &test::AttentionInputs::q);
      if (c.K > 0) check(grad_k, &test::AttentionInputs::k), check(grad_v, &test::AttentionInputs::v);
      if (!c.own) continue;
      check(grad_own_q, &test::AttentionInputs::own_q);
      check(grad_own_k, &test::AttentionInputs::own_k);
      check(grad_own_v, &test::AttentionInputs::own_v);
    }
  });
}

TEST(RangeAttention, HugeAndEqualScoresStayFinite) {
  const AttentionCase c{1, 9, 1, 4, 4, 9};
  Data data(c);
  for (float& q : data.q) q = 0;
  ASSERT_OK(range_attention(data.args, {}));
  EXPECT_TRUE(test::close(data.out, test::attention(c, data.wide()), bound));  // equal weights
  for (float& q : data.q) q = 400;
  ASSERT_OK(range_attention(data.args, {}));
  for (const float value : data.out) EXPECT_TRUE(std::isfinite(value));
  data.k[0] = std::numeric_limits<float>::quiet_NaN();  // must be seen, not swallowed
  ASSERT_OK(range_attention(data.args, {}));
  EXPECT_TRUE(std::isnan(data.out.back()));
}

TEST(AttendOne, EqualsTheLastRowOfForward) {
  for (const AttentionCase& c :
       {AttentionCase{1, 21, 3, 4, 12, 21}, AttentionCase{1, 22, 6, 4, 12, 7, 3, 0, -1, true}}) {
    Data data(c);
    ASSERT_OK(range_attention(data.args, {}));
    const int64_t D = c.H * c.P, last = c.T - 1;
    auto out = test::poison(static_cast<std::size_t>(D));
    AttendOneArgs one{.heads = c.H,
                      .q = data.args.q.row_range(last, 1),
                      .k = {data.k.data(), c.K, D},
                      .v = {data.v.data(), c.K, D},
                      .own_q = {},
                      .own_k = {},
                      .own_v = {},
                      .out = {out.data(), 1, D}};
    if (c.own) {
      one.own_q = data.args.own_q.row_range(last, 1);
      one.own_k = data.args.own_k.row_range(last, 1);
      one.own_v = data.args.own_v.row_range(last, 1);
    }
    ASSERT_OK(attend_one(one, {}));
    EXPECT_TRUE(test::close(out, std::vector<float>(data.out.end() - D, data.out.end()), 1e-5));
  }
}

// Sequences side by side, key j of sequence b in row j B + b, to the bit as each by itself.
TEST(AttendOne, SequencesOfABatchAreEachAsAlone) {
  constexpr int64_t B = 3, H = 4, P = 8, D = H * P;
  for (const auto& [keys, query_width, kv, own] :
       {std::tuple{int64_t{0}, D, D, true}, std::tuple{int64_t{5}, 2 * P, D, true},
        std::tuple{int64_t{900}, D, 2 * P, false}}) {
    const auto values = [](int64_t n, uint64_t seed) { return test::uniform(static_cast<std::size_t>(n), seed); };
    const auto q = values(B * query_width, 1), k = values(keys * B * kv, 2), v = values(keys * B * kv, 3);
    const auto own_q = values(B * query_width, 4), own_k = values(B * D, 5), own_v = values(B * D, 6);
    auto together = test::poison(static_cast<std::size_t>(B * D)), alone = together;
    AttendOneArgs args{.heads = H,
                       .q = {q.data(), B, query_width},
                       .k = {k.data(), keys * B, kv},
                       .v = {v.data(), keys * B, kv},
                       .own_q = {},
                       .own_k = {},
                       .own_v = {},
                       .out = {together.data(), B, D}};
    if (own) args.own_q = {own_q.data(), B, query_width};
    if (own) args.own_k = {own_k.data(), B, D}, args.own_v = {own_v.data(), B, D};
    ASSERT_OK(attend_one(args, {}));
    for (int64_t b = 0; b < B; ++b) {
      AttendOneArgs one = args;
      one.q = args.q.row_range(b, 1), one.out = {alone.data() + b * D, 1, D};
      one.k = {k.data() + b * kv, keys, kv, B * kv}, one.v = {v.data() + b * kv, keys, kv, B * kv};
      if (own) one.own_q = args.own_q.row_range(b, 1);
      if (own) one.own_k = args.own_k.row_range(b, 1), one.own_v = args.own_v.row_range(b, 1);
      ASSERT_OK(attend_one(one, {}));
    }
    EXPECT_EQ(together, alone) << keys;
    if (keys == 0) continue;
    args.k.rows = args.v.rows = keys * B - 1;  // one sequence would have fewer
    EXPECT_FALSE(attend_one(args, {}));
  }
}

TEST(RangeAttention, RefusesWrongShapes) {
  Data data({2, 13, 3, 4, 12, 13});
  auto args = data.args;
  args.shape.keys = 12;
  EXPECT_FALSE(range_attention(args, {}));
  args = data.args;
  args.q.cols = 7;
  EXPECT_FALSE(range_attention(args, {}));
  args = data.args;
  args.shape.range.offset = 0;  // token 0 would see nothing
  EXPECT_FALSE(range_attention(args, {}));
}

}  // namespace
}  // namespace rat::kernels
