// Head norms, cross-entropy, embedding and AdamW of the cuda backend against the CPU's. Skipped without a GPU.
#include <array>
#include <cmath>
#include <limits>

#include "kernels/adamw/adamw.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"
#include "kernels/matmul/matmul.h"
#include "kernels/memory/memory.h"
#include "kernels/head_norm/head_norm.h"
#include "tests/support/both_backends.h"

namespace rat::kernels {
namespace {

using Results = std::vector<std::vector<float>>;

std::size_t size(int64_t n) { return static_cast<std::size_t>(n); }

TEST(CudaHeadNorm, ForwardAndBackwardAreTheCpus) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const auto& [N, H, P] : std::vector<std::array<int64_t, 3>>{
           {1, 1, 1}, {3, 2, 4}, {70, 5, 7}, {9, 3, 16}, {65, 2, 18}, {5000, 4, 64}, {33, 3, 128},
           {5, 2, 200}, {3, 1, 700}}) {
    SCOPED_TRACE(fmt::format("{} rows of {} heads of {}", N, H, P));
    const int64_t rows = N, D = H * P, head_size = P;
    const auto values = [&](uint64_t seed) { return test::uniform(size(rows * D), seed, -2, 2); };
    test::expect_parity(*backend, [&](const Backend& device) -> Results {
      const Exec exec{.backend = &device};
      const test::SpacedRows x(device, values(1), rows, D), y(device, values(2), rows, D);
      const test::SpacedRows grad_y(device, values(3), rows, D), fresh(device, test::poison(size(rows * D)), rows, D);
      const test::SpacedRows grad_x(device, test::poison(size(rows * D)), rows, D);
      const test::DeviceRows weight(device, test::uniform(size(D), 4), 1, D);
      const test::DeviceRows grad(device, test::uniform(size(D), 5), 1, D);
      EXPECT_OK(head_norm({.head_size = head_size, .x = x, .weight = weight.span(), .y = y, .add = true}, exec));
      EXPECT_OK(head_norm({.head_size = head_size, .x = x, .weight = weight.span(), .y = fresh}, exec));
      EXPECT_OK(head_norm_backward({.head_size = head_size, .x = x, .weight = weight.span(), .grad_y = grad_y,
                                    .grad_x = grad_x, .grad_weight = grad.span()},
                                   exec));
      return {y.read(), fresh.read(), grad_x.read(), grad.read()};
    });
  }
}

// Logits with a few ties for the largest.
std::vector<float> logits(int64_t N, int64_t V) {
  auto x = test::uniform(size(N * V), 1, -5, 5);
  for (int64_t i = 0; i < N; i += 3) x[size(i * V + i * 7 % V)] = x[size(i * V + V - 1)] = 6;
  return x;
}

TEST(CudaCrossEntropy, LossCountsAndGradientAreTheCpus) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const int64_t V : {2, 3, 256, 1000, 1024, 1025, 32000, 32003})
    for (const bool spaced : {false, true})
      for (const float scale : {0.0f, 0.5f}) {
        SCOPED_TRACE(fmt::format("vocabulary {}, spaced {}, scale {}", V, spaced, scale));
        const int64_t N = 37;
        std::vector<int32_t> targets = test::tokens(size(N), 2, static_cast<int32_t>(V));
        for (const std::size_t i : {4u, 5u, 36u}) targets[i] = -1;
        for (std::size_t i = 0; i < 33; i += 3)  // the first or the second of a tie
          targets[i] = static_cast<int32_t>(i % 2 == 0 ? V - 1 : static_cast<int64_t>(i) * 7 % V);
        CrossEntropySums cpu, gpu;
        test::expect_parity(*backend, [&](const Backend& device) -> Results {
          const test::SpacedRows x(device, logits(N, V), N, V, spaced);
          CrossEntropySums sums{.loss = 1, .targets = 2, .correct = 3};
          EXPECT_OK(cross_entropy({.logits = x, .targets = targets, .grad_scale = scale, .sums = &sums},
                                  {.backend = &device}));
          (&device == backend ? gpu : cpu) = sums;
          return {x.read(), {static_cast<float>(sums.loss)}};
        });
        EXPECT_EQ(gpu.targets, cpu.targets);
        EXPECT_EQ(gpu.correct, cpu.correct);
        EXPECT_NEAR(gpu.loss, cpu.loss, 1e-5 * cpu.loss);
      }
}

TEST(CudaCrossEntropy, ForbiddenAndDominantLogits) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const int64_t V : {40, 5000})
    test::expect_parity(*backend, [&](const Backend& device) -> Results {
      auto values = test::uniform(size(2 * V), 1);
      for (std::size_t i = 0; i < 33; ++i) values[i] = -std::numeric_limits<float>::infinity();
      values[size(V + 7)] = 90;
      const test::DeviceRows x(device, values, 2, V);
      CrossEntropySums sums;
      EXPECT_OK(cross_entropy({.logits = x, .targets = std::vector<int32_t>{38, 7}, .grad_scale = 1, .sums = &sums},
                              {.backend = &device}));
      return {x.read(), {static_cast<float>(sums.loss)}};
    });
}

TEST(CudaEmbedding, LooksUpAndAddsRowsOfEqualIds) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const auto& [V, D, N] : std::vector<std::array<int64_t, 3>>{
           {5, 70, 3}, {1, 1, 600}, {300, 64, 2000}, {7, 129, 3000}})
    for (const bool spaced : {false, true}) {
      SCOPED_TRACE(fmt::format("vocabulary {}, {} columns, {} ids, spaced {}", V, D, N, spaced));
      const int64_t vocab = V, cols = D, rows = N;
      auto ids = test::tokens(size(rows), 1, static_cast<int32_t>(vocab));
      for (std::size_t i = 0; i < ids.size(); i += 2) ids[i] = 0;  // one id has many rows
      test::expect_parity(*backend, [&](const Backend& device) -> Results {
        const test::SpacedRows table(device, test::uniform(size(vocab * cols), 2), vocab, cols, spaced);
        const test::SpacedRows grad(device, test::uniform(size(vocab * cols), 3), vocab, cols, spaced);
        const test::SpacedRows grad_out(device, test::uniform(size(rows * cols), 4), rows, cols, spaced);
        const test::SpacedRows out(device, test::poison(size(rows * cols)), rows, cols, spaced);
        EXPECT_OK(embedding({ids, table, out}, {.backend = &device}));
        EXPECT_OK(embedding_backward({ids, grad_out, grad}, {.backend = &device}));
        return {out.read(), grad.read()};
      });
    }
}

TEST(CudaEmbedding, AddsRowsOfBf16AsThoseOfF32) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const int64_t V = 7, D = 136, N = 3000;
  const auto ids = test::tokens(size(N), 1, static_cast<int32_t>(V));
  const Exec exec{.backend = backend};
  const test::DeviceRows values(*backend, test::uniform(size(N * D), 4), N, D);
  const test::DeviceRows memory(*backend, test::poison(size(N * D / 2)), N, D / 2);  // of N * D bf16
  auto* const rounded = reinterpret_cast<uint16_t*>(memory.rows().data);
  ASSERT_OK(round_weights({.x = {values.rows().data, size(N * D)}, .out = {rounded, size(N * D)}}, exec));
  const test::DeviceRows unread(*backend, test::poison(size(N * D)), N, D);
  const test::DeviceRows table(*backend, test::uniform(size(V * D), 3), V, D), same(*backend, test::uniform(size(V * D), 3), V, D);
  ASSERT_OK(embedding_backward({ids, unread, table, rounded}, exec));
  ASSERT_OK(widen({.x = rounded, .y = unread}, exec));
  ASSERT_OK(embedding_backward({ids, unread, same}, exec));
  EXPECT_EQ(table.read(), same.read());
  EXPECT_NE(unread.read(), values.read());  // it was rounded
}

TEST(CudaAdamW, ThreeStepsOfManyTensorsAreTheCpus) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  std::vector<int64_t> sizes{37, 0, 50001, 16384, 1};
  sizes.resize(600, 3);  // more than one launch takes
  test::expect_parity(*backend, [&](const Backend& device) {
    std::vector<test::DeviceRows> values, grads, means, squares;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      const auto rows = [&](std::vector<float> x) { return test::DeviceRows(device, x, 1, sizes[i]); };
      values.push_back(rows(test::uniform(size(sizes[i]), i)));
      means.push_back(rows(std::vector<float>(size(sizes[i]), 0.0f)));
      squares.push_back(rows(std::vector<float>(size(sizes[i]), 0.0f)));
    }
    std::array<double, 3> norms{};
    for (int step = 1; step <= 3; ++step) {
      grads.clear();
      std::vector<AdamWTensor> tensors;
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        const auto grad = test::uniform(size(sizes[i]), 1000 * size(step) + i);
        grads.emplace_back(device, grad, 1, sizes[i]);
        const std::size_t skip = i == 2 ? 1 : 0;  // one tensor begins at an odd address
        tensors.push_back({values[i].span().subspan(skip), grads[i].span().subspan(skip),
                           means[i].span().subspan(skip), squares[i].span().subspan(skip)});
      }
      EXPECT_OK(adamw({.tensors = tensors,
                       .lr = 0.01,
                       .beta1 = 0.9,
                       .beta2 = 0.95,
                       .eps = 1e-8,
                       .weight_decay = 0.1,
                       .correction1 = 1 - std::pow(0.9, step),
                       .correction2 = 1 - std::pow(0.95, step),
                       .clip = step == 2 ? 0.0 : 1.0,
                       .squared_norm = &norms[size(step - 1)]},
                      {.backend = &device}));
    }
    Results results{{static_cast<float>(norms[0]), static_cast<float>(norms[1]), static_cast<float>(norms[2])}};
    for (const auto* list : {&values, &means, &squares}) {
      results.emplace_back();
      for (const test::DeviceRows& x : *list) {
        if (x.rows().cols == 0) continue;
        const std::vector<float> part = x.read();
        results.back().insert(results.back().end(), part.begin(), part.end());
      }
    }
    return results;
  });
}

TEST(CudaAdamW, ChangesNothingWhereTheGradientIsNotFinite) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto value = test::uniform(50001, 1), m = test::uniform(50001, 2), v = test::uniform(50001, 3);
    auto grad = test::uniform(50001, 4);
    grad[50000] = bad;
    const test::DeviceRows values(*backend, value, 1, 50001), means(*backend, m, 1, 50001), squares(*backend, v, 1, 50001);
    const test::DeviceRows grads(*backend, grad, 1, 50001);
    const AdamWTensor tensor{values.span(), grads.span(), means.span(), squares.span()};
    double norm = 0;
    ASSERT_OK(adamw({.tensors = {&tensor, 1}, .lr = 0.1, .eps = 1e-8, .weight_decay = 0.1, .clip = 1, .squared_norm = &norm},
                    {.backend = backend}));
    EXPECT_FALSE(std::isfinite(norm));
    EXPECT_EQ(values.read(), value);
    EXPECT_EQ(means.read(), m);
    EXPECT_EQ(squares.read(), v);
  }
}

}  // namespace
}  // namespace rat::kernels
