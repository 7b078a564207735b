// The fused end of a model on a GPU beside the same composed of single ops on the CPU in f32. Skipped without one.
#include <cmath>
#include <cstring>

#include "kernels/loss_head/loss_head.h"
#include "kernels/matmul/matmul.h"
#include "kernels/rms_norm/rms_norm.h"
#include "tests/support/device_rows.h"
#include "tests/support/random_values.h"

namespace rat::kernels {
namespace {

std::size_t size(int64_t count) { return static_cast<std::size_t>(count); }

struct Problem {
  LossHeadShape shape;
  std::vector<float> x, norm, head;
  std::vector<int32_t> targets;

  explicit Problem(const LossHeadShape& s) : shape(s) {
    const auto& [N, D, V] = s;
    x = test::uniform(size(N * D), 1, -2, 2);
    norm = test::uniform(size(D), 2, 0.5, 1.5);
    head = test::uniform(size(V * D), 3, -2 / std::sqrt(static_cast<float>(D)), 2 / std::sqrt(static_cast<float>(D)));
    targets = test::tokens(size(N), 4, static_cast<int32_t>(V));
    for (std::size_t i = 0; i < targets.size(); i += 5) targets[i] = -1;
  }
};

struct Answer {
  CrossEntropySums sums;
  std::vector<float> grad_x, grad_norm, grad_head;
};

constexpr float grad_scale = 0.25f;

Answer composed(const Problem& p) {
  const auto& [N, D, V] = p.shape;
  Answer a;
  a.grad_x = test::poison(size(N * D));
  a.grad_norm.assign(size(D), 1.0f), a.grad_head.assign(size(V * D), 1.0f);  // added to
  std::vector<float> normed(size(N * D)), logits(size(N * V)), grad_normed(size(N * D));
  const Output rows(normed.data(), N, D), scores(logits.data(), N, V), to_rows(grad_normed.data(), N, D);
  const Input x(p.x.data(), N, D), head(p.head.data(), V, D);
  EXPECT_OK(rms_norm({.x = x, .weight = p.norm, .y = rows}, {}));
  EXPECT_OK(matmul({.a = rows, .b = head, .c = scores, .transpose_b = true}, {}));
  EXPECT_OK(cross_entropy({.logits = scores, .targets = p.targets, .grad_scale = grad_scale, .sums = &a.sums}, {}));
  EXPECT_OK(matmul({.a = scores, .b = head, .c = to_rows}, {}));
  const Output to_head(a.grad_head.data(), V, D);
  EXPECT_OK(matmul({.a = scores, .b = rows, .c = to_head, .transpose_a = true, .accumulate = true}, {}));
  EXPECT_OK(rms_norm_backward({.x = x,
                               .weight = p.norm,
                               .grad_y = to_rows,
                               .grad_x = Output(a.grad_x.data(), N, D),
                               .grad_weight = a.grad_norm},
                              {}));
  return a;
}

// A block of bf16 in a backend's memory, where two lie in the place of a float.
struct Halves {
  Halves(const Backend& backend, int64_t count) : floats(backend, test::poison(size((count + 1) / 2)), 1, (count + 1) / 2) {}
  uint16_t* data() const { return reinterpret_cast<uint16_t*>(floats.data()); }
  std::vector<float> read(std::size_t count) const {
    const std::vector<float> packed = floats.read();
    std::vector<float> values(count);
    for (std::size_t i = 0; i < count; ++i) {
      uint16_t half = 0;
      std::memcpy(&half, reinterpret_cast<const char*>(packed.data()) + 2 * i, sizeof half);
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&values[i], &bits, sizeof bits);
    }
    return values;
  }
  test::DeviceRows floats;
};

Answer fused(const Problem& p, const Backend& backend, float scale) {
  const auto& [N, D, V] = p.shape;
  const Exec exec{.backend = &backend};
  const test::DeviceRows x(backend, p.x, N, D), norm(backend, p.norm, 1, D), head(backend, p.head, V, D);
  const test::DeviceRows unwritten(backend, test::poison(p.x.size()), N, D);
  const test::DeviceRows grad_norm(backend, std::vector<float>(size(D), 1.0f), 1, D);
  const test::DeviceRows grad_head(backend, std::vector<float>(size(V * D), 1.0f), V, D);
  const Halves weights(backend, V * D), rounded(backend, N * D);
  EXPECT_OK(round_weights({.x = head.span(), .out = {weights.data(), size(V * D)}}, exec));
  Answer a;
  EXPECT_OK(loss_head({.shape = p.shape,
                       .norm = norm.span(),
                       .head = weights.data(),
                       .x = x,
                       .targets = p.targets,
                       .sums = &a.sums,
                       .grad_scale = scale,
                       .grad = {unwritten, rounded.data()},
                       .grad_norm = grad_norm.span(),
                       .grad_head = grad_head.span()},
                      exec));
  a.grad_x = rounded.read(p.x.size()), a.grad_norm = grad_norm.read(), a.grad_head = grad_head.read();
  return a;
}

TEST(CudaLossHead, IsTheSingleOpsInF32) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const LossHeadShape& shape : std::vector<LossHeadShape>{
           {1, 64, 2}, {37, 64, 61}, {300, 256, 256}, {130, 512, 1025}, {70, 2048, 3001}, {64, 128, 32000}}) {
    SCOPED_TRACE(fmt::format("N {} D {} V {}", shape.rows, shape.channels, shape.vocab));
    const Problem problem(shape);
    const Answer want = composed(problem), got = fused(problem, *backend, grad_scale);
    EXPECT_EQ(got.sums.targets, want.sums.targets);
    EXPECT_NEAR(got.sums.loss, want.sums.loss, 3e-3 * static_cast<double>(shape.rows));
    if (want.sums.targets == 0) {
      EXPECT_EQ(got.grad_x, std::vector<float>(got.grad_x.size(), 0.0f));
    } else {
      EXPECT_LE(test::relative_error(got.grad_x, want.grad_x), 2e-2);
    }
    EXPECT_LE(test::relative_error(got.grad_norm, want.grad_norm), 2e-2);
    EXPECT_LE(test::relative_error(got.grad_head, want.grad_head), 2e-2);
    const Answer again = fused(problem, *backend, grad_scale), measured = fused(problem, *backend, 0);
    EXPECT_EQ(again.sums.loss, got.sums.loss);
    EXPECT_EQ(again.grad_x, got.grad_x);
    EXPECT_EQ(again.grad_head, got.grad_head);
    EXPECT_EQ(measured.sums.loss, got.sums.loss) << "without a gradient";
    EXPECT_EQ(measured.sums.correct, got.sums.correct);
    EXPECT_EQ(measured.grad_head, std::vector<float>(size(shape.vocab * shape.channels), 1.0f)) << "nothing is added";
  }
}

TEST(CudaLossHead, RefusesBadTargets) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  Problem problem({3, 64, 10});
  const test::DeviceRows x(*backend, problem.x, 3, 64), norm(*backend, problem.norm, 1, 64);
  const Halves weights(*backend, 640);
  CrossEntropySums sums;
  LossHeadArgs args{.shape = problem.shape, .norm = norm.span(), .head = weights.data(), .x = x, .sums = &sums};
  problem.targets[1] = 10;
  args.targets = problem.targets;
  const Status outside = loss_head(args, {.backend = backend});
  ASSERT_FALSE(outside);
  EXPECT_NE(outside.error().message.find("target 10"), std::string::npos) << outside.error().message;
  args.targets = args.targets.first(2);
  EXPECT_FALSE(loss_head(args, {.backend = backend}));
}

TEST(LossHead, IsRefusedWhereItIsNotFused) {
  CrossEntropySums sums;
  const uint16_t head = 0;
  EXPECT_FALSE(fuses_loss_head({1, 64, 2}, {}));
  const Status refused = loss_head({.shape = {1, 64, 2}, .head = &head, .sums = &sums}, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace rat::kernels
