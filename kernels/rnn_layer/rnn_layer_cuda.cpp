// Composed of the kernels of kernels/cuda. What backward needs lies in the caller's block, the rest in scratch that all
// layers share.
#include <algorithm>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/stream_gradient.h"
#include "kernels/cuda/value_scan.h"
#include "kernels/cuda_ops.h"
#include "kernels/layer_step/layer_step_cuda.h"
#include "kernels/rnn_layer/rnn_layer.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

struct Saved {
  Half *normed, *proj, *states, *y;
  float* rstd;
  std::size_t bytes;

  Saved(const RnnLayerShape& s, void* block) {
    Cutter cutter(block);
    const int64_t plane = s.rows() * s.channels();
    normed = cutter.take<Half>(plane);
    proj = cutter.take<Half>(3 * plane);
    states = cutter.take<Half>(plane);
    y = cutter.take<Half>(plane);
    rstd = cutter.take<float>(s.rows());
    bytes = cutter.used();
  }
};

struct Gradients {
  Half *y, *proj;
  float* workspace;
  std::size_t bytes;

  Gradients(const RnnLayerShape& s, void* block) {
    Cutter cutter(block);
    const int64_t D = s.channels(), plane = s.rows() * D;
    y = cutter.take<Half>(plane);
    proj = cutter.take<Half>(3 * plane);
    workspace = cutter.take<float>(
        std::max(cuda::rms_norm_workspace(s.rows(), D), cuda::value_scan_workspace(s.batch, s.tokens, D)));
    bytes = cutter.used();
  }
};

cuda::ValueScanArgs scan_of(const RnnLayerArgs& a, const Saved& b, float* workspace) {
  const RnnLayerShape& s = a.shape;
  return {s.batch, s.tokens, s.channels(), b.proj, a.gate_bias.data(), b.states, b.y, workspace, a.cache.state_v};
}

const Half* half(const uint16_t* weights) { return reinterpret_cast<const Half*>(weights); }

}  // namespace

bool fuses_rnn_layer(const RnnLayerShape& s) {
  return on_tensor_cores(64) && s.channels() % 64 == 0 && s.channels() <= 2048 && s.rows() < int64_t{1} << 31;
}

std::size_t rnn_layer_saved(const RnnLayerShape& s) { return Saved(s, nullptr).bytes; }

Status rnn_layer(const RnnLayerArgs& a) {
  const RnnLayerShape& s = a.shape;
  const int64_t D = s.channels(), N = s.rows();
  const Saved b(s, a.saved);
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_ASSIGN(float* const workspace, scratch<float>(0, cuda::value_scan_workspace(s.batch, s.tokens, D)));
  RAT_TRY(answer(cuda::rms_norm<Half, float>({a.x.data, a.norm.data(), b.normed, b.rstd, N, D}, stream())));
  RAT_TRY(answer(cuda::project<Half, Half>(*gemm, b.normed, half(a.in_proj), nullptr, b.proj, N, 3 * D, D, stream())));
  RAT_TRY(answer(cuda::value_scan(scan_of(a, b, workspace), stream())));
  const float* const residual = a.residual ? a.x.data : nullptr;
  RAT_TRY(answer(cuda::project<Half, float>(*gemm, b.y, half(a.out_proj), residual, a.y.data, N, D, D, stream())));
  if (a.cache.position == nullptr) return ok();
  return answer(cuda::advance_position(a.cache.position, stream(), static_cast<int32_t>(s.tokens)));
}

Status rnn_layer_backward(const RnnLayerBackwardArgs& a) {
  const RnnLayerArgs& f = a.forward;
  const RnnLayerShape& s = f.shape;
  const int64_t D = s.channels(), N = s.rows();
  const Saved b(s, f.saved);
  RAT_ASSIGN(void* const block, scratch_bytes(0, Gradients(s, nullptr).bytes));
  const Gradients grad(s, block);
  RAT_ASSIGN(Half* const grad_out, rounded_gradient(a.grad));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(
      cuda::project_weight_gradient<Half>(*gemm, grad_out, b.y, a.grad_out_proj.data(), true, N, D, D, stream())));
  RAT_TRY(answer(cuda::project_input_gradient<Half>(*gemm, grad_out, half(f.out_proj), grad.y, N, D, D, stream())));
  RAT_TRY(answer(cuda::value_scan_backward({scan_of(f, b, grad.workspace), grad.y, grad.proj, a.grad_gate_bias.data()},
                                           stream())));
  RAT_TRY(answer(cuda::project_weight_gradient<Half>(*gemm, grad.proj, b.normed, a.grad_in_proj.data(), true, N, 3 * D,
                                                     D, stream())));
  // The normed input is not needed any more: its gradient takes its place.
  RAT_TRY(
      answer(cuda::project_input_gradient<Half>(*gemm, grad.proj, half(f.in_proj), b.normed, N, 3 * D, D, stream())));
  cuda::RmsNormBackwardArgs<Half, float> norm{f.x.data, f.norm.data(),      b.rstd,        b.normed, grad_out,
                                              grad_out, a.grad_norm.data(), grad.workspace};
  norm.rows = N, norm.channels = D, norm.add_grad_weight = true;
  return answer(cuda::rms_norm_backward<Half, float>(norm, stream()));
}

}  // namespace rat::kernels::gpu
