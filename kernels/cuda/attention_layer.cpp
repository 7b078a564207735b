#include "kernels/cuda/attention_layer.h"

#include "kernels/cuda/projection.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rotate.h"

namespace rat::kernels::cuda {
namespace {

using bf16 = __nv_bfloat16;
using Part = ProjectedPart;

}  // namespace

RatShape attention_shape(int64_t batch, int64_t tokens, int64_t heads, int64_t head_size, int64_t window) {
  RatShape s;
  s.batch = batch, s.tokens = tokens, s.heads = s.groups = heads, s.head_size = head_size;
  s.chunk_len = s.offset = 1;
  s.window = window;
  return s;
}

Status attention_layer(const AttentionLayerArgs& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const AttentionBuffers& b = a.buffers;
  const int64_t D = s.channels(), N = s.rows();
  RAT_CUDA_TRY(check_shape("attention_layer", s));
  RAT_CUDA_TRY(rms_norm<bf16, float>({a.x, a.weights.norm, b.normed, b.rstd, N, D, a.epsilon}, stream));
  RAT_CUDA_TRY(project<bf16, bf16>(gemm, b.normed, a.weights.in_proj, nullptr, b.proj, N, 3 * D, D, stream));
  if (a.rope != nullptr)  // queries, and behind them keys
    RAT_CUDA_TRY(rotate({b.proj + D, 3 * D, s.batch, s.tokens, 2 * s.heads, s.head_size, a.rope}, stream));
  ChunkAttentionArgs<bf16> attention;
  attention.shape = s;
  attention.q_rot = b.proj + D, attention.q_stride = 3 * D;
  attention.keys = read_only(part_of(b.proj, s, Part::key)), attention.values = read_only(part_of(b.proj, s, Part::value));
  attention.y = b.y, attention.lse = b.lse;
  RAT_CUDA_TRY(chunk_attention<bf16>(attention, a.path, stream));
  return project<bf16, float>(gemm, b.y, a.weights.out_proj, a.residual, a.out, N, D, D, stream);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.forward.shape;
  const AttentionBuffers& b = a.forward.buffers;
  const AttentionWeights& w = a.forward.weights;
  const int64_t D = s.channels(), N = s.rows();
  RAT_CUDA_TRY(project_weight_gradient<bf16>(gemm, a.grad, b.y, a.gradients.out_proj, true, N, D, D, stream));
  RAT_CUDA_TRY(project_input_gradient<bf16>(gemm, a.grad, w.out_proj, b.grad_y, N, D, D, stream));
  OutputGateBackwardArgs<bf16> delta;  // without a gate only the rows' sums
  delta.shape = s, delta.grad_y = b.grad_y, delta.y = b.y, delta.delta = b.delta;
  RAT_CUDA_TRY(output_gate_backward<bf16>(delta, stream));
  ChunkAttentionBackwardArgs<bf16> attention;
  attention.shape = s;
  attention.q_rot = b.proj + D, attention.q_stride = 3 * D;
  attention.keys = read_only(part_of(b.proj, s, Part::key)), attention.values = read_only(part_of(b.proj, s, Part::value));
  attention.grad_out = b.grad_y, attention.lse = b.lse, attention.delta = b.delta;
  attention.token_gradients = {part_of(b.grad_proj, s, Part::query), part_of(b.grad_proj, s, Part::key),
                               part_of(b.grad_proj, s, Part::value), a.forward.rope};
  RAT_CUDA_TRY(chunk_attention_backward<bf16>(attention, a.forward.path, stream));
  RAT_CUDA_TRY(project_weight_gradient<bf16>(gemm, b.grad_proj, b.normed, a.gradients.in_proj, true, N, 3 * D, D, stream));
  // The normed input is not needed any more: its gradient takes its place.
  RAT_CUDA_TRY(project_input_gradient<bf16>(gemm, b.grad_proj, w.in_proj, b.normed, N, 3 * D, D, stream));
  RmsNormBackwardArgs<bf16, float> norm{a.forward.x, w.norm, b.rstd, b.normed, a.grad, a.grad, a.gradients.norm, b.workspace};
  norm.rows = N, norm.channels = D, norm.add_grad_weight = true;
  return rms_norm_backward<bf16, float>(norm, stream);
}

}  // namespace rat::kernels::cuda
