// Products, norms, gates, rotations and recurrences of the cuda backend beside the CPU's. Skipped without a GPU.
#include <gtest/gtest.h>

#include <array>

#include "kernels/gated_scan/gated_scan.h"
#include "kernels/gating/gating.h"
#include "kernels/gelu/gelu.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

using test::DeviceRows;

struct Size {
  int64_t rows, cols;
};

const Size sizes[] = {{1, 1}, {3, 12}, {65, 20}, {200, 64}, {1000, 300}, {70, 2048}};

std::vector<float> random(int64_t rows, int64_t cols, uint64_t seed) {
  return test::uniform(static_cast<std::size_t>(rows * cols), seed, -2.0f, 2.0f);
}

// Runs `op` on both backends and compares what it leaves in the named tensors. op(exec, tensors...).
class Both {
 public:
  explicit Both(const Backend& device) : device_(device) {}
  void add(const std::vector<float>& values, int64_t rows, int64_t cols) {
    cpu_.emplace_back(cpu_backend(), values, rows, cols);
    gpu_.emplace_back(device_, values, rows, cols);
  }
  template <class Run>
  void expect_alike(const Run& run, double bound) {
    ASSERT_OK(run(Exec{.backend = &cpu_backend()}, cpu_));
    ASSERT_OK(run(Exec{.backend = &device_}, gpu_));
    for (std::size_t i = 0; i < cpu_.size(); ++i) {
      const auto expected = cpu_[i].read(), actual = gpu_[i].read();
      EXPECT_LE(test::relative_error(actual, expected), bound) << "tensor " << i;
    }
  }

 private:
  const Backend& device_;
  std::vector<DeviceRows> cpu_, gpu_;
};

using Tensors = std::vector<DeviceRows>;

TEST(CudaRows, ProductsOfEveryForm) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 1, 1}, {3, 5, 7}, {64, 48, 32}, {1, 256, 64}, {130, 33, 1000}})
    for (const Dtype dtype : {Dtype::f32, Dtype::bf16})
      for (int form = 0; form < 5; ++form) {
        const bool ta = form == 2, tb = form == 1 || form >= 3;
        Both both(*device);
        both.add(ta ? random(k, m, 1) : random(m, k, 1), ta ? k : m, ta ? m : k);
        both.add(tb ? random(n, k, 2) : random(k, n, 2), tb ? n : k, tb ? k : n);
        both.add(form == 3 ? random(m, n, 3) : test::poison(static_cast<std::size_t>(m * n)), m, n);
        both.add(random(m, n, 4), m, n);
        both.expect_alike(
              [&](const Exec& exec, Tensors& t) {
                return matmul({.a = t[0],
                               .b = t[1],
                               .c = t[2],
                               .transpose_a = ta,
                               .transpose_b = tb,
                               .accumulate = form == 3,
                               .addend = form == 4 ? t[3].data() : nullptr,
                               .dtype = cpu_supports(dtype) ? dtype : Dtype::f32},
                              exec);
              },
              dtype == Dtype::f32 ? 2e-6 : 1e-5);
      }
}

TEST(CudaRows, ColumnsOfWiderTensorsAreOperandsToo) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  Both both(*device);
  both.add(random(40, 50, 1), 40, 50);
  both.add(random(30, 21, 2), 30, 21);
  both.add(random(40, 61, 3), 40, 61);
  both.expect_alike(
      [&](const Exec& exec, Tensors& t) {
        return matmul({.a = t[0].rows().columns(3, 21),
                       .b = t[1].rows(),
                       .c = t[2].rows().columns(5, 30),
                       .transpose_b = true},
                      exec);
      },
      2e-6);
}

TEST(CudaRows, NormsAndTheirGradients) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  for (const auto& [rows, cols] : sizes)
    for (const bool add : {false, true}) {
      if (cols == 1) continue;  // its gradient is zero but for rounding
      Both both(*device);
      both.add(random(rows, cols, 1), rows, cols);
      both.add(random(1, cols, 2), 1, cols);
      both.add(random(rows, cols, 3), rows, cols);
      both.add(test::poison(static_cast<std::size_t>(rows * cols)), rows, cols);
      both.add(add ? random(rows, cols, 4) : test::poison(static_cast<std::size_t>(rows * cols)), rows, cols);
      both.add(random(1, cols, 5), 1, cols);
      both.expect_alike(
          [&](const Exec& exec, Tensors& t) -> Status {
            RAT_TRY(rms_norm({.x = t[0], .weight = t[1].span(), .y = t[3]}, exec));
            return rms_norm_backward({.x = t[0],
                                      .weight = t[1].span(),
                                      .grad_y = t[2],
                                      .grad_x = t[4],
                                      .grad_weight = t[5].span(),
                                      .add_grad_x = add},
                                     exec);
          },
          1e-5);
    }
}

TEST(CudaRows, GatesAndGeluAndTheirGradients) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  for (const auto& [rows, cols] : sizes) {
    Both both(*device);
    for (uint64_t i = 0; i < 8; ++i) both.add(random(rows, cols, i), rows, cols);
    both.add(random(1, cols, 9), 1, cols);
    both.add(random(1, cols, 10), 1, cols);
    both.expect_alike(
        [&](const Exec& exec, Tensors& t) -> Status {
          RAT_TRY(sigmoid({.x = t[0], .bias = t[8].span()}, exec));
          RAT_TRY(sigmoid({.x = t[1], .bias = {}}, exec));
          RAT_TRY(output_gate({.gate = t[0], .y = t[2], .mixed = t[3]}, exec));
          RAT_TRY(output_gate_backward(
              {.gate = t[0], .y = t[2], .grad_mixed = t[4], .grad_y = t[5], .grad_gate = t[6]}, exec));
          RAT_TRY(gate_gradient({.gate = t[0], .grad = t[6], .grad_bias = t[9].span()}, exec));
          RAT_TRY(gelu({.x = t[2], .y = t[3]}, exec));
          return gelu_backward({.x = t[2], .y = t[1], .grad = t[7]}, exec);
        },
        1e-5);
  }
}

TEST(CudaRows, RotationsOfEveryForm) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  RopeTable here(16, 10000.0), there(16, 10000.0, *device);
  here.ensure(40);
  there.ensure(40);
  for (const bool inverse : {false, true})
    for (const bool add : {false, true})
      for (const bool rotated : {false, true}) {
        Both both(*device);
        both.add(random(60, 48, 1), 60, 48);
        both.add(add ? random(60, 48, 2) : test::poison(60 * 48), 60, 48);
        both.expect_alike(
            [&](const Exec& exec, Tensors& t) {
              const RopeTable* table = exec.backend->host ? &here : &there;
              return rope({.x = t[0],
                           .y = t[1],
                           .table = rotated ? table : nullptr,
                           .tokens = 20,
                           .chunk_len = 3,
                           .first = 7,
                           .inverse = inverse,
                           .add = add},
                          exec);
            },
            1e-6);
      }
}

// Chunks shorter and longer than a walk, short last chunks, shared inputs, states that go on.
TEST(CudaRows, RecurrencesAndTheirGradients) {
  RAT_REQUIRE_BACKEND(device, "cuda");
  for (const auto& [tokens, chunk] : {std::array<int64_t, 2>{1, 1}, {7, 3}, {64, 16}, {300, 300}, {1000, 130}, {513, 600}})
    for (const int64_t width : {12, 4})
      for (const bool resumed : {false, true}) {
        const int64_t rows = 2 * tokens, D = 12;
        Both both(*device);
        both.add(test::uniform(static_cast<std::size_t>(rows * D), 1, 0.0f, 1.0f), rows, D);
        both.add(random(rows, width, 2), rows, width);
        both.add(test::poison(static_cast<std::size_t>(rows * D)), rows, D);
        both.add(random(rows, D, 3), rows, D);
        both.add(resumed ? random(rows, width, 6) : test::poison(static_cast<std::size_t>(rows * width)), rows, width);
        both.add(random(rows, D, 4), rows, D);
        both.add(random(2, D, 5), 2, D);
        both.expect_alike(
            [&](const Exec& exec, Tensors& t) -> Status {
              RAT_TRY(gated_scan({t[0], t[1], t[2], tokens, chunk, resumed ? Input(t[6]) : Input()}, exec));
              if (resumed) return ok();
              return gated_scan_backward({.gate = t[0],
                                          .input = t[1],
                                          .state = t[2],
                                          .grad_state = t[3],
                                          .grad_input = t[4],
                                          .grad_gate = t[5],
                                          .add_grad_gate = true,
                                          .tokens = tokens,
                                          .chunk_len = chunk},
                                         exec);
            },
            1e-5);
      }
}

}  // namespace
}  // namespace rat::kernels
