// The recurrence of an RNN layer against float64: whole sequences, their gradients, token by token; bit-equal results.
#include "kernels/cuda/value_scan.h"

#include "kernels/cuda/rat_decode.h"
#include "tests/cuda/suites.h"
#include "tests/cuda/token_reference.h"

namespace rat::cuda_test {
namespace {

using namespace kernels::cuda;

constexpr double kBound = 4e-3, kBackwardBound = 8e-3,
                 kExactBound = 2e-3;  // results, states and gradients are rounded to bf16

struct RnnReference {
  int64_t B, T, D;
  Doubles proj, bias, grad_y;                                 // (N, 3D), (D), (N, D)
  Doubles states, y, last, grad_proj, grad_bias, after_bias;  // grad_bias: what was there, after_bias with the sums

  // shift: of the gates' logits, towards states that are kept for long.
  RnnReference(int64_t batch, int64_t tokens, int64_t channels, double shift) : B(batch), T(tokens), D(channels) {
    std::mt19937_64 random(static_cast<uint64_t>(tokens));
    proj = random_values<bf16>(B * T * 3 * D, random, 1.5), bias = random_values<float>(D, random, 1.0, shift);
    grad_y = random_values<bf16>(B * T * D, random), grad_bias = random_values<float>(D, random);
  }
  void run() {
    states.assign(at(B * T * D), 0.0), y = states, last.assign(at(B * D), 0.0);
    grad_proj.assign(proj.size(), 0.0), after_bias = grad_bias;
    for (int64_t b = 0; b < B; ++b)
      for (int64_t d = 0; d < D; ++d) channel(b, d);
  }

 private:
  static double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
  void channel(int64_t b, int64_t d) {
    const auto row = [&](int64_t t) { return at((b * T + t) * 3 * D + d); };
    const auto cell = [&](int64_t t) { return at((b * T + t) * D + d); };
    const auto gate = [&](int64_t t) { return sigmoid(proj[row(t) + at(2 * D)] + bias[at(d)]); };
    const auto before = [&](int64_t t) { return t > 0 ? states[cell(t - 1)] : 0.0; };
    for (int64_t t = 0; t < T; ++t) {
      states[cell(t)] = gate(t) * before(t) + (1.0 - gate(t)) * proj[row(t) + at(D)];
      y[cell(t)] = sigmoid(proj[row(t)]) * states[cell(t)];
    }
    last[at(b * D + d)] = states[cell(T - 1)];
    double carry = 0.0;
    for (int64_t t = T - 1; t >= 0; --t) {
      const double open = sigmoid(proj[row(t)]), now = grad_y[cell(t)] * open + carry;
      grad_proj[row(t)] = grad_y[cell(t)] * states[cell(t)] * open * (1.0 - open);
      grad_proj[row(t) + at(D)] = (1.0 - gate(t)) * now;
      grad_proj[row(t) + at(2 * D)] = (before(t) - proj[row(t) + at(D)]) * now * gate(t) * (1.0 - gate(t));
      after_bias[at(d)] += grad_proj[row(t) + at(2 * D)];
      carry = gate(t) * now;
    }
  }
};

struct RnnBuffers {
  Device<bf16> proj, states, y, grad_y, grad_proj;
  Device<float> bias, workspace, last, grad_bias;
  ValueScanBackwardArgs args;

  explicit RnnBuffers(const RnnReference& r)
      : proj(r.proj),
        states(r.B * r.T * r.D),
        y(states.count()),
        grad_y(r.grad_y),
        grad_proj(proj.count()),
        bias(r.bias),
        workspace(value_scan_workspace(r.B, r.T, r.D)),
        last(r.B * r.D),
        grad_bias(r.grad_bias),
        args{{r.B, r.T, r.D, proj.get(), bias.get(), states.get(), y.get(), workspace.get(), last.get()},
             grad_y.get(),
             grad_proj.get(),
             grad_bias.get()} {}
  void run() {
    require(value_scan(args.forward, nullptr));
    workspace.poison();  // backward needs nothing of it
    require(value_scan_backward(args, nullptr));
    require(cudaDeviceSynchronize(), "value_scan");
  }
};

void scan_case(Checks& checks, int64_t batch, int64_t tokens, int64_t channels, double shift) {
  RnnReference r(batch, tokens, channels, shift);
  RnnBuffers device(r);
  r.run();
  device.run();
  const std::string name = "value scan B" + std::to_string(batch) + " T" + std::to_string(tokens) + " D" +
                           std::to_string(channels) + " shift " + std::to_string(static_cast<int>(shift)) + " ";
  checks.within(name + "states", device.states.values(), r.states, kBound);
  checks.within(name + "y", device.y.values(), r.y, kBound);
  checks.within(name + "last state", device.last.values(), r.last, 1e-5);
  checks.within(name + "grad_proj", device.grad_proj.values(), r.grad_proj, kBackwardBound);
  checks.within(name + "grad_bias", device.grad_bias.values(), r.after_bias, kExactBound);
}

void step_case(Checks& checks, int64_t batch, int64_t tokens, int64_t channels) {
  RnnReference r(batch, tokens, channels, 1.0);
  r.run();
  const Device<bf16> proj(r.proj), step(batch * 3 * channels);
  const Device<float> bias(r.bias), state(batch * channels);  // of NaN: the first token starts from 0
  const Device<int32_t> position(Doubles{0.0});
  Device<bf16> y(batch * channels);
  const std::size_t row = at(3 * channels) * sizeof(bf16);
  Doubles all(r.y.size());
  for (int64_t t = 0; t < tokens; ++t) {
    require(cudaMemcpy2D(step.get(), row, proj.get() + t * 3 * channels, row * at(tokens), row, at(batch),
                         cudaMemcpyDeviceToDevice),
            "one token");
    require(value_step({batch, channels, step.get(), bias.get(), state.get(), position.get(), 0, y.get()}, nullptr));
    require(advance_position(position.get(), nullptr));
    const Doubles now = y.values();
    for (int64_t b = 0; b < batch; ++b)
      std::copy_n(now.begin() + b * channels, channels, all.begin() + (b * tokens + t) * channels);
  }
  const std::string name = "value step B" + std::to_string(batch) + " T" + std::to_string(tokens) + " ";
  checks.within(name + "y", all, r.y, kBound);
  checks.within(name + "state", state.values(), r.last, 1e-5);
}

}  // namespace

void test_value_scan(Checks& checks) {
  for (const int64_t tokens : {1, 2, 31, 32, 33, 64, 300})
    for (const double shift : {0.0, 5.0}) {
      scan_case(checks, 2, tokens, 64, shift);
      scan_case(checks, 1, tokens, 200, shift);
    }
  step_case(checks, 3, 40, 64);
  step_case(checks, 1, 7, 8);
}

void test_few_value_scans(Checks& checks) {
  scan_case(checks, 2, 70, 24, 1.0);
  step_case(checks, 2, 3, 24);
}

void test_value_scan_determinism(Checks& checks, int runs) {
  const RnnReference r(3, 1500, 256, 2.0);
  RnnBuffers device(r);
  std::vector<unsigned char> first_grad, first_bias;
  int equal = 0;
  for (int run = 0; run < runs; ++run) {
    device.grad_bias.set(r.grad_bias);
    device.run();
    const auto grad = device.grad_proj.raw(), bias = device.grad_bias.raw();
    if (run == 0) first_grad = grad, first_bias = bias;
    if (grad == first_grad && bias == first_bias) ++equal;
  }
  checks.that("value scan bit-equal in " + std::to_string(runs) + " runs", equal == runs);
}

}  // namespace rat::cuda_test
