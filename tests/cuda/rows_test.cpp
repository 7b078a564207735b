#include <algorithm>

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/rms_norm.h"
#include "tests/cuda/suites.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

template <class T>
constexpr const char* kName = std::is_same_v<T, float> ? "f32" : "bf16";

// X: type of the residual stream; where it is not T, backward also leaves a rounded copy.
template <class T, class X = T>
void norm_case(Checks& checks, int64_t rows, int64_t channels, bool residual) {
  std::mt19937_64 random(static_cast<uint64_t>(rows * 7919 + channels));
  const Doubles x = random_values<X>(rows * channels, random, 2.0), grad_y = random_values<T>(rows * channels, random);
  const Doubles rest = random_values<T>(rows * channels, random), weight = random_values<float>(channels, random, 0.3, 1.0);
  Doubles y(x.size()), grad_x(x.size()), grad_weight(weight.size(), 0.0), rstd(static_cast<std::size_t>(rows));
  for (int64_t n = 0; n < rows; ++n) {
    const std::size_t first = static_cast<std::size_t>(n * channels);
    double squares = 0.0, dot = 0.0;
    for (std::size_t c = 0; c < weight.size(); ++c) squares += x[first + c] * x[first + c];
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(channels) + 1e-6);
    rstd[static_cast<std::size_t>(n)] = r;
    for (std::size_t c = 0; c < weight.size(); ++c) {
      y[first + c] = x[first + c] * r * weight[c];
      dot += grad_y[first + c] * weight[c] * x[first + c];
      grad_weight[c] += grad_y[first + c] * x[first + c] * r;
    }
    for (std::size_t c = 0; c < weight.size(); ++c)
      grad_x[first + c] = r * (grad_y[first + c] * weight[c] - x[first + c] * r * r * dot / static_cast<double>(channels)) +
                          (residual ? rest[first + c] : 0.0);
  }
  Device<T> dgrad(grad_y), dy(rows * channels), drest(rest), dgx(rows * channels);
  Device<X> dx(x);
  Device<float> dw(weight), drstd(rows), dgw(channels), work(rms_norm_workspace(rows, channels));
  require(rms_norm<T, X>({dx.get(), dw.get(), dy.get(), drstd.get(), rows, channels, 1e-6f}, nullptr));
  RmsNormBackwardArgs<T, X> back{dx.get(), dw.get(), drstd.get(), dgrad.get(), residual ? drest.get() : nullptr, dgx.get()};
  back.grad_weight = dgw.get(), back.workspace = work.get(), back.rows = rows, back.channels = channels;
  require(rms_norm_backward<T, X>(back, nullptr));
  require(cudaDeviceSynchronize(), "rms_norm");
  const std::string name = "rms_norm " + std::string(kName<T>) + (std::is_same_v<T, X> ? "" : " of an f32 stream") + " (" + std::to_string(rows) + ", " + std::to_string(channels) + ") ";
  const double bound = std::is_same_v<T, float> ? 2e-6 : 4e-3;
  checks.within(name + "y", dy.values(), y, bound);
  checks.within(name + "rstd", drstd.values(), rstd, 2e-6);
  checks.within(name + "grad_x", dgx.values(), grad_x, bound);
  checks.within(name + "grad_weight", dgw.values(), grad_weight, 5e-6);
}

template <class T, class Out>
void gemm_case(Checks& checks, Gemm& gemm, bool ta, bool tb, int64_t m, int64_t n, int64_t k, bool add) {
  std::mt19937_64 random(static_cast<uint64_t>(m * 31 + n * 17 + k));
  const Doubles a = random_values<T>(m * k, random), b = random_values<T>(k * n, random), c = random_values<Out>(m * n, random);
  Doubles reference(static_cast<std::size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = add ? c[static_cast<std::size_t>(i * n + j)] : 0.0;
      for (int64_t l = 0; l < k; ++l)
        sum += a[static_cast<std::size_t>(ta ? l * m + i : i * k + l)] * b[static_cast<std::size_t>(tb ? j * k + l : l * n + j)];
      reference[static_cast<std::size_t>(i * n + j)] = sum;
    }
  Device<T> da(a), db(b);
  Device<Out> dc(c), dd(m * n);
  GemmArgs args;
  args.transpose_a = ta, args.transpose_b = tb;
  args.m = m, args.n = n, args.k = k;
  args.a = da.get(), args.b = db.get(), args.c = add ? dc.get() : nullptr, args.d = dd.get();
  args.lda = ta ? m : k, args.ldb = tb ? k : n, args.ldd = n;
  args.type = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;
  args.out_type = std::is_same_v<Out, float> ? CUDA_R_32F : CUDA_R_16BF;
  require(gemm.run(args, nullptr));
  require(cudaDeviceSynchronize(), "matmul");
  checks.within("matmul " + std::string(kName<T>) + "->" + kName<Out> + (ta ? " a^T" : " a") + (tb ? " b^T " : " b ") +
                    std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + (add ? " + c" : ""),
                dd.values(), reference, std::is_same_v<Out, float> ? 2e-6 : 4e-3);
}

void sums_case(Checks& checks, int64_t rows, int64_t cols) {
  std::mt19937_64 random(static_cast<uint64_t>(rows));
  const Doubles values = random_values<float>(rows * cols, random, 1.0, 0.5);
  Doubles sums(static_cast<std::size_t>(cols), 0.0);
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % sums.size()] += values[i];
  Device<float> in(values), out(cols), work(column_sums_workspace(rows, cols));
  require(column_sums(in.get(), rows, cols, work.get(), out.get(), nullptr));
  require(cudaDeviceSynchronize(), "column_sums");
  checks.within("column_sums (" + std::to_string(rows) + ", " + std::to_string(cols) + ")", out.values(), sums, 2e-6);
}

}  // namespace

void test_rows(Checks& checks) {
  for (const auto& [rows, channels] : {std::pair<int64_t, int64_t>{1, 8}, {3, 24}, {33, 256}, {1000, 264}, {65, 512},
                                      {129, 768}, {37, 1024}, {4099, 2048}, {5, 2048}, {63, 1032}}) {
    norm_case<float>(checks, rows, channels, true);
    norm_case<bf16>(checks, rows, channels, rows % 2 == 0);
    norm_case<bf16, float>(checks, rows, channels, rows % 2 == 1);
  }
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {63, 33}, {64, 31}, {65, 100}, {2048, 40}, {2049, 40}, {5001, 129}})
    sums_case(checks, rows, cols);
  Gemm gemm;
  require(gemm.create());
  for (const bool ta : {false, true})
    for (const bool tb : {false, true})
      for (const bool add : {false, true}) {
        gemm_case<float, float>(checks, gemm, ta, tb, 72, 56, 136, add);
        gemm_case<bf16, bf16>(checks, gemm, ta, tb, 72, 56, 136, add);
        gemm_case<bf16, float>(checks, gemm, ta, tb, 64, 128, 520, false);
      }
  gemm.set_tuning(true);
  gemm_case<bf16, bf16>(checks, gemm, false, true, 256, 384, 512, true);
  gemm_case<float, float>(checks, gemm, false, true, 1, 104, 24, false);
}

}  // namespace rat::cuda_test
