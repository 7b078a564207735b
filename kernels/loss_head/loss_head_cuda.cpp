#include "kernels/loss_head/loss_head.h"

#include <cuda_bf16.h>

#include "kernels/cross_entropy/cross_entropy_cuda.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

constexpr int own_slot = entropy_slots;  // of scratch memory, behind those of the cross-entropy

struct Scratch {
  Half *normed, *grad_normed, *grad_logits;
  float *rstd, *logits, *workspace;
  std::size_t bytes;

  Scratch(const LossHeadShape& s, void* block) {
    Cutter cutter(block);
    normed = cutter.take<Half>(s.rows * s.channels);
    grad_normed = cutter.take<Half>(s.rows * s.channels);
    grad_logits = cutter.take<Half>(s.rows * s.vocab);
    rstd = cutter.take<float>(s.rows);
    logits = cutter.take<float>(s.rows * s.vocab);
    workspace = cutter.take<float>(cuda::rms_norm_workspace(s.rows, s.channels));
    bytes = cutter.used();
  }
};

Status backward(const LossHeadArgs& a, const Scratch& s, cuda::Gemm& gemm) {
  const auto& [N, D, V] = a.shape;
  const auto* const head = reinterpret_cast<const Half*>(a.head);
  RAT_TRY(answer(cuda::project_input_gradient<Half>(gemm, s.grad_logits, head, s.grad_normed, N, V, D, stream())));
  RAT_TRY(answer(cuda::project_weight_gradient<Half>(gemm, s.grad_logits, s.normed, a.grad_head.data(), true, N, V, D,
                                                     stream())));
  cuda::RmsNormBackwardArgs<Half, float> norm;
  norm.x = a.x.data, norm.weight = a.norm.data(), norm.rstd = s.rstd, norm.grad_y = s.grad_normed;
  norm.grad_x = reinterpret_cast<Half*>(a.grad.rounded);
  norm.grad_weight = a.grad_norm.data(), norm.add_grad_weight = true;
  norm.workspace = s.workspace, norm.rows = N, norm.channels = D;
  return answer(cuda::rms_norm_backward<Half, float>(norm, stream()));
}

}  // namespace

bool fuses_loss_head(const LossHeadShape& s) {
  return s.rows > 0 && s.channels % 8 == 0 && s.channels >= 64 && s.channels <= 2048;
}

Status loss_head(const LossHeadArgs& a) {
  const auto& [N, D, V] = a.shape;
  RAT_ASSIGN(void* const block, scratch_bytes(own_slot, Scratch(a.shape, nullptr).bytes));
  const Scratch s(a.shape, block);
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::rms_norm<Half, float>({a.x.data, a.norm.data(), s.normed, s.rstd, N, D}, stream())));
  RAT_TRY(answer(cuda::project<Half, float>(*gemm, s.normed, reinterpret_cast<const Half*>(a.head), nullptr, s.logits,
                                            N, V, D, stream())));
  RAT_TRY(start_entropy({.logits = {s.logits, N, V}, .targets = a.targets, .grad_scale = a.grad_scale}, s.grad_logits));
  if (a.grad_scale != 0) RAT_TRY(backward(a, s, *gemm));
  return finish_entropy(a.targets, *a.sums);
}

}  // namespace rat::kernels::gpu
