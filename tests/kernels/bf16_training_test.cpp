// What only training in bf16 on the CPU runs: the fused feed-forward, the backward pass of a linear layer, and small
// products in other dtypes, against the same computed of single ops or in double precision.
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/feed_forward/blocks.h"
#include "kernels/feed_forward/feed_forward.h"
#include "kernels/gelu/gelu.h"
#include "kernels/matmul/linear_backward.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/sgemm.h"
#include "kernels/range_attention/range_attention.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

float widened(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

std::vector<uint16_t> rounded(const std::vector<float>& x) {
  std::vector<uint16_t> out(x.size());
  const Status status = round_weights({.x = x, .out = out}, {});
  EXPECT_TRUE(bool(status));
  return out;
}

std::vector<float> widened(const std::vector<uint16_t>& x) {
  std::vector<float> out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = widened(x[i]);
  return out;
}

struct FeedForwardCase {
  FeedForwardShape shape;
  std::vector<float> norm, x, grad;
  std::vector<uint16_t> fc1, fc2;

  FeedForwardCase(int64_t rows, int64_t D, int64_t F)
      : shape{rows, D, F},
        norm(test::uniform(size(D), 1, 0.5f, 1.5f)),
        x(test::uniform(size(rows * D), 2, -2.0f, 2.0f)),
        grad(test::uniform(size(rows * D), 3)),
        fc1(rounded(test::uniform(size(F * D), 4, -0.3f, 0.3f))),
        fc2(rounded(test::uniform(size(D * F), 5, -0.3f, 0.3f))) {}
};

struct FeedForwardResults {
  std::vector<float> y, grad_x, grad_norm, grad_fc1, grad_fc2;
  std::vector<uint16_t> grad_rounded;

  explicit FeedForwardResults(const FeedForwardShape& s)  // gradients of weights are added to
      : y(size(s.rows * s.channels)),
        grad_x(y.size()),
        grad_norm(test::uniform(size(s.channels), 6)),
        grad_fc1(test::uniform(size(s.hidden * s.channels), 7)),
        grad_fc2(test::uniform(size(s.channels * s.hidden), 8)),
        grad_rounded(y.size()) {}
};

FeedForwardResults fused(const FeedForwardCase& c) {
  const auto& [N, D, F] = c.shape;
  FeedForwardResults out(c.shape);
  Scratch saved;
  FeedForwardArgs args{.shape = c.shape,
                       .norm = c.norm,
                       .fc1 = c.fc1.data(),
                       .fc2 = c.fc2.data(),
                       .x = Input(c.x.data(), N, D),
                       .y = Output(out.y.data(), N, D),
                       .saved = saved.ensure<std::byte>(static_cast<int64_t>(feed_forward_saved(c.shape, {})))};
  EXPECT_OK(feed_forward(args, {}));
  out.grad_x = c.grad;
  EXPECT_OK(feed_forward_backward({.forward = args,
                                   .grad = {Output(out.grad_x.data(), N, D), out.grad_rounded.data()},
                                   .grad_norm = out.grad_norm,
                                   .grad_fc1 = out.grad_fc1,
                                   .grad_fc2 = out.grad_fc2},
                                  {}));
  return out;
}

// The same in f32, of single ops.
FeedForwardResults composed(const FeedForwardCase& c) {
  const auto& [N, D, F] = c.shape;
  FeedForwardResults out(c.shape);
  const std::vector<float> fc1 = widened(c.fc1), fc2 = widened(c.fc2);
  std::vector<float> normed(c.x.size()), before(size(N * F)), hidden(before), wide(before), narrow(normed);
  const Input x(c.x.data(), N, D), w1(fc1.data(), F, D), w2(fc2.data(), D, F);
  const Output n(normed.data(), N, D), b(before.data(), N, F), h(hidden.data(), N, F), w(wide.data(), N, F);
  const Output g(narrow.data(), N, D), y(out.y.data(), N, D), grad(out.grad_x.data(), N, D);
  EXPECT_OK(rms_norm({.x = x, .weight = c.norm, .y = n}, {}));
  EXPECT_OK(matmul({.a = n, .b = w1, .c = b, .transpose_b = true}, {}));
  EXPECT_OK(gelu({.x = b, .y = h}, {}));
  EXPECT_OK(matmul({.a = h, .b = w2, .c = y, .transpose_b = true, .addend = c.x.data()}, {}));
  out.grad_x = c.grad;
  EXPECT_OK(matmul({.a = grad, .b = w2, .c = w}, {}));
  EXPECT_OK(gelu_backward({.x = b, .y = h, .grad = w}, {}));
  EXPECT_OK(matmul({.a = w, .b = w1, .c = g}, {}));
  const Output to_fc1(out.grad_fc1.data(), F, D), to_fc2(out.grad_fc2.data(), D, F);
  EXPECT_OK(matmul({.a = grad, .b = h, .c = to_fc2, .transpose_a = true, .accumulate = true}, {}));
  EXPECT_OK(matmul({.a = w, .b = n, .c = to_fc1, .transpose_a = true, .accumulate = true}, {}));
  EXPECT_OK(rms_norm_backward({.x = x,
                               .weight = c.norm,
                               .grad_y = g,
                               .grad_x = grad,
                               .grad_weight = out.grad_norm,
                               .add_grad_x = true},
                              {}));
  return out;
}

bool fuses(const FeedForwardShape& shape) { return fuses_feed_forward(shape, {}); }

// Rows that end inside a square and inside a block, columns that end inside a tile of gradients.
const FeedForwardShape shapes[] = {{32, 32, 32}, {33, 64, 96}, {301, 96, 288}, {1100, 544, 64}};

// Every operand of a product is off by at most 2^-9 of itself, 2^-9 / sqrt 3 on average, and there are four in a row.
constexpr double rounding = 5e-3;

TEST(Bf16Training, FusedFeedForwardIsThatOfSingleOps) {
  if (!cpu_supports(Dtype::bf16)) GTEST_SKIP() << "this CPU has no bf16 products";
  for (const FeedForwardShape& shape : shapes) {
    ASSERT_TRUE(fuses(shape));
    const FeedForwardCase c(shape.rows, shape.channels, shape.hidden);
    const FeedForwardResults got = fused(c), want = composed(c), before(shape);
    const auto error = [&](const auto& a, const auto& b) { return test::relative_error(a, b); };
    const auto added = [](std::vector<float> sum, const std::vector<float>& start) {
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] -= start[i];
      return sum;
    };
    EXPECT_LE(error(added(got.y, c.x), added(want.y, c.x)), rounding) << shape.rows;
    EXPECT_LE(error(added(got.grad_x, c.grad), added(want.grad_x, c.grad)), rounding) << shape.rows;
    EXPECT_LE(error(added(got.grad_norm, before.grad_norm), added(want.grad_norm, before.grad_norm)), rounding);
    EXPECT_LE(error(added(got.grad_fc1, before.grad_fc1), added(want.grad_fc1, before.grad_fc1)), rounding);
    EXPECT_LE(error(added(got.grad_fc2, before.grad_fc2), added(want.grad_fc2, before.grad_fc2)), rounding);
    EXPECT_EQ(got.grad_rounded, rounded(got.grad_x));
  }
}

TEST(Bf16Training, FusedFeedForwardDoesNotDependOnTheNumberOfThreads) {
  if (!cpu_supports(Dtype::bf16)) GTEST_SKIP() << "this CPU has no bf16 products";
  const FeedForwardCase c(700, 96, 288);
  const int threads = thread_count();
  set_thread_count(1);
  const FeedForwardResults one = fused(c);
  set_thread_count(3);
  const FeedForwardResults three = fused(c);
  set_thread_count(threads);
  EXPECT_EQ(one.y, three.y);
  EXPECT_EQ(one.grad_x, three.grad_x);
  EXPECT_EQ(one.grad_norm, three.grad_norm);
  EXPECT_EQ(one.grad_fc1, three.grad_fc1);
  EXPECT_EQ(one.grad_fc2, three.grad_fc2);
}

// GELU far from zero, where its density underflows, and a row that has diverged.
TEST(Bf16Training, FusedFeedForwardKeepsLargeValuesAndNan) {
  if (!cpu_supports(Dtype::bf16)) GTEST_SKIP() << "this CPU has no bf16 products";
  FeedForwardCase c(64, 32, 64);
  for (uint16_t& weight : c.fc1) weight = rounded(std::vector{3e4f * widened(weight)})[0];
  const FeedForwardResults got = fused(c), want = composed(c);
  EXPECT_LE(test::relative_error(got.y, want.y), rounding);
  for (const float value : got.grad_x) EXPECT_TRUE(std::isfinite(value));
  c.x[5 * 32 + 7] = std::numeric_limits<float>::quiet_NaN();
  const FeedForwardResults spoiled = fused(c);
  for (int64_t i = 0; i < 64 * 32; ++i) EXPECT_EQ(std::isnan(spoiled.y[size(i)]), i / 32 == 5) << i;
  for (const float value : spoiled.grad_fc1) ASSERT_TRUE(std::isnan(value));
}

// What a block of the feed-forward gives: y, the gradient before the norm, and the operands of weights' gradients.
struct BlockResults {
  std::vector<float> y, grad_normed, operands;
};

BlockResults block_of(const cpu::FeedForwardKernels& kernels, int64_t rows, int64_t D, int64_t F) {
  const int64_t padded = (rows + 31) / 32 * 32;
  const auto normed = test::uniform(size(rows * D), 1), x = test::uniform(size(rows * D), 2);
  const auto weights = rounded(test::uniform(size(D * F), 3, -0.3f, 0.3f));
  Scratch panels, memory;
  auto* const w = panels.ensure<uint16_t>(D * F);
  std::memcpy(w, weights.data(), size(D * F) * 2);
  BlockResults results{std::vector<float>(size(rows * D)), std::vector<float>(size(rows * D)), {}};
  const int64_t of_d = cpu::RowSquares::elements(rows, D), of_f = cpu::RowSquares::elements(rows, F);
  const int64_t all = padded * F + 2 * of_d + 2 * of_f;
  auto* data = memory.ensure<uint16_t>(all);
  std::fill_n(data, all, uint16_t{0});
  const cpu::HiddenBlock of{normed.data(), rows, D, F, data};
  kernels.forward({.of = of, .fc1 = w, .fc2 = w, .x = x.data(), .y = results.y.data()});
  data += padded * F;
  kernels.backward({.of = of,
                    .fc2 = w,
                    .fc1 = w,
                    .grad = x.data(),
                    .grad_normed = results.grad_normed.data(),
                    .first_row = 0,
                    .normed = {data, D},
                    .grad_y = {data + of_d, D},
                    .hidden = {data + 2 * of_d, F},
                    .grad_hidden = {data + 2 * of_d + of_f, F}});
  for (int64_t j = 0; j < 2 * (of_d + of_f); ++j) results.operands.push_back(widened(data[j]));
  return results;
}

// The same block by AMX and by both ways of AVX-512: products are summed in another order, and nothing else differs.
TEST(Bf16Training, EveryUnitComputesTheSameBlock) {
  std::vector<const cpu::FeedForwardKernels*> units{cpu::amx_feed_forward()};
  for (const auto how : {cpu::Avx512Products::dots, cpu::Avx512Products::widened})
    units.push_back(cpu::avx512_bf16_feed_forward(how));
  std::erase(units, nullptr);
  if (units.size() < 2) GTEST_SKIP() << "this CPU has " << units.size() << " of three ways to multiply bf16";
  for (const int64_t D : {64, 320}) {  // of 320, more than is widened at a time
    const BlockResults want = block_of(*units[0], 45, D, 96);
    for (std::size_t i = 1; i < units.size(); ++i) {
      const BlockResults got = block_of(*units[i], 45, D, 96);
      // A hidden value between two of bf16 may be rounded either way.
      EXPECT_LE(test::relative_error(got.y, want.y), 1e-3) << i;
      EXPECT_LE(test::relative_error(got.grad_normed, want.grad_normed), 1e-3) << i;
      EXPECT_LE(test::relative_error(got.operands, want.operands), 1e-3) << i;
    }
  }
}

// A gradient of weights over more rows than are taken together, as every unit adds it to what there is.
TEST(Bf16Training, EveryUnitAddsTheSameWeightGradient) {
  const int64_t rows = 600, m = 96, n = 64;
  const auto a = test::uniform(size(rows * m), 1), b = test::uniform(size(rows * n), 2), start = test::uniform(size(m * n), 3);
  Scratch memory;
  const int64_t of_a = cpu::RowSquares::elements(rows, m), of_b = cpu::RowSquares::elements(rows, n);
  auto* const data = memory.ensure<uint16_t>(of_a + of_b + 32 * n);
  const cpu::RowSquares left{data, m}, right{data + of_a, n};
  std::vector<const cpu::SquareKernels*> units{cpu::amx_squares()};
  for (const auto how : {cpu::Avx512Products::dots, cpu::Avx512Products::widened})
    units.push_back(cpu::avx512_bf16_squares(how));
  std::erase(units, nullptr);
  if (units.empty()) GTEST_SKIP() << "this CPU has no bf16 products";
  for (int64_t r = 0; r < rows; r += 32) {
    const int64_t count = std::min<int64_t>(32, rows - r);
    cpu::columns_to_squares(a.data() + r * m, m, count, r, left);
    cpu::rows_to_squares_and_pairs(b.data() + r * n, n, count, r, right, data + of_a + of_b);
  }
  const auto ra = widened(rounded(a)), rb = widened(rounded(b));
  std::vector<float> want = start;
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r)
        sum += static_cast<double>(ra[size(r * m + i)]) * static_cast<double>(rb[size(r * n + j)]);
      want[size(i * n + j)] += static_cast<float>(sum);
    }
  for (const cpu::SquareKernels* const unit : units) {
    std::vector<float> c = start;
    unit->weight_gradient({left, right, rows, c.data(), false, 0, m, 0, n});
    EXPECT_LE(test::relative_error(c, want), 1e-6);
  }
}

// Against sums of products of rounded operands, and in f32 against the two products bit by bit.
TEST(Bf16Training, LinearBackwardIsTwoProducts) {
  struct Shape {
    int64_t rows, in, out;
  };
  for (const auto& [rows, in, out] : {Shape{32, 32, 32}, Shape{77, 64, 96}, Shape{600, 96, 576}, Shape{40, 33, 65}})
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16}) {
      if (!cpu_supports(dtype)) continue;
      const int64_t pad = 5;  // between rows of what is read
      const auto grad = test::uniform(size(rows * (out + pad)), 1), x = test::uniform(size(rows * (in + pad)), 2);
      const auto w = test::uniform(size(out * in), 3), start = test::uniform(size(out * in), 4);
      auto grad_x = test::poison(size(rows * in)), grad_w = start;
      const Input g(grad.data(), rows, out, out + pad), weight(w.data(), out, in), xs(x.data(), rows, in, in + pad);
      ASSERT_OK(linear_backward({.grad_y = g,
                                 .x = xs,
                                 .weight = weight,
                                 .grad_x = Output(grad_x.data(), rows, in),
                                 .grad_weight = Output(grad_w.data(), out, in),
                                 .dtype = dtype},
                                {}));
      auto want_x = grad_x, want_w = start;
      ASSERT_OK(matmul({.a = g, .b = weight, .c = Output(want_x.data(), rows, in), .dtype = dtype}, {}));
      ASSERT_OK(matmul({.a = g,
                        .b = xs,
                        .c = Output(want_w.data(), out, in),
                        .transpose_a = true,
                        .accumulate = true,
                        .dtype = dtype},
                       {}));
      const auto bound = [&](int64_t k) { return dtype == Dtype::f32 ? 0.0 : 2e-6 * std::sqrt(k) + 1e-6; };
      EXPECT_TRUE(test::close(grad_x, want_x, bound(out))) << rows << " " << dtype_name(dtype);
      EXPECT_TRUE(test::close(grad_w, want_w, bound(rows))) << rows << " " << dtype_name(dtype);
    }
}

TEST(Bf16Training, LinearBackwardRefusesWrongShapes) {
  std::vector<float> data(64 * 64);
  const Output square(data.data(), 64, 64);
  const Output half(data.data(), 32, 64);
  const Status status = linear_backward(
      {.grad_y = square, .x = square, .weight = square, .grad_x = square, .grad_weight = half}, {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message, "linear_backward: grad_weight is (32, 64) but must be (64, 64)");
}

TEST(Bf16Training, SmallProductsInPartsAreThoseInF32) {
  if (!cpu_supports(Dtype::bf16x3)) GTEST_SKIP() << "this CPU has no AMX";
  const int64_t m = 130, n = 70, k = 45;
  const auto a = test::uniform(size(m * k), 1), b = test::uniform(size(k * n), 2);
  const auto start = test::uniform(size(m * n), 3);
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const bool add : {false, true}) {
        if (ta && tb) continue;
        std::vector<float> c[2] = {start, start};
        for (int i = 0; i < 2; ++i)
          cpu::gemm_on_this_thread(i == 0 ? Dtype::f32 : Dtype::bf16x3, ta, tb, m, n, k, ta ? 1.0f : 0.125f, a.data(),
                                   ta ? m : k, b.data(), tb ? k : n, add, c[i].data(), n);
        EXPECT_TRUE(test::close(c[1], c[0], 2e-4)) << ta << tb << add;
      }
}

// Where a tile has many keys; the shares of few keys stay in f32.
TEST(Bf16Training, AttentionIsThatInF32) {
  if (!cpu_supports(Dtype::bf16x3)) GTEST_SKIP() << "this CPU has no AMX";
  const int64_t T = 700, H = 2, P = 16, D = H * P, L = 7, K = T / L;
  const auto draw = [](int64_t n, uint64_t seed) { return test::uniform(size(n), seed, -1.5f, 1.5f); };
  const auto q = draw(T * D, 1), k = draw(K * D, 2), v = draw(K * D, 3);
  const auto own_k = draw(T * D, 4), own_v = draw(T * D, 5), grad = draw(T * D, 6);
  std::vector<float> out[3], grads[3];
  for (int i = 0; i < 3; ++i) {
    std::vector<float> lse(size(H * T));
    out[i].resize(size(T * D)), grads[i].resize(size(4 * T * D + 2 * K * D));
    RangeAttentionArgs args;
    args.shape = {1, T, H, P, K, {.chunk_len = L, .offset = 0, .window = -1}};
    args.q = args.own_q = {q.data(), T, D};
    args.k = {k.data(), D, K * D}, args.v = {v.data(), D, K * D};
    args.own_k = {own_k.data(), T, D}, args.own_v = {own_v.data(), T, D};
    args.out = {out[i].data(), T, D}, args.lse = {lse.data(), H, T};
    args.score_dtype = i == 0 ? Dtype::f32 : Dtype::bf16x3;
    args.dtype = i == 0 ? Dtype::f32 : i == 1 ? Dtype::bf16x3 : Dtype::bf16;
    ASSERT_OK(range_attention(args, {}));
    float* const to = grads[i].data();
    RangeAttentionBackwardArgs back;
    back.forward = args;
    back.grad_out = {grad.data(), T, D};
    back.grad_q = {to, T, D}, back.grad_own_q = {to + T * D, T, D};
    back.grad_own_k = {to + 2 * T * D, T, D}, back.grad_own_v = {to + 3 * T * D, T, D};
    back.grad_k = {to + 4 * T * D, D, K * D}, back.grad_v = {to + 4 * T * D + K * D, D, K * D};
    ASSERT_OK(range_attention_backward(back, {}));
  }
  EXPECT_LE(test::relative_error(out[1], out[0]), 5e-5);
  EXPECT_LE(test::relative_error(grads[1], grads[0]), 5e-5);
  EXPECT_LE(test::relative_error(out[2], out[0]), rounding);
  EXPECT_LE(test::relative_error(grads[2], grads[0]), rounding);
  EXPECT_NE(out[0], out[1]);  // or the dtypes are not used
  EXPECT_NE(out[1], out[2]);
}

}  // namespace
}  // namespace rat::kernels
