// Attention of the cuda backend against the CPU's: every mixer's pattern of keys, several tiles, awkward head sizes,
// hostile values. Skipped without a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/range_attention/range_attention.h"
#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

constexpr double bound = 2e-5;  // of the CPU's result, in the 2-norm; both round in float32, in different order

// ||actual - expected|| over ||expected||, or over the norm of values of this size where that is larger: gradients can
// cancel to nothing. Infinite for a wrong size, NaN where either holds NaN.
double error_of(const std::vector<float>& actual, const std::vector<float>& expected, double size) {
  if (actual.size() != expected.size() || actual.empty()) return std::numeric_limits<double>::infinity();
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - static_cast<double>(expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  const double least = size * size * static_cast<double>(actual.size());
  return std::sqrt(difference / (norm < least ? least : norm));
}

enum class Pattern { tokens, chunk_ends, dilated };

struct Case {
  int64_t B, T, H, P;
  Pattern pattern = Pattern::tokens;
  int64_t chunk = 1, window = -1, dilation = 1, initial = 0;
  int64_t shared = 1;        // heads that share queries (chunk_ends) or keys (otherwise)
  int64_t padding = 0;       // columns between the rows of q, out and their gradients
  Dtype dtype = Dtype::f32;  // of the device's products; the CPU's are f32

  int64_t D() const { return H * P; }
  int64_t W() const { return pattern == Pattern::chunk_ends ? D() / shared : D(); }
  int64_t kv() const { return pattern == Pattern::chunk_ends ? D() : D() / shared; }
  int64_t rows() const { return B * T; }
  int64_t chunks() const { return T / chunk; }
  int64_t keys() const { return pattern == Pattern::chunk_ends ? chunks() : T; }
  std::string name() const {
    return fmt::format("B {} T {} H {} P {} pattern {} chunk {} window {} dilation {} initial {} shared {} padding {}",
                       B, T, H, P, static_cast<int>(pattern), chunk, window, dilation, initial, shared, padding);
  }
};

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const int64_t P : {4, 16, 20, 32, 64, 128}) {
    cases.push_back({2, 70, 2, P});
    cases.push_back({2, 75, 4, P, Pattern::chunk_ends, 4, -1, 1, 0, 2});
    cases.push_back({1, 150, 2, P, Pattern::dilated, 1, 9, 4, 5});
  }
  const std::vector<Case> shapes{
      {1, 1, 1, 1},
      {1, 1, 3, 4},
      {2, 300, 2, 8},
      {1, 300, 1, 64},
      {1, 66, 1, 200},
      {1, 70, 1, 256},
      {1, 65, 2, 7, Pattern::tokens, 1, -1, 1, 0, 1, 3},
      {1, 90, 2, 16, Pattern::tokens, 1, 0},
      {1, 300, 2, 16, Pattern::tokens, 1, 70},
      {2, 30, 2, 16, Pattern::tokens, 1, 500},
      {1, 200, 6, 16, Pattern::tokens, 1, 20, 1, 0, 3},
      {2, 130, 4, 32, Pattern::tokens, 1, -1, 1, 0, 4, 4},
      {1, 9, 4, 16, Pattern::chunk_ends, 1, -1, 1, 0, 2},
      {1, 5, 2, 16, Pattern::chunk_ends, 16},
      {2, 300, 6, 16, Pattern::chunk_ends, 3, -1, 1, 0, 3},
      {1, 299, 2, 64, Pattern::chunk_ends, 7, -1, 1, 0, 1, 4},
      {1, 70, 2, 256, Pattern::chunk_ends, 4, -1, 1, 0, 2},
      {1, 17, 2, 16, Pattern::dilated, 1, 0, 4, 0},
      {2, 19, 3, 16, Pattern::dilated, 1, 3, 4, 2},
      {1, 12, 2, 16, Pattern::dilated, 1, 1, 100, 0},
      {1, 12, 2, 16, Pattern::dilated, 1, 30, 4, 3},
      {2, 300, 2, 32, Pattern::dilated, 1, 16, 2, 90},
      {1, 280, 4, 16, Pattern::dilated, 1, 40, 8, 7, 2, 5},
  };
  cases.insert(cases.end(), shapes.begin(), shapes.end());
  return cases;
}

// Values of all inputs, which a test may change before they are uploaded.
struct Inputs {
  std::vector<float> q, k, v, own_q, own_k, grad_out;

  explicit Inputs(const Case& c) {
    const auto fill = [](int64_t n, uint64_t seed) {
      return test::uniform(static_cast<std::size_t>(n), seed, -1.5f, 1.5f);
    };
    q = fill(c.rows() * (c.W() + c.padding), 1);
    k = fill(std::max<int64_t>(1, c.B * c.keys()) * c.kv(), 2);
    v = fill(c.rows() * c.kv(), 3);
    own_q = fill(c.rows() * c.W(), 4), own_k = fill(c.rows() * c.D(), 5);
    grad_out = fill(c.rows() * (c.D() + c.padding), 6);
  }
};

// What a case comes to on one backend. As in the mixers, the keys of chunk_ends are a tensor of their own, their values
// are rows of the own values, and the gradients of both are added in one place.
class Attending {
 public:
  Attending(const Backend& backend, const Case& c, const Inputs& in)
      : c_(c),
        exec_{.backend = &backend},
        q(backend, in.q, c.rows(), c.W() + c.padding),
        k(backend, in.k, static_cast<int64_t>(in.k.size()) / c.kv(), c.kv()),
        v(backend, in.v, c.rows(), c.kv()),
        own_q(backend, in.own_q, c.rows(), c.W()),
        own_k(backend, in.own_k, c.rows(), c.D()),
        grad_out(backend, in.grad_out, c.rows(), c.D() + c.padding),
        out(poisoned(backend, c.rows(), c.D() + c.padding)),
        lse(poisoned(backend, c.B * c.H, c.T)),
        grad_q(poisoned(backend, c.rows(), c.W() + c.padding)),
        grad_own_q(poisoned(backend, c.rows(), c.W())),
        grad_own_k(poisoned(backend, c.rows(), c.D())),
        // Gradients of values start from something, except where the own values' are written first.
        grad_k(backend, test::uniform(in.k.size(), 7), static_cast<int64_t>(in.k.size()) / c.kv(), c.kv()),
        grad_v(backend, own() ? test::poison(in.v.size()) : test::uniform(in.v.size(), 8), c.rows(), c.kv()) {}

  bool own() const { return c_.pattern == Pattern::chunk_ends; }

  RangeAttentionArgs forward() const {
    RangeAttentionArgs args;
    args.shape = {c_.B, c_.T, c_.H, c_.P, c_.keys(), {.chunk_len = 1, .offset = 1, .window = c_.window}, c_.kv()};
    args.q = q.rows().columns(0, c_.W());
    args.k = {k.data(), c_.kv(), c_.keys() * c_.kv()};
    args.v = every<const float>(v.data(), c_.chunk);
    args.out = out.rows().columns(0, c_.D());
    args.lse = lse;
    if (!exec_.backend->host) args.dtype = args.score_dtype = c_.dtype;
    if (own()) {
      args.shape.range = {.chunk_len = c_.chunk, .offset = 0};
      args.own_q = own_q, args.own_k = own_k, args.own_v = v;
    }
    if (c_.pattern != Pattern::dilated) return args;
    args.more_count = 2;
    args.more[0] = {.keys = c_.T / c_.dilation,
                    .range = KeyRange::dilated(c_.dilation, c_.window, c_.initial),
                    .k = every<const float>(k.data(), c_.dilation),
                    .v = every<const float>(v.data(), c_.dilation),
                    .first_column = c_.dilation - 1,
                    .column_step = c_.dilation};
    args.more[1] = {.keys = std::min(c_.T, c_.initial),
                    .range = KeyRange::before_window(c_.window, c_.initial),
                    .k = args.k,
                    .v = args.v};
    return args;
  }

  RangeAttentionBackwardArgs backward() const {
    RangeAttentionBackwardArgs args;
    args.forward = forward();
    args.grad_out = grad_out.rows().columns(0, c_.D());
    args.grad_q = grad_q.rows().columns(0, c_.W());
    args.grad_k = {grad_k.data(), c_.kv(), c_.keys() * c_.kv()};
    args.grad_v = every<float>(grad_v.data(), c_.chunk);
    if (own()) args.grad_own_q = grad_own_q, args.grad_own_k = grad_own_k, args.grad_own_v = grad_v;
    if (c_.pattern == Pattern::dilated)
      args.more = {{{every<float>(grad_k.data(), c_.dilation), every<float>(grad_v.data(), c_.dilation)},
                    {args.grad_k, args.grad_v}}};
    return args;
  }

  void run() const {
    ASSERT_OK(range_attention(forward(), exec_));
    ASSERT_OK(range_attention_backward(backward(), exec_));
  }

  // The columns that belong to the op; the padding behind them must stay as it was.
  static std::vector<float> used(const test::DeviceRows& rows, int64_t cols) {
    const std::vector<float> all = rows.read();
    const auto width = static_cast<std::size_t>(rows.rows().cols), kept = static_cast<std::size_t>(cols);
    std::vector<float> values;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i % width < kept) {
        values.push_back(all[i]);
      } else {
        EXPECT_TRUE(std::isnan(all[i])) << "wrote into the padding at " << i;
      }
    }
    return values;
  }

  struct Named {
    const char* name;
    std::vector<float> values;
  };
  std::vector<Named> results() const {
    std::vector<Named> results{{"out", used(out, c_.D())},
                               {"lse", lse.read()},
                               {"grad_q", used(grad_q, c_.W())},
                               {"grad_k", grad_k.read()},
                               {"grad_v", grad_v.read()}};
    if (!own()) return results;
    results.push_back({"grad_own_q", grad_own_q.read()});
    results.push_back({"grad_own_k", grad_own_k.read()});
    return results;
  }

  std::vector<float> weights() const {
    const int64_t cols = c_.keys() + (own() ? 1 : 0), rows = c_.B * c_.H * c_.T;
    const test::DeviceRows shown(*exec_.backend, test::uniform(static_cast<std::size_t>(rows * cols), 9), rows, cols);
    EXPECT_OK(attention_weights({forward(), shown}, exec_));
    return shown.read();
  }

 private:
  static test::DeviceRows poisoned(const Backend& backend, int64_t rows, int64_t cols) {
    return {backend, test::poison(static_cast<std::size_t>(rows * cols)), rows, cols};
  }
  // Rows n-1, 2n-1, ... of every sequence of a (B*T, kv) tensor.
  template <class T>
  Sequences<T> every(T* data, int64_t n) const {
    return {data + (n - 1) * c_.kv(), n * c_.kv(), c_.T * c_.kv()};
  }

  Case c_;
  Exec exec_;
  test::DeviceRows q, k, v, own_q, own_k, grad_out, out, lse, grad_q, grad_own_q, grad_own_k, grad_k, grad_v;
};

// `size`: of the terms that cancel in gradients.
void expect_like_the_cpu(const Backend& backend, const Case& c, const Inputs& in, double size = 0.1,
                         double bound = kernels::bound) {
  const Attending actual(backend, c, in), expected(cpu_backend(), c, in);
  actual.run(), expected.run();
  const auto got = actual.results(), want = expected.results();
  for (std::size_t i = 0; i < want.size(); ++i)
    EXPECT_LE(error_of(got[i].values, want[i].values, size), bound) << want[i].name << " of " << c.name();
}

TEST(CudaRangeAttention, MatchesTheCpuForwardAndBackward) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : cases()) expect_like_the_cpu(*backend, c, Inputs(c));
}

// Of tokens in heads of 64 and 128: rounded, on tensor cores; the rest in f32 as ever.
TEST(CudaRangeAttention, Bf16IsTheCpusF32Rounded) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const auto in_bf16 = [](Case c) { return c.dtype = Dtype::bf16, c; };
  for (const int64_t P : {64, 128})
    for (const int64_t T : {1, 70, 300})
      for (const int64_t window : {-1, 0, 40, 500})
        for (const int64_t shared : {1, 2, 4})
          for (const int64_t padding : {0, 3, 8}) {
            const Case c = in_bf16({2, T, 4, P, Pattern::tokens, 1, window, 1, 0, shared, padding});
            expect_like_the_cpu(*backend, c, Inputs(c), 0.2, 1.5e-2);
          }
  for (const Case& c : {Case{2, 90, 2, 32}, Case{2, 90, 4, 64, Pattern::chunk_ends, 4, -1, 1, 0, 2},
                        Case{1, 150, 2, 64, Pattern::dilated, 1, 9, 4, 5}})
    expect_like_the_cpu(*backend, in_bf16(c), Inputs(c));
}

TEST(CudaRangeAttention, TwoRunsAreBitEqual) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : {Case{2, 300, 2, 64}, Case{2, 300, 4, 64, Pattern::tokens, 1, 70, 1, 0, 2, 0, Dtype::bf16},
                        Case{1, 299, 4, 20, Pattern::chunk_ends, 7, -1, 1, 0, 2},
                        Case{1, 280, 2, 32, Pattern::dilated, 1, 40, 8, 70}}) {
    const Inputs in(c);
    const Attending one(*backend, c, in), two(*backend, c, in);
    one.run(), two.run();
    const auto first = one.results(), second = two.results();
    for (std::size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].values, second[i].values) << first[i].name;
  }
}

TEST(CudaRangeAttention, HostileScores) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : {Case{1, 150, 2, 16}, Case{1, 150, 2, 16, Pattern::chunk_ends, 2},
                        Case{1, 150, 2, 16, Pattern::dilated, 1, 9, 4, 5}}) {
    Inputs one_large(c), equal(c), negative(c);
    const auto row = static_cast<std::size_t>(3 * c.kv());
    for (std::size_t i = 0; i < 16; ++i) {  // q . k / 4 = 80 for one key of head 0
      one_large.k[row + i] = 20.0f;
      for (std::size_t t = 0; t < static_cast<std::size_t>(c.T); ++t)
        one_large.q[t * static_cast<std::size_t>(c.W()) + i] = 1.0f;
    }
    expect_like_the_cpu(*backend, c, one_large, 1.0);
    for (std::size_t i = 0; i < equal.k.size(); ++i) equal.k[i] = equal.k[i % static_cast<std::size_t>(c.kv())];
    expect_like_the_cpu(*backend, c, equal);
    for (float& x : negative.q) x = 30.0f;  // scores of about -960, without rounding
    for (float& x : negative.k) x = -8.0f - std::round(x * 4.0f) / 256.0f;
    for (float& x : negative.own_q) x = 30.0f;
    for (float& x : negative.own_k) x = -8.0f;
    expect_like_the_cpu(*backend, c, negative, 10.0);
  }
}

TEST(CudaRangeAttention, NanIsSeenNotSwallowed) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const Case c{1, 70, 1, 16};
  Inputs in(c);
  in.k[0] = std::numeric_limits<float>::quiet_NaN();
  const Attending run(*backend, c, in);
  run.run();
  EXPECT_TRUE(std::isnan(run.results()[0].values.back()));
}

TEST(CudaRangeAttention, WeightsMatchTheCpuAndAreNanWhereUnseen) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : cases()) {
    if (c.T > 150) continue;
    const Inputs in(c);
    const std::vector<float> got = Attending(*backend, c, in).weights();
    const std::vector<float> want = Attending(cpu_backend(), c, in).weights();
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(std::isnan(got[i]), std::isnan(want[i])) << i << " of " << c.name();
      if (!std::isnan(want[i])) {
        ASSERT_NEAR(got[i], want[i], bound) << i << " of " << c.name();
      }
    }
  }
}

TEST(CudaRangeAttention, HeadsOf257ChannelsAreRefused) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const Case c{1, 2, 1, 257};
  const Attending run(*backend, c, Inputs(c));
  const Status status = range_attention(run.forward(), {.backend = backend});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::unsupported);
  EXPECT_NE(status.error().message.find("257"), std::string::npos) << status.error().message;
}

struct OneCase {
  int64_t keys, H, P, query_heads, kv_heads;
  bool own;
  int64_t B = 1;
};

std::vector<float> attend_one_on(const Backend& backend, const OneCase& c) {
  const int64_t D = c.H * c.P, W = c.query_heads * c.P, kv = c.kv_heads * c.P, stride = kv + 3;
  const auto rows = [&](int64_t n, int64_t cols, uint64_t seed) {
    return test::DeviceRows(backend, test::uniform(static_cast<std::size_t>(n * cols), seed, -1.5f, 1.5f), n, cols);
  };
  const auto q = rows(c.B, W, 1), k = rows(c.keys * c.B, stride, 2), v = rows(c.keys * c.B, stride, 3);
  const auto own_q = rows(c.B, W, 4), own_k = rows(c.B, D, 5), own_v = rows(c.B, D, 6);
  const test::DeviceRows out(backend, test::poison(static_cast<std::size_t>(c.B * D)), c.B, D);
  AttendOneArgs args;
  args.heads = c.H;
  args.q = q, args.out = out;
  args.k = k.rows().columns(0, kv), args.v = v.rows().columns(0, kv);
  if (c.own) args.own_q = own_q, args.own_k = own_k, args.own_v = own_v;
  EXPECT_OK(attend_one(args, {.backend = &backend}));
  return out.read();
}

TEST(CudaAttendOne, MatchesTheCpu) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const OneCase& c :
       {OneCase{0, 2, 16, 2, 2, true}, OneCase{1, 1, 1, 1, 1, false}, OneCase{5, 4, 20, 2, 4, true},
        OneCase{128, 3, 64, 3, 3, false}, OneCase{129, 2, 128, 2, 1, false}, OneCase{1000, 6, 32, 3, 6, true},
        OneCase{700, 1, 256, 1, 1, true}, OneCase{300, 2, 200, 2, 2, false}, OneCase{20001, 4, 16, 4, 2, false},
        OneCase{0, 4, 20, 2, 4, true, 3}, OneCase{700, 4, 20, 2, 4, true, 3}, OneCase{1000, 4, 64, 4, 2, false, 7},
        OneCase{300, 2, 128, 2, 2, true, 200}}) {
    const std::vector<float> got = attend_one_on(*backend, c), want = attend_one_on(cpu_backend(), c);
    EXPECT_LE(error_of(got, want, 0.0), bound) << c.B << " x " << c.keys << " keys, " << c.H << " heads of " << c.P;
    EXPECT_EQ(got, attend_one_on(*backend, c)) << "a second run differs";
  }
}

}  // namespace
}  // namespace rat::kernels
