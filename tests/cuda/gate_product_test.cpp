#include "kernels/cuda/gate_product.h"

#include <algorithm>

#include "kernels/cuda/gemm.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

RatShape shape_of(int64_t batch, int64_t tokens, int64_t heads, int64_t head_size) {
  RatShape s;
  s.batch = batch, s.tokens = tokens, s.heads = heads, s.head_size = head_size, s.groups = 1, s.chunk_len = 16;
  return s;
}

std::string name_of(const RatShape& s, GatePath path) {
  return std::string("gate_product_backward ") + (path == GatePath::fused ? "fused " : "separate ") + std::to_string(s.batch) +
         "x" + std::to_string(s.tokens) + " " + std::to_string(s.heads) + "x" + std::to_string(s.head_size) + " ";
}

struct Expected {
  Doubles grad_out, grad_z, delta;
};

Expected expect(const RatShape& s, const Doubles& grad, const Doubles& weight, const Doubles& y, const Doubles& z, int64_t stride) {
  const auto D = static_cast<std::size_t>(s.channels()), P = static_cast<std::size_t>(s.head_size);
  const auto rows = static_cast<std::size_t>(s.rows()), T = static_cast<std::size_t>(s.tokens), H = static_cast<std::size_t>(s.heads);
  Expected e{Doubles(rows * D), Doubles(rows * D), Doubles(rows * H)};
  for (std::size_t row = 0; row < rows; ++row) {
    Doubles grad_y(D);
    for (std::size_t k = 0; k < D; ++k)
      for (std::size_t j = 0; j < D; ++j) grad_y[j] += grad[row * D + k] * weight[k * D + j];
    for (std::size_t j = 0; j < D; ++j) {
      const double open = 1.0 / (1.0 + std::exp(-z[row * static_cast<std::size_t>(stride) + j]));
      e.grad_out[row * D + j] = grad_y[j] * open;
      e.grad_z[row * D + j] = grad_y[j] * y[row * D + j] * (1.0 - open);
      e.delta[(row / T * H + j / P) * T + row % T] += grad_y[j] * y[row * D + j];
    }
  }
  return e;
}

// z lies in rows that are wider than D, as in the projected tensor, and is overwritten; what lies beside it is not.
void gate_case(Checks& checks, Gemm& gemm, const RatShape& s) {
  std::mt19937_64 random(static_cast<uint64_t>(s.rows() * 41 + s.channels()));
  const int64_t D = s.channels(), rows = s.rows(), stride = s.proj_width();
  const Doubles grad = random_values<bf16>(rows * D, random);
  const Doubles weight = random_values<bf16>(D * D, random, 1.0 / std::sqrt(static_cast<double>(D)));
  const Doubles y = random_values<bf16>(rows * D, random), proj = random_values<bf16>(rows * stride, random, 1.5);
  const Expected e = expect(s, grad, weight, y, proj, stride);
  const Device<bf16> dgrad(grad), dweight(weight), dy(y);
  std::vector<GatePath> paths{GatePath::separate};
  if (best_gate_path<bf16>(s) == GatePath::fused) paths.push_back(GatePath::fused);
  for (const GatePath path : paths) {
    Device<bf16> dproj(proj), grad_out(rows * D);
    Device<float> delta(rows * s.heads);
    grad_out.poison(), delta.poison();
    require(gate_product_backward<bf16>({s, dgrad.get(), dweight.get(), dy.get(), dproj.get(), stride, grad_out.get(), dproj.get(),
                                         stride, delta.get()},
                                        path, gemm, nullptr));
    require(cudaDeviceSynchronize(), "gate_product_backward");
    const Doubles written = dproj.values();
    Doubles grad_z, beside, untouched;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t j = 0; j < stride; ++j) {
        const auto at = static_cast<std::size_t>(row * stride + j);
        if (j < D) grad_z.push_back(written[at]);
        else beside.push_back(written[at]), untouched.push_back(proj[at]);
      }
    checks.within(name_of(s, path) + "grad_out", grad_out.values(), e.grad_out, 6e-3);
    checks.within(name_of(s, path) + "grad_z", grad_z, e.grad_z, 8e-3);
    checks.within(name_of(s, path) + "delta", delta.values(), e.delta, 6e-3);
    checks.that(name_of(s, path) + "leaves the other columns", beside == untouched);
  }
}

}  // namespace

void test_gate_products(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  // One row; parts of tiles; half a tile of columns; tiles across sequences; more tiles than the device takes at a time;
  // the same of deep products.
  for (const RatShape& s : {shape_of(1, 1, 1, 64), shape_of(3, 43, 2, 64), shape_of(2, 150, 3, 64), shape_of(1, 300, 1, 128),
                            shape_of(5, 77, 3, 128), shape_of(3, 1400, 8, 64), shape_of(2, 2100, 4, 128),
                            shape_of(1, 130, 9, 128), shape_of(2, 2150, 9, 128)})
    gate_case(checks, gemm, s);
}

void test_few_gate_products(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  for (const RatShape& s : {shape_of(3, 43, 2, 64), shape_of(2, 150, 3, 64)}) gate_case(checks, gemm, s);
}

}  // namespace rat::cuda_test
