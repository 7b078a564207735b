// Backward attention over several blocks of queries, cut into parts that sum apart: against the gradient's formula in
// float64, and the same bits for any number of threads.
#include "kernels/base/parallel.h"
#include "kernels/range_attention/range_attention.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"
#include "tests/support/reference.h"

namespace rat::kernels {
namespace {

using test::AttentionCase;

// B, T, H, P, W, K, chunk, offset, window, own, dilation, initial, kv_heads
const std::vector<AttentionCase> cases{{1, 300, 1, 4, 4, 300},                                   // attention
                                       {1, 530, 2, 4, 8, 530},                                   // more than one tile
                                       {2, 200, 2, 4, 8, 200, 1, 1, 70},                         // window
                                       {1, 301, 4, 2, 4, 100, 3, 0, -1, true},                   // RAT, shared queries
                                       {1, 260, 2, 4, 8, 260, 1, 1, 33, false, 6, 20},           // RAT+
                                       {1, 250, 1, 4, 4, 250, 1, 1, 0, false, 2, 0},             // RAT+, no window
                                       {1, 260, 4, 2, 8, 260, 1, 1, -1, false, 0, 0, 2},         // shared keys
                                       {1, 200, 4, 2, 8, 200, 1, 1, 9, false, 8, 3, 1}};         // both

struct Gradients {
  std::vector<float> q, k, v, own_q, own_k, own_v;
};

struct Data {
  std::vector<float> q, k, v, own_q, own_k, own_v, grad_out, out, lse;

  explicit Data(const AttentionCase& c) {
    const auto fill = [](int64_t n, uint64_t seed) {
      return test::uniform(static_cast<std::size_t>(n), seed, -1.5f, 1.5f);
    };
    const int64_t D = c.H * c.P, rows = c.B * c.T;
    q = fill(rows * c.W, 1), k = fill(c.B * c.K * c.kv_width(), 2), v = fill(c.B * c.K * c.kv_width(), 3);
    own_q = fill(rows * c.W, 4), own_k = fill(rows * D, 5), own_v = fill(rows * D, 6), grad_out = fill(rows * D, 7);
    out = test::poison(static_cast<std::size_t>(rows * D)), lse = test::poison(static_cast<std::size_t>(rows * c.H));
  }
};

Gradients backward(const AttentionCase& c) {
  Data data(c);
  const int64_t D = c.H * c.P, rows = c.B * c.T, kv = c.kv_width();
  const auto every = [&](auto* base) {
    return Sequences<std::remove_pointer_t<decltype(base)>>{base + (c.dilation - 1) * kv, c.dilation * kv, c.K * kv};
  };
  RangeAttentionArgs args;
  args.shape = {c.B, c.T, c.H, c.P, c.K, {c.chunk, c.offset, c.window}, kv};
  args.q = {data.q.data(), rows, c.W};
  args.k = {data.k.data(), kv, c.K * kv};
  args.v = {data.v.data(), kv, c.K * kv};
  if (c.dilation > 0) {
    const float *k = data.k.data(), *v = data.v.data();
    args.more_count = 2;
    args.more[0] = {c.K / c.dilation, KeyRange::dilated(c.dilation, c.window, c.initial), every(k), every(v)};
    args.more[1] = {c.initial, KeyRange::before_window(c.window, c.initial), args.k, args.v};
  }
  if (c.own) {
    args.own_q = {data.own_q.data(), rows, c.W};
    args.own_k = {data.own_k.data(), rows, D};
    args.own_v = {data.own_v.data(), rows, D};
  }
  args.out = {data.out.data(), rows, D};
  args.lse = {data.lse.data(), c.B * c.H, c.T};
  RAT_CHECK(bool(range_attention(args, {})), "forward");
  // Keys' gradients are added to what is there.
  Gradients grad{test::poison(data.q.size()),           std::vector<float>(data.k.size(), 1.0f),
                 std::vector<float>(data.k.size(), 1.0f), test::poison(data.q.size()),
                 test::poison(data.out.size()),         test::poison(data.out.size())};
  RangeAttentionBackwardArgs all{args,
                                 {data.grad_out.data(), rows, D},
                                 {grad.q.data(), rows, c.W},
                                 {grad.k.data(), kv, c.K * kv},
                                 {grad.v.data(), kv, c.K * kv},
                                 {},
                                 {},
                                 {}};
  if (c.dilation > 0) all.more = {{{every(grad.k.data()), every(grad.v.data())}, {all.grad_k, all.grad_v}}};
  if (c.own) {
    all.grad_own_q = {grad.own_q.data(), rows, c.W};
    all.grad_own_k = {grad.own_k.data(), rows, D};
    all.grad_own_v = {grad.own_v.data(), rows, D};
  }
  RAT_CHECK(bool(range_attention_backward(all, {})), "backward");
  return grad;
}

// d score = p (d p - m) / sqrt P with m = grad_out . out, for every seen pair.
test::AttentionInputs formula(const AttentionCase& c) {
  const Data data(c);
  const test::AttentionInputs in{test::widen(data.q),     test::widen(data.k),     test::widen(data.v),
                                 test::widen(data.own_q), test::widen(data.own_k), test::widen(data.own_v)};
  test::Values weights;
  const test::Values out = test::attention(c, in, &weights), to_out = test::widen(data.grad_out);
  test::AttentionInputs grad{test::Values(in.q.size()),     test::Values(in.k.size(), 1.0),
                             test::Values(in.v.size(), 1.0), test::Values(in.q.size()),
                             test::Values(in.own_k.size()), test::Values(in.own_v.size())};
  const auto at = [](int64_t i) { return static_cast<std::size_t>(i); };
  const int64_t D = c.H * c.P, columns = c.K + (c.own ? 1 : 0);
  for (int64_t i = 0; i < c.B * c.H * c.T; ++i) {
    const int64_t t = i % c.T, h = i / c.T % c.H, b = i / c.T / c.H, row = b * c.T + t;
    const int64_t o = row * D + h * c.P, q = row * c.W + h * c.P % c.W;
    double m = 0;
    for (int64_t p = 0; p < c.P; ++p) m += to_out[at(o + p)] * out[at(o + p)];
    for (int64_t j = 0; j < columns; ++j) {
      const double weight = weights[at(i * columns + j)];
      if (j < c.K ? !c.sees(t, j) : !c.own) continue;
      const bool own = j == c.K;
      const int64_t kv = own ? o : (b * c.K + j) * c.kv_width() + h * c.P % c.kv_width();
      const test::Values &keys = own ? in.own_k : in.k, &values = own ? in.own_v : in.v;
      const test::Values& query = own ? in.own_q : in.q;
      double to_weight = 0;
      for (int64_t p = 0; p < c.P; ++p) to_weight += to_out[at(o + p)] * values[at(kv + p)];
      const double to_score = weight * (to_weight - m) / std::sqrt(static_cast<double>(c.P));
      for (int64_t p = 0; p < c.P; ++p) {
        (own ? grad.own_q : grad.q)[at(q + p)] += to_score * keys[at(kv + p)];
        (own ? grad.own_k : grad.k)[at(kv + p)] += to_score * query[at(q + p)];
        (own ? grad.own_v : grad.v)[at(kv + p)] += weight * to_out[at(o + p)];
      }
    }
  }
  return grad;
}

TEST(RangeAttentionParts, BackwardMatchesTheFormula) {
  for (const AttentionCase& c : cases) {
    SCOPED_TRACE(testing::Message() << "T " << c.T << " H " << c.H << " dilation " << c.dilation);
    const Gradients ours = backward(c);
    const test::AttentionInputs want = formula(c);
    EXPECT_LE(test::relative_error(ours.q, want.q), 1e-5);
    EXPECT_LE(test::relative_error(ours.k, want.k), 1e-5);
    EXPECT_LE(test::relative_error(ours.v, want.v), 1e-5);
    if (!c.own) continue;
    EXPECT_LE(test::relative_error(ours.own_q, want.own_q), 1e-5);
    EXPECT_LE(test::relative_error(ours.own_k, want.own_k), 1e-5);
    EXPECT_LE(test::relative_error(ours.own_v, want.own_v), 1e-5);
  }
}

TEST(RangeAttentionParts, DoNotDependOnTheThreadCount) {
  const int before = thread_count();
  for (const AttentionCase& c : cases) {
    set_thread_count(1);
    const Gradients one = backward(c);
    set_thread_count(5);
    const Gradients five = backward(c);
    EXPECT_EQ(one.q, five.q) << c.T;
    EXPECT_EQ(one.k, five.k) << c.T;
    EXPECT_EQ(one.v, five.v) << c.T;
  }
  set_thread_count(before);
}

}  // namespace
}  // namespace rat::kernels
