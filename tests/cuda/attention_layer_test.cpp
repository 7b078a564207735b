// Whole layers of attention over tokens against float64: from weights and residual stream to their gradients.
#include "kernels/cuda/attention_layer.h"

#include "kernels/cuda/chunk_scan.h"
#include "kernels/cuda/rms_norm.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kForwardBound = 8e-3, kBackwardBound = 1.6e-2;  // every tensor between the streams is rounded to bf16

// op(a) (m, k) op(b) (k, n) of row-major matrices with row strides.
Doubles product(const Doubles& a, bool a_turned, int64_t lda, const Doubles& b, bool b_turned, int64_t ldb, int64_t m,
                int64_t n, int64_t k) {
  Doubles result(at(m * n), 0.0);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t l = 0; l < k; ++l)
        result[at(i * n + j)] += a[at(a_turned ? l * lda + i : i * lda + l)] * b[at(b_turned ? j * ldb + l : l * ldb + j)];
  return result;
}

// A whole layer from weights and residual stream to their gradients, which are added to what was there.
struct LayerReference {
  TokenReference core;
  bool positions = true;
  Doubles x, grad, norm, in_proj, out_proj;  // (N, D), (N, D), (D), (3D, D), (D, D)
  Doubles out, grad_x, grad_norm, grad_in_proj, grad_out_proj;

  explicit LayerReference(const RatShape& s) {
    std::mt19937_64 random(77);
    const int64_t D = s.channels(), N = s.rows();
    const double size = 1.0 / std::sqrt(static_cast<double>(D));
    core.s = s;
    x = random_values<float>(N * D, random), grad = random_values<bf16>(N * D, random);
    norm = random_values<float>(D, random, 0.3, 1.0);
    in_proj = random_values<bf16>(3 * D * D, random, size), out_proj = random_values<bf16>(D * D, random, size);
    grad_norm = random_values<float>(D, random);
    grad_in_proj = random_values<float>(3 * D * D, random), grad_out_proj = random_values<float>(D * D, random);
  }
  void run() {
    const int64_t D = core.s.channels(), N = core.s.rows(), W = core.width();
    Doubles normed = x, rstd(at(N), 0.0);
    for (int64_t i = 0; i < N * D; ++i) rstd[at(i / D)] += x[at(i)] * x[at(i)] / static_cast<double>(D);
    for (double& r : rstd) r = 1.0 / std::sqrt(r + 1e-6);
    for (int64_t i = 0; i < N * D; ++i) normed[at(i)] *= rstd[at(i / D)] * norm[at(i % D)];
    const Doubles proj = product(normed, false, D, in_proj, true, D, N, 3 * D, D);
    core.proj.assign(at(N * W), 0.0);
    for (int64_t n = 0; n < N; ++n) std::copy_n(proj.begin() + n * 3 * D, 3 * D, core.proj.begin() + n * W);
    if (positions) rotate_rows(core.proj, core, 1.0);
    core.grad_y = product(grad, false, D, out_proj, false, D, N, D, D);
    core.run();
    if (positions) rotate_rows(core.grad_proj, core, -1.0);
    out = product(core.y, false, D, out_proj, true, D, N, D, D);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += x[i];
    add(grad_out_proj, product(grad, true, D, core.y, false, D, D, D, N));
    add(grad_in_proj, product(core.grad_proj, true, W, normed, false, D, 3 * D, D, N));
    const Doubles grad_normed = product(core.grad_proj, false, W, in_proj, false, D, N, D, 3 * D);
    Doubles mean(at(N), 0.0);
    for (int64_t i = 0; i < N * D; ++i)
      mean[at(i / D)] += grad_normed[at(i)] * norm[at(i % D)] * x[at(i)] / static_cast<double>(D);
    grad_x = grad;
    for (int64_t i = 0; i < N * D; ++i) {
      const double r = rstd[at(i / D)];
      grad_norm[at(i % D)] += grad_normed[at(i)] * x[at(i)] * r;
      grad_x[at(i)] += r * (grad_normed[at(i)] * norm[at(i % D)] - x[at(i)] * r * r * mean[at(i / D)]);
    }
  }

 private:
  static void add(Doubles& to, const Doubles& more) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  }
};

void layer_case(Checks& checks, Gemm& gemm, const RatShape& s, bool positions) {
  LayerReference r(s);
  r.positions = positions;
  const int64_t D = s.channels(), N = s.rows();
  Device<float> x(r.x), norm(r.norm), out(N * D), rope(s.tokens * s.head_size);
  Device<bf16> in_proj(r.in_proj), out_proj(r.out_proj), normed(N * D), proj(N * 3 * D), y(N * D), grad(r.grad),
      grad_y(N * D), grad_proj(N * 3 * D);
  Device<float> rstd(N), lse(N * s.heads), delta(N * s.heads), workspace(rms_norm_workspace(N, D));
  Device<float> grad_norm(r.grad_norm), grad_in_proj(r.grad_in_proj), grad_out_proj(r.grad_out_proj);
  r.run();
  auto* const turns = reinterpret_cast<float2*>(rope.get());
  require(rope_table(turns, s.tokens, s.head_size, 10000.0, nullptr));
  AttentionLayerArgs a;
  a.shape = s;
  a.weights = {norm.get(), in_proj.get(), out_proj.get()};
  a.buffers = {normed.get(), proj.get(), y.get(), rstd.get(), lse.get(), grad_y.get(), grad_proj.get(), delta.get(),
               workspace.get()};
  a.rope = positions ? turns : nullptr;
  a.path = best_path<bf16>(s.head_size);
  a.x = a.residual = x.get(), a.out = out.get();
  require(attention_layer(a, gemm, nullptr));
  AttentionLayerBackwardArgs back;
  back.forward = a, back.grad = grad.get();
  back.gradients = {grad_norm.get(), grad_in_proj.get(), grad_out_proj.get()};
  require(attention_layer_backward(back, gemm, nullptr));
  require(cudaDeviceSynchronize(), "attention_layer");
  const std::string name = std::string("layer ") + path_name(a.path) + (positions ? " rope " : " ") + describe_tokens(s);
  checks.within(name + "out", out.values(), r.out, kForwardBound);
  checks.within(name + "grad_x", grad.values(), r.grad_x, kBackwardBound);
  checks.within(name + "grad_norm", grad_norm.values(), r.grad_norm, kBackwardBound);
  checks.within(name + "grad_in_proj", grad_in_proj.values(), r.grad_in_proj, kBackwardBound);
  checks.within(name + "grad_out_proj", grad_out_proj.values(), r.grad_out_proj, kBackwardBound);
}

}  // namespace

void test_attention_layers(Checks& checks) {
  Gemm gemm;
  require(gemm.create());
  for (const bool positions : {false, true})
    for (const int64_t P : {64, 128})
      for (const int64_t window : {-1, 30}) layer_case(checks, gemm, attention_shape(2, 70, 2, P, window), positions);
}

}  // namespace rat::cuda_test
