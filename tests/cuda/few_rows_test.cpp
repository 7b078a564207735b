// Products of few rows against float64: parts of tiles in every direction, more steps of k than there are stages, one block and
// a cluster for the same columns.
#include "kernels/cuda/few_rows.h"

#include <algorithm>

#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

struct Case {
  int64_t rows, n, k;
  std::string name(const char* what) const {
    return std::string("few rows: ") + what + " " + std::to_string(rows) + "x" + std::to_string(n) + "x" +
           std::to_string(k);
  }
};

// (rows, n) = x (rows, k) weight (n, k)^T
Doubles product(const Doubles& x, const Doubles& weight, const Case& c) {
  Doubles result(static_cast<std::size_t>(c.rows * c.n));
  for (int64_t i = 0; i < c.rows; ++i)
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0.0;
      for (int64_t k = 0; k < c.k; ++k)
        sum += x[static_cast<std::size_t>(i * c.k + k)] * weight[static_cast<std::size_t>(j * c.k + k)];
      result[static_cast<std::size_t>(i * c.n + j)] = sum;
    }
  return result;
}

struct Operands {
  Device<bf16> x, weight;
  Doubles expected;
};

Operands operands(const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.rows * 31 + c.n * 7 + c.k));
  const Doubles x = random_values<bf16>(c.rows * c.k, random);
  const Doubles weight = random_values<bf16>(c.n * c.k, random, 1.5 / std::sqrt(static_cast<double>(c.k)));
  return {Device<bf16>(x), Device<bf16>(weight), product(x, weight, c)};
}

template <class X>
void finish(const FewRowsArgs<X>& args) {
  require(few_rows_product<X>(args, nullptr));
  require(cudaDeviceSynchronize(), "few_rows_product");
}

void check_case(Checks& checks, const Case& c) {
  const Operands of = operands(c);
  const int64_t count = c.rows * c.n;
  Device<float> wide(count);
  finish<float>({.x = of.x.get(), .weight = of.weight.get(), .out = wide.get(), .rows = c.rows, .n = c.n, .k = c.k});
  checks.within(c.name("f32"), wide.values(), of.expected, 2e-6);
  Device<bf16> narrow(count);
  finish<bf16>({.x = of.x.get(), .weight = of.weight.get(), .out = narrow.get(), .rows = c.rows, .n = c.n, .k = c.k});
  checks.within(c.name("bf16"), narrow.values(), of.expected, 2e-3);

  std::mt19937_64 random(9);
  Doubles sum = random_values<float>(count, random);
  wide.set(sum);
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += of.expected[i];
  finish<float>({.x = of.x.get(),
                 .weight = of.weight.get(),
                 .residual = wide.get(),
                 .out = wide.get(),
                 .rows = c.rows,
                 .n = c.n,
                 .k = c.k});
  checks.within(c.name("added in place"), wide.values(), sum, 2e-6);

  Doubles activated = of.expected;
  for (double& x : activated) x *= 0.5 * std::erfc(-x * std::sqrt(0.5));
  narrow.poison();
  finish<bf16>({.x = of.x.get(),
                .weight = of.weight.get(),
                .gelu = true,
                .out = narrow.get(),
                .rows = c.rows,
                .n = c.n,
                .k = c.k});
  checks.within(c.name("GELU"), narrow.values(), activated, 3e-3);
}

// Rows that are normed within the product, with their root where they are joined.
void check_norm(Checks& checks, const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.rows * 13 + c.n + c.k));
  const Doubles x = random_values<float>(c.rows * c.k, random, 7.0, 1.0),
                norm = random_values<float>(c.k, random, 0.5, 1.0);
  const Doubles weight = random_values<bf16>(c.n * c.k, random, 1.5 / std::sqrt(static_cast<double>(c.k)));
  Doubles normed = x;
  for (int64_t row = 0; row < c.rows; ++row) {
    double squares = 0.0;
    for (int64_t i = 0; i < c.k; ++i)
      squares += x[static_cast<std::size_t>(row * c.k + i)] * x[static_cast<std::size_t>(row * c.k + i)];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(c.k) + 1e-6);
    for (int64_t i = 0; i < c.k; ++i)
      normed[static_cast<std::size_t>(row * c.k + i)] *= scale * norm[static_cast<std::size_t>(i)];
  }
  const Doubles expected = product(normed, weight, c);
  Doubles activated = expected;
  for (double& value : activated) value *= 0.5 * std::erfc(-value * std::sqrt(0.5));
  const Device<float> dx(x), dnorm(norm);
  const Device<bf16> dweight(weight);
  Device<bf16> out(c.rows * c.n);
  Device<int32_t> counter(Doubles{41.0});
  FewRowsArgs<bf16> args{
      .weight = dweight.get(), .norm = {dx.get(), dnorm.get()}, .out = out.get(), .rows = c.rows, .n = c.n, .k = c.k};
  args.counter = counter.get();
  finish(args);
  checks.within(c.name("normed"), out.values(), expected, 4e-3);
  checks.that(c.name("counted"), counter.values()[0] == 42.0);
  out.poison();
  args.gelu = true;
  finish(args);
  checks.within(c.name("normed, GELU"), out.values(), activated, 6e-3);
}

// A row's sums do not depend on how many rows there are.
void check_rows_alone(Checks& checks) {
  const Case c{64, 264, 1032};
  const Operands of = operands(c);
  Device<float> all(c.rows * c.n), one(c.n);
  finish<float>({.x = of.x.get(), .weight = of.weight.get(), .out = all.get(), .rows = c.rows, .n = c.n, .k = c.k});
  const Doubles together = all.values();
  bool equal = true;
  for (const int64_t row : {0, 17, 63}) {
    finish<float>(
        {.x = of.x.get() + row * c.k, .weight = of.weight.get(), .out = one.get(), .rows = 1, .n = c.n, .k = c.k});
    const Doubles alone = one.values();
    equal = equal && std::equal(alone.begin(), alone.end(), together.begin() + row * c.n);
  }
  checks.that(c.name("a row alone is the same"), equal);
}

// Each product reads what the one before wrote: with all of them on their way, as with a wait after each.
void check_chain(Checks& checks, int links) {
  const Case c{40, 512, 512};
  const Operands of = operands({c.rows, c.n, c.k});
  std::vector<unsigned char> results[2];
  for (const bool waits : {false, true}) {
    Device<bf16> from(c.rows * c.k), to(c.rows * c.n);
    require(cudaMemcpy(from.get(), of.x.get(), from.bytes(), cudaMemcpyDeviceToDevice), "a copy");
    const bf16* x = from.get();
    bf16* out = to.get();
    for (int link = 0; link < links; ++link) {
      require(few_rows_product<bf16>(
          {.x = x, .weight = of.weight.get(), .out = out, .rows = c.rows, .n = c.n, .k = c.k}, nullptr));
      if (waits) require(cudaDeviceSynchronize(), "few_rows_product");
      x = out, out = out == to.get() ? from.get() : to.get();
    }
    require(cudaDeviceSynchronize(), "few_rows_product");
    results[waits] = x == from.get() ? from.raw() : to.raw();
  }
  checks.that(c.name("a chain"), results[0] == results[1]);
}

// Other GPUs, and builds without 90a, take cuBLASLt's products in their place.
bool is_there() {
  if (few_rows_takes(1, 8, 8)) return true;
  std::printf("SKIPPED: products of few rows, which Hopper alone has\n");
  return false;
}

}  // namespace

void test_few_rows(Checks& checks) {
  if (!is_there()) return;
  for (const Case& c : {Case{1, 8, 8},
                        {1, 1024, 512},
                        {3, 136, 72},
                        {16, 128, 64},
                        {17, 264, 1000},
                        {32, 832, 256},
                        {33, 2056, 136},
                        {64, 2048, 2048},
                        {5, 64, 8192},
                        {2, 17000, 72},
                        {2, 17000, 520}})
    check_case(checks, c);
  for (const Case& c : {Case{1, 8, 8}, {1, 3336, 2048}, {3, 136, 72}, {16, 264, 1000}, {7, 64, 4096}, {2, 17000, 520}})
    check_norm(checks, c);
  check_rows_alone(checks);
  for (int run = 0; run < 20; ++run) check_chain(checks, 50);
}

void test_small_few_rows(Checks& checks) {
  if (!is_there()) return;
  for (const Case& c : {Case{3, 136, 72}, {17, 264, 520}, {40, 128, 136}}) check_case(checks, c);
  for (const Case& c : {Case{3, 136, 72}, {16, 264, 520}}) check_norm(checks, c);
  check_chain(checks, 4);
}

}  // namespace rat::cuda_test
