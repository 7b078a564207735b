// Matrix product, the thread pool under it, and the backend list.
#include "kernels/matmul/matmul.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/matmul/panels.h"
#include "tests/support/compare.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

TEST(Matmul, EveryTransposeStrideAndDestination) {
  struct Shape {
    int64_t m, n, k;
  };
  for (const auto& [m, n, k] :
       {Shape{1, 1, 1}, Shape{3, 5, 7}, Shape{130, 67, 33}, Shape{1, 300, 65}, Shape{200, 300, 1100}})
    for (int kind = 0; kind < 12; ++kind) {
      const bool ta = kind & 1, tb = kind & 2;
      const int destination = kind / 4;  // write, accumulate, addend
      const int64_t pad = 3;
      const int64_t ar = ta ? k : m, ac = ta ? m : k, br = tb ? n : k, bc = tb ? k : n;
      const auto a = test::uniform(size(ar * (ac + pad)), 1), b = test::uniform(size(br * (bc + pad)), 2);
      const auto addend = test::uniform(size(m * n), 3);
      auto c = test::poison(size(m * (n + pad)));
      if (destination == 1) c = test::uniform(c.size(), 4);
      const auto before = c;
      ASSERT_OK(matmul({.a = {a.data(), ar, ac, ac + pad},
                        .b = {b.data(), br, bc, bc + pad},
                        .c = {c.data(), m, n, n + pad},
                        .transpose_a = ta,
                        .transpose_b = tb,
                        .accumulate = destination == 1,
                        .addend = destination == 2 ? addend.data() : nullptr},
                       {}));
      // k products below 1, each rounded, summed in some order: k u k at worst, about sqrt(k) k u in practice.
      const double bound = 1e-6 * std::sqrt(static_cast<double>(k)) + 1e-6;
      for (int64_t i = 0; i < m; i += std::max<int64_t>(1, m / 9))
        for (int64_t j = 0; j < n; ++j) {
          double want = destination == 1   ? before[size(i * (n + pad) + j)]
                        : destination == 2 ? addend[size(i * n + j)]
                                           : 0;
          for (int64_t x = 0; x < k; ++x)
            want += static_cast<double>(a[size(ta ? x * (ac + pad) + i : i * (ac + pad) + x)]) *
                    static_cast<double>(b[size(tb ? j * (bc + pad) + x : x * (bc + pad) + j)]);
          ASSERT_NEAR(c[size(i * (n + pad) + j)], want, bound) << m << " " << n << " " << k << " kind " << kind;
        }
    }
}

// x rounded to bfloat16: to nearest, ties to even.
float to_bf16(float x) {
  auto bits = std::bit_cast<uint32_t>(x);
  bits += 0x7fff + ((bits >> 16) & 1);
  return std::bit_cast<float>(bits & 0xffff0000u);
}

// The packed kernels against sums of products of rounded operands, which are exact in single precision.
void expect_bf16_products(const cpu::PanelKernels& kernels) {
  struct Shape {
    int64_t m, n, k;
  };
  // 31 rows and several panels: one row short of a square, where a copy too wide leaves it (AddressSanitizer sees that).
  for (const auto& [m, n, k] :
       {Shape{1, 1, 1}, Shape{37, 75, 45}, Shape{16, 32, 96}, Shape{31, 96, 45}, Shape{130, 67, 1100}})
    for (const bool transposed : {false, true}) {
      const auto a = test::uniform(size(m * k), 1), b = test::uniform(size(k * n), 2), start = test::uniform(size(m * n), 3);
      const int64_t width = kernels.panel_cols(), bytes = kernels.panel_bytes(k);
      Scratch scratch;
      auto* packed = scratch.ensure<std::byte>((n + width - 1) / width * bytes);
      for (int64_t j = 0; j < n; j += width)
        kernels.pack(b.data() + (transposed ? j * k : j), transposed ? k : n, transposed, k, std::min(width, n - j),
                     packed + j / width * bytes);
      std::vector<float> c(size(m * n));
      kernels.multiply({a.data(), k, m, k, n, packed, c.data(), n, start.data(), n});
      const auto a_of_outer = [&](int64_t i, int64_t x) { return a[size(x * m + i)]; };  // the same memory as (k, m)
      std::vector<float> product(start);
      if (!transposed) kernels.outer({a.data(), m, b.data(), n, m, n, k, product.data(), n, true});
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double want = start[size(i * n + j)], want_outer = want;
          for (int64_t x = 0; x < k; ++x) {
            const auto right = static_cast<double>(to_bf16(b[size(transposed ? j * k + x : x * n + j)]));
            want += static_cast<double>(to_bf16(a[size(i * k + x)])) * right;
            want_outer += static_cast<double>(to_bf16(a_of_outer(i, x))) * right;
          }
          const double bound = 1e-6 * std::sqrt(static_cast<double>(k)) + 1e-6;
          ASSERT_NEAR(c[size(i * n + j)], want, bound) << m << " " << n << " " << k << " transposed " << transposed;
          if (transposed) continue;
          ASSERT_NEAR(product[size(i * n + j)], want_outer, bound) << m << " " << n << " " << k;
        }
    }
}

TEST(Matmul, Bf16PanelsMultiplyRoundedOperands) {
  if (!cpu_supports(Dtype::bf16)) GTEST_SKIP() << "this CPU has no bf16 products";
  for (const auto how : {cpu::Avx512Products::dots, cpu::Avx512Products::widened})
    if (const auto* kernels = cpu::avx512_bf16_panels(how)) expect_bf16_products(*kernels);
  if (const auto* kernels = cpu::amx_panels(1)) expect_bf16_products(*kernels);
}

// A C beyond the caches is written past them; that, and how rows are shared out, must not change a bit.
TEST(Matmul, WideProductsEqualTheirRowsOneBlockAtATime) {
  const int64_t m = 2090, n = 1008, k = 40;
  const auto a = test::uniform(size(m * k), 1), b = test::uniform(size(n * k), 2);
  Scratch whole, part;
  Output c(whole.ensure<float>(m * n), m, n), rows(part.ensure<float>(m * n), m, n);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::bf16x3, Dtype::bf16x6}) {
    if (!cpu_supports(dtype)) continue;
    const Input weight(b.data(), n, k);
    ASSERT_OK(matmul({.a = Input(a.data(), m, k), .b = weight, .c = c, .transpose_b = true, .dtype = dtype}, {}));
    for (int64_t i = 0; i < m; i += 64) {
      const int64_t count = std::min<int64_t>(64, m - i);
      ASSERT_OK(matmul({.a = Input(a.data() + i * k, count, k),
                        .b = weight,
                        .c = rows.row_range(i, count),
                        .transpose_b = true,
                        .dtype = dtype},
                       {}));
    }
    EXPECT_EQ(std::memcmp(c.data, rows.data, size(m * n) * sizeof(float)), 0) << dtype_name(dtype);
  }
}

// Long sums are cut into parts: the same parts for any number of threads, each row of A and B once.
TEST(Matmul, LongWeightGradientsAreCompleteAndRepeatable) {
  const int64_t k = 2100, m = 70, n = 90;
  std::vector<float> a(size(k * m)), b(size(k * n));
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 3);
  for (std::size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(i % 5);
  for (const Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::bf16x3, Dtype::bf16x6}) {
    if (!cpu_supports(dtype)) continue;
    for (const int threads : {1, 2, 5}) {
      set_thread_count(threads);
      std::vector<float> c(size(m * n), 1.0f);
      ASSERT_OK(matmul({.a = Input(a.data(), k, m),
                        .b = Input(b.data(), k, n),
                        .c = Output(c.data(), m, n),
                        .transpose_a = true,
                        .accumulate = true,
                        .dtype = dtype},
                       {}));
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          float want = 1.0f;  // small whole numbers: exact in every dtype and order
          for (int64_t x = 0; x < k; ++x) want += a[size(x * m + i)] * b[size(x * n + j)];
          ASSERT_EQ(c[size(i * n + j)], want) << i << " " << j << " " << dtype_name(dtype);
        }
    }
  }
  set_thread_count(2);
}

TEST(Matmul, RefusesBf16OfTwoTransposedOperands) {
  if (!cpu_supports(Dtype::bf16)) GTEST_SKIP() << "this CPU has no bf16 products";
  std::vector<float> x(16);
  EXPECT_FALSE(matmul({.a = {x.data(), 4, 4},
                       .b = {x.data(), 4, 4},
                       .c = {x.data(), 4, 4},
                       .transpose_a = true,
                       .transpose_b = true,
                       .dtype = Dtype::bf16},
                      {}));
}

TEST(Matmul, RefusesWrongShapes) {
  std::vector<float> x(100);
  const Status inner = matmul({.a = {x.data(), 3, 4}, .b = {x.data(), 5, 6}, .c = {x.data(), 3, 6}}, {});
  ASSERT_FALSE(inner);
  EXPECT_NE(inner.error().message.find("(3, 4)"), std::string::npos);
  EXPECT_FALSE(matmul({.a = {x.data(), 3, 4}, .b = {x.data(), 4, 6}, .c = {x.data(), 3, 5}}, {}));
  EXPECT_FALSE(matmul({.a = {nullptr, 3, 4}, .b = {x.data(), 4, 6}, .c = {x.data(), 3, 6}}, {}));
}

TEST(Parallel, EveryBlockOnceForAnyThreadCount) {
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    for (const int64_t blocks : {0, 1, 2, 1000}) {
      std::vector<std::atomic<int>> seen(size(blocks));
      parallel_for(blocks, [&](int64_t block) { ++seen[size(block)]; });
      for (const auto& count : seen) EXPECT_EQ(count, 1);
    }
  }
  set_thread_count(2);
}

TEST(Parallel, NestedAndConcurrentCallersAllFinish) {
  set_thread_count(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i)
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round)
        parallel_for(4, [&](int64_t) { parallel_for(3, [&](int64_t block) { sum += block; }); });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 4 * 200 * 4 * 3);
  set_thread_count(2);
}

TEST(Backends, CpuIsThereAndOthersAreRefusedByName) {
  ASSERT_TRUE(find_backend("cpu"));
  const auto missing = find_backend("abacus");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("cpu"), std::string::npos);
  const Backend empty{.name = "empty"};
  std::vector<float> x(4);
  const Status status = matmul({.a = {x.data(), 1, 1}, .b = {x.data(), 1, 1}, .c = {x.data(), 1, 1}}, {&empty});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::unsupported);
}

// As in decoding: what a row gives does not depend on how many come with it.
TEST(Matmul, FewRowsAreEachAsAlone) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{37, 70}, {64, 256}, {3, 5}}) {
    const auto w = test::uniform(static_cast<std::size_t>(n * k), 1);
    const auto a = test::uniform(static_cast<std::size_t>(23 * k), 2);
    const auto start = test::uniform(static_cast<std::size_t>(23 * n), 3);
    for (const int64_t m : {2, 3, 7, 8, 23}) {
      std::vector<float> together(start.begin(), start.begin() + m * n), alone = together;
      ASSERT_OK(matmul({.a = {a.data(), m, k},
                        .b = {w.data(), n, k},
                        .c = {together.data(), m, n},
                        .transpose_b = true,
                        .accumulate = true},
                       {}));
      for (int64_t i = 0; i < m; ++i)
        ASSERT_OK(matmul({.a = {a.data() + i * k, 1, k},
                          .b = {w.data(), n, k},
                          .c = {alone.data() + i * n, 1, n},
                          .transpose_b = true,
                          .accumulate = true},
                         {}));
      EXPECT_EQ(together, alone) << m << " rows, " << n << " x " << k;
    }
  }
}

}  // namespace
}  // namespace rat::kernels
