#include "kernels/cuda/attention_layer.h"

#include <algorithm>

#include "kernels/cuda/dilated_keys.h"
#include "kernels/cuda/gate_product.h"
#include "kernels/cuda/own_key.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rotate.h"
#include "kernels/cuda/shared_heads.h"
#include "kernels/cuda/token_scan.h"

namespace rat::kernels::cuda {
namespace {

using bf16 = __nv_bfloat16;

TokenScanArgs scan_of(const AttentionLayerArgs& a) {
  const AttentionBuffers& b = a.buffers;
  return {a.shape, b.proj, a.width(), a.rope, b.keys, b.values, b.workspace, a.state_k, a.state_v};
}
SharedHeads shared_of(const AttentionLayerArgs& a, bf16* rows, bf16* keys, bf16* values) {
  return {a.shape.rows(), a.shape.channels(), a.key_width(), a.width(), {rows + a.key_column(), rows}, {keys, values}};
}

KeyRows<bf16> keys_of(const AttentionLayerArgs& a, bf16* rows, bf16* apart) {
  return a.in_place() ? heads_of(rows + a.key_column(), a.shape, a.width())
                      : heads_of(apart, a.shape, a.shape.channels());
}
KeyRows<bf16> values_of(const AttentionLayerArgs& a, bf16* rows, bf16* apart) {
  return a.in_place() ? heads_of(rows, a.shape, a.width()) : heads_of(apart, a.shape, a.shape.channels());
}

// (B, K, D): the heads of a key beside each other.
template <class T>
KeyRows<T> rows_of_keys(T* rows, const RatShape& s) {
  return {rows, s.keys() * s.channels(), s.head_size, s.channels()};
}

// Keys and values from the projected rows, and rotated queries.
Status prepare(const AttentionLayerArgs& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const AttentionBuffers& b = a.buffers;
  if (a.recurrent) return token_scan(scan_of(a), stream);
  const int64_t heads = s.heads + a.key_width() / s.head_size;  // queries, and behind them keys
  if (a.rope != nullptr)
    RAT_CUDA_TRY(rotate({b.proj + a.query_column(), a.width(), s.batch, s.tokens, heads, s.head_size, a.rope}, stream));
  return a.in_place() ? Status() : repeat_heads(shared_of(a, b.proj, b.keys, b.values), stream);
}

// The rest of the way from the gradients of keys and values to those of the projected rows.
Status prepare_backward(const AttentionLayerArgs& a, cudaStream_t stream) {
  const AttentionBuffers& b = a.buffers;
  if (a.recurrent) return token_scan_backward({scan_of(a), b.grad_keys, b.grad_values, b.grad_proj, a.width()}, stream);
  return a.in_place() ? Status() : sum_heads(shared_of(a, b.grad_proj, b.grad_keys, b.grad_values), stream);
}

// A window of 0 tokens is each token's own key: no products are needed for it. (Dilated layers are recurrent: keys and values
// are rows without gaps.)
bool sees_itself_alone(const AttentionLayerArgs& a) { return a.dilated.shape.dilated() && a.shape.window == 0; }
OwnKeyArgs own_key_of(const AttentionLayerArgs& a) {
  const AttentionBuffers& b = a.buffers;
  return {a.shape, b.proj + a.query_column(), a.width(), b.keys, b.values, a.dilated.window_lse};
}

// `window`: the window's attention, whose log-sums are in window_lse.
Status attend_before_window(const AttentionLayerArgs& a, ChunkAttentionArgs<bf16> attention, const bf16* window,
                            cudaStream_t stream) {
  const AttentionBuffers& b = a.buffers;
  const DilatedBuffers& d = a.dilated;
  RAT_CUDA_TRY(gather_dilated_keys({d.shape, attention.keys, attention.values, d.keys, d.values}, stream));
  attention.shape = d.shape;
  attention.keys = rows_of_keys<const bf16>(d.keys, d.shape), attention.values = rows_of_keys<const bf16>(d.values, d.shape);
  attention.own_score = d.window_lse, attention.own_v = window;
  attention.z = b.proj, attention.z_stride = a.width();
  attention.lse = b.lse;
  return chunk_attention<bf16>(attention, a.path, stream);
}

Status attend(const AttentionLayerArgs& a, cudaStream_t stream) {
  const AttentionBuffers& b = a.buffers;
  const bool is_dilated = a.dilated.shape.dilated();
  ChunkAttentionArgs<bf16> attention;
  attention.shape = a.shape;
  attention.q_rot = b.proj + a.query_column(), attention.q_stride = a.width();
  attention.keys = read_only(keys_of(a, b.proj, b.keys)), attention.values = read_only(values_of(a, b.proj, b.values));
  attention.y = b.y, attention.lse = is_dilated ? a.dilated.window_lse : b.lse;
  if (sees_itself_alone(a)) {
    RAT_CUDA_TRY(own_key(own_key_of(a), stream));
    return attend_before_window(a, attention, b.values, stream);
  }
  RAT_CUDA_TRY(chunk_attention<bf16>(attention, a.path, stream));
  if (is_dilated) return attend_before_window(a, attention, b.y, stream);
  return a.recurrent ? output_gate({a.shape, b.y, b.proj, a.width()}, stream) : Status();
}

// The gradients of the window's attention are there.
Status add_gradients_before_window(const AttentionLayerArgs& a, ChunkAttentionBackwardArgs<bf16> attention,
                                   cudaStream_t stream) {
  const DilatedBuffers& d = a.dilated;
  const RatShape& s = d.shape;
  const TokenGradients<bf16> to = attention.token_gradients;
  RAT_CUDA_TRY(gather_dilated_keys({s, attention.keys, attention.values, d.keys, d.values}, stream));
  attention.shape = s;
  attention.keys = rows_of_keys<const bf16>(d.keys, s), attention.values = rows_of_keys<const bf16>(d.values, s);
  attention.grad_keys = rows_of_keys(d.grad_keys, s), attention.grad_values = rows_of_keys(d.grad_values, s);
  RAT_CUDA_TRY(chunk_attention_backward<bf16>(attention, a.path, stream));
  RAT_CUDA_TRY(rotate_back({s, attention.grad_q_rot, to.queries, to.rope, true}, stream));
  RAT_CUDA_TRY(rotate_back({s, d.grad_keys, to.keys, to.rope, true, true}, stream));
  return rotate_back({s, d.grad_values, to.values, nullptr, true, true}, stream);
}

Status attend_backward(const AttentionLayerArgs& a, cudaStream_t stream) {
  const AttentionBuffers& b = a.buffers;
  const RatShape& s = a.shape;
  const int64_t W = a.width();
  ChunkAttentionBackwardArgs<bf16> attention;
  attention.shape = s;
  attention.q_rot = b.proj + a.query_column(), attention.q_stride = W;
  attention.keys = read_only(keys_of(a, b.proj, b.keys)), attention.values = read_only(values_of(a, b.proj, b.values));
  attention.grad_out = b.grad_y, attention.lse = b.lse, attention.delta = b.delta;
  attention.token_gradients = {heads_of(b.grad_proj + a.query_column(), s, W), keys_of(a, b.grad_proj, b.grad_keys),
                               values_of(a, b.grad_proj, b.grad_values), a.rope};
  attention.grad_q_rot = b.grad_queries, attention.turns = reinterpret_cast<int*>(b.workspace);
  if (sees_itself_alone(a))
    RAT_CUDA_TRY(own_key_backward({own_key_of(a), b.grad_y, b.lse, b.delta, attention.token_gradients}, stream));
  else
    RAT_CUDA_TRY(chunk_attention_backward<bf16>(attention, a.path, stream));
  return a.dilated.shape.dilated() ? add_gradients_before_window(a, attention, stream) : Status();
}

// From the gradient of the layer's output to grad_y, of the attention's, and delta.
Status output_backward(const AttentionLayerBackwardArgs& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.forward.shape;
  const AttentionBuffers& b = a.forward.buffers;
  const int64_t D = s.channels(), W = a.forward.width();
  const bf16* const weight = a.forward.weights.out_proj;
  if (a.forward.recurrent)
    return gate_product_backward<bf16>({s, a.grad, weight, b.y, b.proj, W, b.grad_y, b.grad_proj, W, b.delta},
                                       best_gate_path<bf16>(s), gemm, stream);
  RAT_CUDA_TRY(project_input_gradient<bf16>(gemm, a.grad, weight, b.grad_y, s.rows(), D, D, stream));
  OutputGateBackwardArgs<bf16> delta;  // without a gate only the rows' sums
  delta.shape = s, delta.grad_y = b.grad_y, delta.y = b.y, delta.delta = b.delta;
  return output_gate_backward<bf16>(delta, stream);
}

}  // namespace

RatShape attention_shape(int64_t batch, int64_t tokens, int64_t heads, int64_t head_size, int64_t window) {
  RatShape s;
  s.batch = batch, s.tokens = tokens, s.heads = s.groups = heads, s.head_size = head_size;
  s.chunk_len = s.offset = 1;
  s.window = window;
  return s;
}

int64_t attention_layer_workspace(const RatShape& s, bool recurrent) {
  return std::max(
      {rms_norm_workspace(s.rows(), s.channels()), chunk_attention_turns(s), recurrent ? token_scan_workspace(s) : 0});
}

Status attention_layer(const AttentionLayerArgs& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const AttentionBuffers& b = a.buffers;
  const int64_t D = s.channels(), N = s.rows(), W = a.width();
  RAT_CUDA_TRY(check_shape("attention_layer", s));
  RAT_CUDA_TRY(rms_norm<bf16, float>({a.x, a.weights.norm, b.normed, b.rstd, N, D, a.epsilon}, stream));
  RAT_CUDA_TRY(project<bf16, bf16>(gemm, b.normed, a.weights.in_proj, nullptr, b.proj, N, W, D, stream));
  RAT_CUDA_TRY(prepare(a, stream));
  RAT_CUDA_TRY(attend(a, stream));
  return project<bf16, float>(gemm, b.y, a.weights.out_proj, a.residual, a.out, N, D, D, stream);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& a, Gemm& gemm, cudaStream_t stream) {
  const AttentionLayerArgs& f = a.forward;
  const RatShape& s = f.shape;
  const AttentionBuffers& b = f.buffers;
  const AttentionWeights& w = f.weights;
  const int64_t D = s.channels(), N = s.rows(), W = f.width();
  RAT_CUDA_TRY(project_weight_gradient<bf16>(gemm, a.grad, b.y, a.gradients.out_proj, true, N, D, D, stream));
  RAT_CUDA_TRY(output_backward(a, gemm, stream));
  RAT_CUDA_TRY(attend_backward(f, stream));
  RAT_CUDA_TRY(prepare_backward(f, stream));
  RAT_CUDA_TRY(project_weight_gradient<bf16>(gemm, b.grad_proj, b.normed, a.gradients.in_proj, true, N, W, D, stream));
  // The normed input is not needed any more: its gradient takes its place.
  RAT_CUDA_TRY(project_input_gradient<bf16>(gemm, b.grad_proj, w.in_proj, b.normed, N, W, D, stream));
  RmsNormBackwardArgs<bf16, float> norm{f.x, w.norm, b.rstd, b.normed, a.grad, a.grad, a.gradients.norm, b.workspace};
  norm.rows = N, norm.channels = D, norm.add_grad_weight = true;
  return rms_norm_backward<bf16, float>(norm, stream);
}

}  // namespace rat::kernels::cuda
