// Linear attention of the cuda backend against the CPU's. Skipped without a GPU.
#include "kernels/linear_attention/linear_attention.h"
#include "tests/support/both_backends.h"

namespace rat::kernels {
namespace {

using Results = std::vector<std::vector<float>>;

struct Case {
  int64_t B, T, H, P, KV, shift;  // KV: heads of keys and values
  Dtype dtype = Dtype::f32;       // of the device's products
  int64_t rows() const { return B * T; }
  int64_t channels() const { return H * P; }
  int64_t kv() const { return KV * P; }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t T : {1, 63, 64, 65, 200})
    for (const int64_t shift : {0, 1, 5, 64, 100, 1000}) all.push_back({2, T, 2, 16, 1, shift});
  for (const int64_t P : {1, 4, 20, 33, 64, 128})
    for (const int64_t shift : {0, 5}) all.push_back({2, 200, 4, P, 2, shift});
  all.push_back({1, 700, 3, 64, 3, 65});
  all.push_back({3, 130, 4, 100, 1, 1});
  return all;
}

struct Data {
  const Case& c;
  const Backend& backend;
  test::SpacedRows q, k, v;

  Data(const Case& c_, const Backend& backend_)
      : c(c_), backend(backend_), q(rows(1, c.channels())), k(rows(2, c.kv())), v(rows(3, c.kv())) {}
  test::SpacedRows rows(uint64_t seed, int64_t cols) const {
    return {backend, test::uniform(static_cast<std::size_t>(c.rows() * cols), seed, -2, 2), c.rows(), cols};
  }
  LinearAttentionArgs args(const Output& out = {}) const {
    return {.tokens = c.T,
            .heads = c.H,
            .head_size = c.P,
            .shift = c.shift,
            .q = q,
            .k = k,
            .v = v,
            .out = out,
            .dtype = backend.host ? Dtype::f32 : c.dtype};
  }
};

Results forward(const Case& c, const Backend& backend) {
  const Data data(c, backend);
  const auto n = static_cast<std::size_t>(c.rows() * c.channels());
  const test::SpacedRows out(backend, test::poison(n), c.rows(), c.channels());
  EXPECT_OK(linear_attention(data.args(out), {.backend = &backend}));
  return {out.read()};
}

Results backward(const Case& c, const Backend& backend) {
  const Data data(c, backend);
  const test::SpacedRows grad_out = data.rows(4, c.channels()), grad_q = data.rows(5, c.channels());
  const test::SpacedRows grad_k = data.rows(6, c.kv()), grad_v = data.rows(7, c.kv());
  EXPECT_OK(linear_attention_backward({data.args(), grad_out, grad_q, grad_k, grad_v}, {.backend = &backend}));
  return {grad_q.read(), grad_k.read(), grad_v.read()};
}

TEST(CudaLinearAttention, ForwardIsTheCpus) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : cases()) {
    SCOPED_TRACE(fmt::format("B {} T {} H {} P {} KV {} shift {}", c.B, c.T, c.H, c.P, c.KV, c.shift));
    test::expect_parity(*backend, [&](const Backend& device) { return forward(c, device); });
  }
}

TEST(CudaLinearAttention, BackwardIsTheCpusAndAdds) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : cases()) {
    SCOPED_TRACE(fmt::format("B {} T {} H {} P {} KV {} shift {}", c.B, c.T, c.H, c.P, c.KV, c.shift));
    test::expect_parity(*backend, [&](const Backend& device) { return backward(c, device); });
  }
}

// Rounded, on tensor cores, in heads of 64 and 128; the rest in f32 as ever.
TEST(CudaLinearAttention, Bf16IsTheCpusF32Rounded) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  std::vector<Case> all{{2, 200, 4, 20, 2, 5, Dtype::bf16}, {3, 130, 4, 100, 1, 1, Dtype::bf16}};
  for (const int64_t P : {64, 128})
    for (const int64_t KV : {1, 2, 4})
      for (const int64_t T : {1, 64, 65, 333})
        for (const int64_t shift : {0, 1, 64, 100, 1000}) all.push_back({2, T, 4, P, KV, shift, Dtype::bf16});
  for (const Case& c : all) {
    SCOPED_TRACE(fmt::format("B {} T {} H {} P {} KV {} shift {}", c.B, c.T, c.H, c.P, c.KV, c.shift));
    const double bound = c.P == 64 || c.P == 128 ? 1e-2 : 2e-5;
    test::expect_parity(
        *backend, [&](const Backend& device) { return forward(c, device); }, bound);
    test::expect_parity(
        *backend, [&](const Backend& device) { return backward(c, device); }, bound);
  }
}

TEST(CudaLinearAttention, WeightsAreTheCpus) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c : {Case{2, 130, 4, 20, 2, 0}, Case{1, 200, 2, 64, 1, 70}, Case{1, 65, 1, 128, 1, 1}}) {
    SCOPED_TRACE(fmt::format("T {} P {} shift {}", c.T, c.P, c.shift));
    test::expect_parity(*backend, [&](const Backend& device) -> Results {
      const Data data(c, device);
      const int64_t rows = c.B * c.H * c.T;
      const test::SpacedRows weights(device, test::uniform(static_cast<std::size_t>(rows * c.T), 8), rows, c.T);
      EXPECT_OK(linear_weights({data.args(), weights}, {.backend = &device}));
      return {weights.read()};
    });
  }
}

TEST(CudaLinearAttention, StateIsAddedToAndReadAsOnTheCpu) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  for (const Case& c :
       {Case{1, 1, 4, 16, 2, 0}, Case{1, 200, 4, 20, 2, 0}, Case{1, 65, 2, 64, 1, 0}, Case{1, 64, 3, 128, 3, 0},
        Case{1, 7, 2, 1, 2, 0}, Case{3, 1, 4, 20, 2, 0}, Case{5, 1, 2, 128, 1, 0}, Case{3, 70, 4, 64, 2, 0}}) {
    SCOPED_TRACE(fmt::format("B {} T {} P {}", c.B, c.T, c.P));
    test::expect_parity(*backend, [&](const Backend& device) -> Results {
      const Data data(c, device);
      const auto n = static_cast<std::size_t>(c.B * 2 * c.kv() * c.P);
      const test::SpacedRows state(device, test::uniform(n, 9), c.B * 2 * c.kv(), c.P);
      const test::SpacedRows out(device, test::poison(static_cast<std::size_t>(c.B * c.channels())), c.B, c.channels());
      const Input q = data.q.rows();
      const Input last(q.row(c.T - 1), c.B, c.channels(), c.T * q.stride);
      EXPECT_OK(linear_absorb({.head_size = c.P, .k = data.k, .v = data.v, .state = state}, {.backend = &device}));
      EXPECT_OK(linear_read({.head_size = c.P, .q = last, .state = state, .out = out}, {.backend = &device}));
      return {state.read(), out.read()};
    });
  }
}

TEST(CudaLinearAttention, RefusesHeadsThatAreTooLarge) {
  RAT_REQUIRE_BACKEND(backend, "cuda");
  const Case c{1, 3, 1, 129, 1, 0};
  const Data data(c, *backend);
  const test::SpacedRows out(*backend, test::poison(3 * 129), 3, 129);
  const Status status = linear_attention(data.args(out), {.backend = backend});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace rat::kernels
