// The recurrence over whole sequences against float64: states, rotations, gradients, from one token to many segments,
// with gates that forget at once and gates that keep a state for thousands of tokens.
#include "kernels/cuda/token_scan.h"

#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/chunk_scan.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kForwardBound = 4e-3, kBackwardBound = 8e-3;  // results are rounded to bf16, backward also the states

struct ScanReference {
  RatShape s;
  bool positions;
  Doubles proj, grad_keys, grad_values;                   // (N, W), (N, D), (N, D)
  Doubles queries, keys, values, grad_k, grad_v, grad_g;  // (N, D)
  static constexpr int64_t padding = 6;

  ScanReference(const RatShape& shape, double gate, bool with_positions) : s(shape), positions(with_positions) {
    std::mt19937_64 random(5);
    const int64_t D = s.channels(), N = s.rows();
    proj = random_values<bf16>(N * width(), random);
    for (std::size_t n = 0; n < at(N); ++n)
      for (std::size_t i = 0; i < at(D); ++i) {
        double& g = proj[n * at(width()) + at(4 * D) + i];
        g = rounded<bf16>(g + gate);
      }
    grad_keys = random_values<bf16>(N * D, random), grad_values = random_values<bf16>(N * D, random);
  }
  int64_t width() const { return 5 * s.channels() + padding; }
  double in(int64_t n, int64_t part, int64_t i) const { return proj[at(n * width() + part * s.channels() + i)]; }

  void run() {
    const int64_t D = s.channels();
    queries.assign(at(s.rows() * D), 0.0);
    keys = values = grad_k = grad_v = grad_g = queries;
    for (int64_t b = 0; b < s.batch; ++b)
      for (int64_t i = 0; i < D; ++i) channel(b * s.tokens, i);
    if (positions) rotate(queries), rotate(keys);
  }

 private:
  void channel(int64_t row0, int64_t i) {
    const int64_t D = s.channels();
    double k_carry = 0.0, v_carry = 0.0;
    for (int64_t n = row0; n < row0 + s.tokens; ++n) {
      const double gate = 1.0 / (1.0 + std::exp(-in(n, 4, i)));
      queries[at(n * D + i)] = in(n, 1, i);
      keys[at(n * D + i)] = gate * (n > row0 ? keys[at((n - 1) * D + i)] : 0.0) + (1.0 - gate) * in(n, 2, i);
      values[at(n * D + i)] = gate * (n > row0 ? values[at((n - 1) * D + i)] : 0.0) + (1.0 - gate) * in(n, 3, i);
    }
    for (int64_t n = row0 + s.tokens; n-- > row0;) {
      const double gate = 1.0 / (1.0 + std::exp(-in(n, 4, i)));
      const double to_k = grad_keys[at(n * D + i)] + k_carry, to_v = grad_values[at(n * D + i)] + v_carry;
      const double k_before = n > row0 ? keys[at((n - 1) * D + i)] : 0.0,
                   v_before = n > row0 ? values[at((n - 1) * D + i)] : 0.0;
      grad_k[at(n * D + i)] = (1.0 - gate) * to_k;
      grad_v[at(n * D + i)] = (1.0 - gate) * to_v;
      grad_g[at(n * D + i)] = gate * (1.0 - gate) * ((k_before - in(n, 2, i)) * to_k + (v_before - in(n, 3, i)) * to_v);
      k_carry = gate * to_k, v_carry = gate * to_v;
    }
  }
  void rotate(Doubles& rows) const {
    const int64_t D = s.channels(), half = s.head_size / 2;
    for (int64_t n = 0; n < s.rows(); ++n)
      for (int64_t i = 0; i < D; ++i) {
        const int64_t pair = i % s.head_size;
        if (pair >= half) continue;
        const double angle = static_cast<double>(n % s.tokens) *
                             std::pow(10000.0, -static_cast<double>(pair) / static_cast<double>(half));
        double &low = rows[at(n * D + i)], &high = rows[at(n * D + i + half)];
        const double x = low, z = high;
        low = x * std::cos(angle) - z * std::sin(angle);
        high = z * std::cos(angle) + x * std::sin(angle);
      }
  }
};

// Columns [part D, (part + 1) D) of rows of `width`.
Doubles columns(const Doubles& rows, int64_t width, int64_t part, int64_t D) {
  Doubles result;
  for (std::size_t row = 0; row + at(5 * D) <= rows.size(); row += at(width))
    result.insert(result.end(), rows.begin() + static_cast<std::ptrdiff_t>(row + at(part * D)),
                  rows.begin() + static_cast<std::ptrdiff_t>(row + at((part + 1) * D)));
  return result;
}

// The inputs on the device, and what the scan makes of them.
struct Scan {
  int64_t D, N, W;
  Device<bf16> proj, keys, values, grad_keys, grad_values, grad_proj;
  Device<float> workspace, rope;
  TokenScanArgs forward;

  explicit Scan(const ScanReference& r)
      : D(r.s.channels()),
        N(r.s.rows()),
        W(r.width()),
        proj(r.proj),
        keys(N * D),
        values(N * D),
        grad_keys(r.grad_keys),
        grad_values(r.grad_values),
        grad_proj(N * W),
        workspace(token_scan_workspace(r.s)),
        rope(r.s.tokens * r.s.head_size) {
    auto* const turns = reinterpret_cast<float2*>(rope.get());
    require(rope_table(turns, r.s.tokens, r.s.head_size, 10000.0, nullptr));
    forward = {r.s, proj.get(), W, r.positions ? turns : nullptr, keys.get(), values.get(), workspace.get()};
  }
  void run() {
    require(token_scan(forward, nullptr));
    workspace.poison();
    require(token_scan_backward({forward, grad_keys.get(), grad_values.get(), grad_proj.get(), W}, nullptr));
  }
};

void scan_case(Checks& checks, const RatShape& s, double gate, bool positions) {
  ScanReference r(s, gate, positions);
  r.run();
  Scan scan(r);
  scan.run();
  const int64_t D = scan.D, W = scan.W;
  const std::string name =
      "token_scan " + describe_tokens(s) + "gate " + std::to_string(gate) + (positions ? " rope " : " ");
  checks.within(name + "queries", columns(scan.proj.values(), W, 1, D), r.queries, kForwardBound);
  checks.within(name + "keys", scan.keys.values(), r.keys, kForwardBound);
  checks.within(name + "values", scan.values.values(), r.values, kForwardBound);
  const Doubles grads = scan.grad_proj.values();
  checks.within(name + "grad_k", columns(grads, W, 2, D), r.grad_k, kBackwardBound);
  checks.within(name + "grad_v", columns(grads, W, 3, D), r.grad_v, kBackwardBound);
  checks.within(name + "grad_g", columns(grads, W, 4, D), r.grad_g, kBackwardBound);
}

}  // namespace

void test_token_scan(Checks& checks) {
  for (const int64_t P : {12, 64, 128})
    for (const int64_t tokens : {1, 31, 32, 33, 100})
      scan_case(checks, attention_shape(2, tokens, 3, P, -1), 1.0, true);
  for (const double gate : {-20.0, 0.0, 8.0}) scan_case(checks, attention_shape(1, 2500, 2, 64, -1), gate, gate != 0.0);
}

void test_few_token_scans(Checks& checks) {
  for (const int64_t P : {12, 64}) scan_case(checks, attention_shape(2, 45, 2, P, -1), 1.0, true);
}

void test_token_scan_determinism(Checks& checks, int runs) {
  const ScanReference r(attention_shape(3, 500, 4, 64, -1), 3.0,
                        false);  // without rotations, which take the queries' place
  std::vector<unsigned char> first;
  bool equal = true;
  for (int i = 0; i < runs; ++i) {
    Scan scan(r);
    scan.run();
    auto bits = scan.keys.raw();
    for (const auto& more : {scan.values.raw(), scan.grad_proj.raw()})
      bits.insert(bits.end(), more.begin(), more.end());
    if (i == 0) first = bits;
    equal = equal && bits == first;
  }
  checks.that("token_scan: the same bits in " + std::to_string(runs) + " runs", equal);
}

}  // namespace rat::cuda_test
