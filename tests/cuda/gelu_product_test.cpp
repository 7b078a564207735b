#include "kernels/cuda/gelu_product.h"

#include <algorithm>

#include "kernels/cuda/gemm.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

struct Case {
  int64_t rows, channels, width;

  GeluProductArgs forward(const Device<bf16>& x, const Device<bf16>& weight, const Device<bf16>& slope,
                          const Device<bf16>& activated) const {
    return {x.get(), weight.get(), slope.get(), activated.get(), rows, channels, width};
  }
  GeluProductBackwardArgs backward(const Device<bf16>& grad, const Device<bf16>& weight, const Device<bf16>& slope,
                                   const Device<bf16>& grad_hidden) const {
    return {grad.get(), weight.get(), slope.get(), grad_hidden.get(), rows, channels, width};
  }
  std::string name(const char* what, GeluPath path) const {
    return std::string(what) + (path == GeluPath::fused ? " fused " : " separate ") + std::to_string(rows) + "x" +
           std::to_string(width) + "x" + std::to_string(channels) + " ";
  }
};

std::vector<GeluPath> paths() {
  if (best_gelu_path() == GeluPath::fused) return {GeluPath::separate, GeluPath::fused};
  return {GeluPath::separate};
}

double normal_cdf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double gelu_slope(double x) { return normal_cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * M_PI); }

// (rows, width) = a (rows, channels) times b, which is (width, channels) or (channels, width).
Doubles product(const Doubles& a, const Doubles& b, const Case& c, bool transposed) {
  Doubles result(static_cast<std::size_t>(c.rows * c.width));
  for (int64_t i = 0; i < c.rows; ++i)
    for (int64_t k = 0; k < c.channels; ++k) {
      const double left = a[static_cast<std::size_t>(i * c.channels + k)];
      for (int64_t j = 0; j < c.width; ++j)
        result[static_cast<std::size_t>(i * c.width + j)] +=
            left * b[static_cast<std::size_t>(transposed ? j * c.channels + k : k * c.width + j)];
    }
  return result;
}

void forward_case(Checks& checks, Gemm& gemm, const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.rows * 31 + c.width));
  const double scale = 1.5 / std::sqrt(static_cast<double>(c.channels));
  const Doubles x = random_values<bf16>(c.rows * c.channels, random);
  const Doubles weight = random_values<bf16>(c.width * c.channels, random, scale);
  const Doubles hidden = product(x, weight, c, true);
  Doubles activated = hidden, slope = hidden;
  for (double& value : activated) value *= normal_cdf(value);
  for (double& value : slope) value = gelu_slope(value);
  const Device<bf16> dx(x), dweight(weight);
  for (const GeluPath path : paths()) {
    Device<bf16> dslope(c.rows * c.width), dactivated(c.rows * c.width);
    require(gelu_product(c.forward(dx, dweight, dslope, dactivated), path, gemm, nullptr));
    require(cudaDeviceSynchronize(), "gelu_product");
    checks.within(c.name("gelu_product", path) + "slope", dslope.values(), slope, path == GeluPath::fused ? 4e-3 : 6e-3);
    checks.within(c.name("gelu_product", path) + "activated", dactivated.values(), activated, 6e-3);
    Device<bf16> alone(c.rows * c.width);
    GeluProductArgs no_backward = c.forward(dx, dweight, dslope, alone);
    no_backward.keep_slope = false;
    require(gelu_product(no_backward, path, gemm, nullptr));
    require(cudaDeviceSynchronize(), "gelu_product");
    checks.that(c.name("gelu_product", path) + "without its slope: the same bits", alone.values() == dactivated.values());
  }
}

void backward_case(Checks& checks, Gemm& gemm, const Case& c) {
  std::mt19937_64 random(static_cast<uint64_t>(c.rows * 37 + c.width));
  const Doubles grad = random_values<bf16>(c.rows * c.channels, random);
  const Doubles weight = random_values<bf16>(c.width * c.channels, random, 0.1);
  const Doubles slope = random_values<bf16>(c.rows * c.width, random, 0.5);
  Doubles expected = product(grad, weight, c, false);
  for (std::size_t i = 0; i < expected.size(); ++i) expected[i] *= slope[i];
  const Device<bf16> dgrad(grad), dweight(weight), dslope(slope);
  for (const GeluPath path : paths()) {
    Device<bf16> result(c.rows * c.width);
    require(gelu_product_backward(c.backward(dgrad, dweight, dslope, result), path, gemm, nullptr));
    require(cudaDeviceSynchronize(), "gelu_product_backward");
    checks.within(c.name("gelu_product_backward", path), result.values(), expected, 6e-3);
  }
}

}  // namespace

void test_gelu_products(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  // Parts of a tile in every direction; an odd number of tiles of rows; more tiles than the device takes at a time.
  for (const Case& c :
       {Case{1, 8, 8}, {127, 64, 128}, {130, 72, 136}, {300, 256, 1024}, {257, 1000, 264}, {4100, 128, 2048}, {4100, 512, 1024}}) {
    forward_case(checks, gemm, c);
    backward_case(checks, gemm, c);
  }
}

void test_few_gelu_products(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  for (const Case& c : {Case{130, 72, 136}, {300, 128, 256}}) forward_case(checks, gemm, c), backward_case(checks, gemm, c);
}

// Large hidden values: GELU is the value or zero, its slope one or zero; never NaN.
void test_hostile_gelu_products(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  const Case c{128, 8, 128};
  Doubles x(static_cast<std::size_t>(c.rows * c.channels), 0.0), weight(static_cast<std::size_t>(c.width * c.channels), 0.0);
  for (std::size_t i = 0; i < x.size(); i += 8) x[i] = i % 16 == 0 ? 1e4 : -1e4;
  for (std::size_t i = 0; i < weight.size(); i += 8) weight[i] = 1e4;
  const Device<bf16> dx(x), dweight(weight);
  for (const GeluPath path : paths()) {
    Device<bf16> slope(c.rows * c.width), activated(c.rows * c.width), grad(c.rows * c.width);
    require(gelu_product(c.forward(dx, dweight, slope, activated), path, gemm, nullptr));
    require(gelu_product_backward(c.backward(dx, dweight, slope, grad), path, gemm, nullptr));
    require(cudaDeviceSynchronize(), "gelu_product");
    Doubles expected(static_cast<std::size_t>(c.rows * c.width));
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] = i / static_cast<std::size_t>(c.width) % 2 == 0 ? 1e8 : 0.0;
    checks.within(c.name("gelu_product of 1e8", path), activated.values(), expected, 4e-3);
    const Doubles back = grad.values();
    checks.that(c.name("gelu_product_backward of 1e8, no NaN", path),
                std::all_of(back.begin(), back.end(), [](double value) { return std::isfinite(value); }));
  }
}

void test_gelu_determinism(Checks& checks, int runs) {
  Gemm gemm;
  require(gemm.create());
  const Case c{4100, 128, 1032};
  std::mt19937_64 random(5);
  const Device<bf16> x(random_values<bf16>(c.rows * c.channels, random));
  const Device<bf16> weight(random_values<bf16>(c.width * c.channels, random, 0.1));
  Device<bf16> slope(c.rows * c.width), activated(c.rows * c.width), grad(c.rows * c.width);
  std::vector<unsigned char> first, first_grad;
  bool equal = true;
  for (int run = 0; run < runs; ++run) {
    activated.poison(), grad.poison();
    require(gelu_product(c.forward(x, weight, slope, activated), best_gelu_path(), gemm, nullptr));
    require(gelu_product_backward(c.backward(x, weight, slope, grad), best_gelu_path(), gemm, nullptr));
    require(cudaDeviceSynchronize(), "gelu_product");
    if (run == 0) first = activated.raw(), first_grad = grad.raw();
    equal = equal && activated.raw() == first && grad.raw() == first_grad;
  }
  checks.that("gelu_product: " + std::to_string(runs) + " runs bit-equal", equal);
}

}  // namespace rat::cuda_test
