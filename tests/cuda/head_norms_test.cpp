// Norms of heads against float64: one part and the sum of two, gradients of inputs and weights, delta.
#include "kernels/cuda/head_norms.h"

#include "kernels/cuda/attention_layer.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kBound = 4e-3,
                 kWeightBound = 1e-5;  // results are rounded to bf16; gradients of weights and delta are not

struct NormsReference {
  RatShape s;
  int parts;
  Doubles x[2], weight[2], grad_y;
  Doubles y, grad_x[2], grad_weight[2], delta;

  NormsReference(const RatShape& shape, int count) : s(shape), parts(count) {
    std::mt19937_64 random(11);
    const int64_t D = s.channels(), N = s.rows();
    grad_y = random_values<bf16>(N * D, random);
    for (int part = 0; part < parts; ++part) {
      x[part] = random_values<bf16>(N * D, random, part == 0 ? 1.0 : 40.0);
      weight[part] = random_values<float>(D, random, 0.3, 1.0);
      grad_weight[part] = random_values<float>(D, random);
    }
  }
  void run() {
    y.assign(at(s.rows() * s.channels()), 0.0);
    delta.assign(at(s.rows() * s.heads), 0.0);
    for (int part = 0; part < parts; ++part) {
      grad_x[part] = y;
      for (int64_t row = 0; row < s.rows(); ++row)
        for (int64_t h = 0; h < s.heads; ++h) head(part, row, h);
    }
  }

 private:
  void head(int part, int64_t row, int64_t h) {
    const int64_t P = s.head_size, first = row * s.channels() + h * P;
    double squares = 0.0, along = 0.0;
    for (int64_t i = 0; i < P; ++i) {
      const double value = x[part][at(first + i)];
      squares += value * value / static_cast<double>(P);
      along += grad_y[at(first + i)] * weight[part][at(h * P + i)] * value / static_cast<double>(P);
    }
    const double r = 1.0 / std::sqrt(squares + 1e-8);
    for (int64_t i = 0; i < P; ++i) {
      const double value = x[part][at(first + i)], w = weight[part][at(h * P + i)], g = grad_y[at(first + i)];
      y[at(first + i)] += value * r * w;
      const double to = r * (w * g - value * r * r * along);
      if (part == 0) delta[at((row / s.tokens * s.heads + h) * s.tokens + row % s.tokens)] += to * value;
      grad_x[part][at(first + i)] = to;
      grad_weight[part][at(h * P + i)] += g * value * r;
    }
  }
};

void norms_case(Checks& checks, const RatShape& s, int parts) {
  NormsReference r(s, parts);
  const int64_t D = s.channels(), N = s.rows();
  Device<bf16> x0(r.x[0]), x1(parts > 1 ? r.x[1] : r.x[0]), grad_y(r.grad_y), y(N * D), grad_x0(N * D), grad_x1(N * D);
  Device<float> w0(r.weight[0]), w1(parts > 1 ? r.weight[1] : r.weight[0]), grad_w0(r.grad_weight[0]),
      grad_w1(parts > 1 ? r.grad_weight[1] : r.grad_weight[0]), delta(N * s.heads), workspace(head_norms_workspace(s));
  r.run();
  HeadNormsArgs forward{s, {x0.get(), parts > 1 ? x1.get() : nullptr}, {w0.get(), w1.get()}, y.get()};
  require(head_norms(forward, nullptr));
  require(head_norms_backward({forward,
                               grad_y.get(),
                               {grad_x0.get(), grad_x1.get()},
                               {grad_w0.get(), grad_w1.get()},
                               parts > 1 ? delta.get() : nullptr,
                               workspace.get()},
                              nullptr));
  const std::string name = "head_norms of " + std::to_string(parts) + " " + describe_tokens(s);
  checks.within(name + "y", y.values(), r.y, kBound);
  checks.within(name + "grad_x", grad_x0.values(), r.grad_x[0], kBound);
  checks.within(name + "grad_weight", grad_w0.values(), r.grad_weight[0], kWeightBound);
  if (parts == 1) return;
  checks.within(name + "grad_x of the second", grad_x1.values(), r.grad_x[1], kBound);
  checks.within(name + "grad_weight of the second", grad_w1.values(), r.grad_weight[1], kWeightBound);
  // It is nothing but eps and rounding: a norm does not see how large its input is.
  double largest = 0.0;
  for (const double value : delta.values()) largest = std::isnan(value) ? NAN : std::max(largest, std::abs(value));
  checks.that(name + "delta", largest < 1e-4);
}

}  // namespace

void test_head_norms(Checks& checks) {
  for (const int64_t P : {64, 128})
    for (const int parts : {1, 2}) {
      norms_case(checks, attention_shape(2, 33, 3, P, -1), parts);
      norms_case(checks, attention_shape(1, 1, 1, P, -1), parts);
      norms_case(checks, attention_shape(3, 1500, 2, P, -1), parts);
    }
}

void test_few_head_norms(Checks& checks) {
  for (const int64_t P : {64, 128}) norms_case(checks, attention_shape(2, 9, 3, P, -1), 2);
}

}  // namespace rat::cuda_test
