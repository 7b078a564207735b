#include "kernels/base/column_sums.h"
#include "kernels/cpu_ops.h"
#include "kernels/gating/gating.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gating/gating_cpu.cpp"
#include "hwy/foreach_target.h"
#include "kernels/base/simd_math.h"

HWY_BEFORE_NAMESPACE();
namespace rat::kernels {
namespace HWY_NAMESPACE {

void SigmoidRows(const SigmoidArgs& a, int64_t begin, int64_t end) {
  const float* HWY_RESTRICT bias = a.bias.empty() ? nullptr : a.bias.data();
  for (int64_t i = begin; i < end; ++i) {
    float* x = a.x.row(i);
    for_each_vector(a.x.cols, [&](auto d, int64_t c) HWY_ATTR {
      const auto v = hn::LoadU(d, x + c);
      hn::StoreU(sigmoid_of(d, bias ? hn::Add(v, hn::LoadU(d, bias + c)) : v), d, x + c);
    });
  }
}

void GateRows(const OutputGateArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = a.gate.row(i);
    const float* y = a.y.row(i);
    float* mixed = a.mixed.row(i);
    for_each_vector(a.gate.cols, [&](auto d, int64_t c) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, gate + c), hn::LoadU(d, y + c)), d, mixed + c);
    });
  }
}

void GateRowsBackward(const OutputGateBackwardArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* HWY_RESTRICT gate = a.gate.row(i);
    const float* HWY_RESTRICT y = a.y.row(i);
    const float* HWY_RESTRICT grad_mixed = a.grad_mixed.row(i);
    float* HWY_RESTRICT grad_y = a.grad_y.row(i);
    float* HWY_RESTRICT grad_gate = a.grad_gate.row(i);
    for_each_vector(a.gate.cols, [&](auto d, int64_t c) HWY_ATTR {
      const auto g = hn::LoadU(d, gate + c);
      const auto to_y = hn::Mul(g, hn::LoadU(d, grad_mixed + c));
      hn::StoreU(to_y, d, grad_y + c);
      hn::StoreU(hn::Mul(hn::Mul(to_y, hn::LoadU(d, y + c)), hn::Sub(hn::Set(d, 1.0f), g)), d, grad_gate + c);
    });
  }
}

void GateGradientRows(const GateGradientArgs& a, int64_t begin, int64_t end, float* HWY_RESTRICT grad_bias) {
  for (int64_t i = begin; i < end; ++i) {
    const float* HWY_RESTRICT gate = a.gate.row(i);
    float* HWY_RESTRICT grad = a.grad.row(i);
    for_each_vector(a.gate.cols, [&](auto d, int64_t c) HWY_ATTR {
      const auto g = hn::LoadU(d, gate + c);
      const auto before = hn::Mul(hn::Mul(hn::LoadU(d, grad + c), g), hn::Sub(hn::Set(d, 1.0f), g));
      hn::StoreU(before, d, grad + c);
      hn::StoreU(hn::Add(before, hn::LoadU(d, grad_bias + c)), d, grad_bias + c);
    });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace rat::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace rat::kernels {
HWY_EXPORT(SigmoidRows);
HWY_EXPORT(GateRows);
HWY_EXPORT(GateRowsBackward);
HWY_EXPORT(GateGradientRows);

namespace cpu {

Status sigmoid(const SigmoidArgs& args) {
  parallel_ranges(args.x.rows, rows_per_block(args.x.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SigmoidRows)(args, begin, end);
  });
  return ok();
}

Status output_gate(const OutputGateArgs& args) {
  parallel_ranges(args.gate.rows, rows_per_block(args.gate.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GateRows)(args, begin, end);
  });
  return ok();
}

Status output_gate_backward(const OutputGateBackwardArgs& args) {
  parallel_ranges(args.gate.rows, rows_per_block(args.gate.cols), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GateRowsBackward)(args, begin, end);
  });
  return ok();
}

Status gate_gradient(const GateGradientArgs& args) {
  add_column_sums(args.gate.rows, args.grad_bias, [&](int64_t begin, int64_t end, float* partial) {
    HWY_DYNAMIC_DISPATCH(GateGradientRows)(args, begin, end, partial);
  });
  return ok();
}

}  // namespace cpu
}  // namespace rat::kernels
#endif
