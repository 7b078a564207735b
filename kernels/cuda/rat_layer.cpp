#include "kernels/cuda/rat_layer.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/gate_product.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/step_products.h"

namespace rat::kernels::cuda {
namespace {

class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<unsigned char*>(memory)) {}
  template <class T>
  void take(T** pointer, int64_t elements) {
    if (memory_ != nullptr) *pointer = reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<std::size_t>(elements) * sizeof(T) + 255) / 256 * 256;
  }
  std::size_t used() const { return used_; }

 private:
  unsigned char* memory_;
  std::size_t used_ = 0;
};

template <class T, class X>
void mark(const RatLayerArgs<T, X>& args, const char* stage) {
  if (args.after_stage) args.after_stage(stage);
}

template <class T>
KeyRows<T> cache_of(const KeyRows<T>& given, T* own, const RatShape& shape) {
  return given.data != nullptr ? given : head_major(own, shape, std::max<int64_t>(1, shape.full_chunks()));
}

}  // namespace

template <class T>
int64_t rat_workspace(const RatShape& s) {
  return std::max({chunk_scan_backward_workspace<T>(s), rms_norm_workspace(s.rows(), s.channels()), chunk_attention_turns(s)});
}

template <class T>
std::size_t rat_buffers(const RatShape& s, bool training, void* memory, RatBuffers<T>* buffers) {
  RatBuffers<T> unused;
  RatBuffers<T>& b = buffers != nullptr ? *buffers : unused;
  Arena arena(memory);
  const int64_t plane = s.rows() * s.channels(), per_head = s.rows() * s.heads;
  const int64_t keys = s.batch * s.channels() * std::max<int64_t>(1, s.full_chunks());
  arena.take(&b.normed, plane);
  arena.take(&b.proj, s.rows() * s.proj_width());
  arena.take(&b.y, plane);
  arena.take(&b.q_rot, s.rows() * s.group_width());
  arena.take(&b.keys, keys);
  arena.take(&b.values, keys);
  arena.take(&b.own_score, per_head);
  if (!training) return arena.used();
  arena.take(&b.rstd, s.rows());
  arena.take(&b.lse, per_head);
  arena.take(&b.grad_y, plane);
  arena.take(&b.delta, per_head);
  arena.take(&b.grad_q_rot, s.rows() * s.group_width());
  arena.take(&b.grad_keys, keys);
  arena.take(&b.grad_values, keys);
  arena.take(&b.workspace, rat_workspace<T>(s));
  return arena.used();
}

template <class T, class X>
Status rat_layer(const RatLayerArgs<T, X>& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.shape;
  const RatBuffers<T>& b = a.buffers;
  const int64_t D = s.channels(), W = s.proj_width();
  RAT_CUDA_TRY(check_shape("rat_layer", s));
  const KeyRows<T> keys = cache_of(a.keys, b.keys, s), values = cache_of(a.values, b.values, s);
  RAT_CUDA_TRY(rms_norm<T, X>({a.x, a.weights.norm, b.normed, a.training ? b.rstd : nullptr, s.rows(), D, a.epsilon}, stream));
  mark(a, "rms_norm");
  RAT_CUDA_TRY(project<T, T>(gemm, b.normed, a.weights.in_proj, nullptr, b.proj, s.rows(), W, D, stream));
  mark(a, "in_proj");
  ChunkScanArgs<T> scan{s, b.proj, W, a.weights.gate_bias, a.rope, b.y, b.own_score, b.q_rot, keys, values};
  scan.state_k = a.state_k;
  scan.state_v = a.state_v;
  RAT_CUDA_TRY(chunk_scan<T>(scan, stream));
  mark(a, "chunk_scan");
  ChunkAttentionArgs<T> attention{s,      b.q_rot, read_only(keys), read_only(values), b.own_score, b.y, b.proj, W,
                                  b.y,    a.training ? b.lse : nullptr};
  RAT_CUDA_TRY(chunk_attention<T>(attention, a.path, stream));
  mark(a, "chunk_attention");
  RAT_CUDA_TRY(project<T, X>(gemm, b.y, a.weights.out_proj, a.residual, a.out, s.rows(), D, D, stream));
  mark(a, "out_proj");
  return {};
}

template <class T, class X>
Status rat_layer_backward(const RatLayerBackwardArgs<T, X>& a, Gemm& gemm, cudaStream_t stream) {
  const RatShape& s = a.forward.shape;
  const RatBuffers<T>& b = a.forward.buffers;
  const RatWeights<T>& w = a.forward.weights;
  const int64_t D = s.channels(), W = s.proj_width(), N = s.rows();
  if (!a.forward.training) return refuse("rat_layer_backward: the forward pass was not run for training");
  const KeyRows<T> keys = cache_of(a.forward.keys, b.keys, s), values = cache_of(a.forward.values, b.values, s);
  const KeyRows<float> grad_keys = head_major(b.grad_keys, s, std::max<int64_t>(1, s.full_chunks()));
  const KeyRows<float> grad_values = head_major(b.grad_values, s, std::max<int64_t>(1, s.full_chunks()));
  RAT_CUDA_TRY(project_weight_gradient<T>(gemm, a.grad_out, b.y, a.gradients.out_proj, a.add_gradients, N, D, D, stream));
  mark(a.forward, "out_proj weight gradient");
  RAT_CUDA_TRY(gate_product_backward<T>({s, a.grad_out, w.out_proj, b.y, b.proj, W, b.grad_y, b.proj, W, b.delta},
                                        best_gate_path<T>(s), gemm, stream));
  mark(a.forward, "out_proj input gradient, gate");
  ChunkAttentionBackwardArgs<T> attention{s, b.q_rot, read_only(keys), read_only(values), b.grad_y, b.lse, b.delta,
                                          b.grad_q_rot, grad_keys, grad_values};
  attention.turns = reinterpret_cast<int*>(b.workspace);
  RAT_CUDA_TRY(chunk_attention_backward<T>(attention, a.forward.path, stream));
  mark(a.forward, "chunk_attention_backward");
  RAT_CUDA_TRY(chunk_scan_backward<T>({s, b.proj, W, w.gate_bias, a.forward.rope, b.own_score, b.lse, b.delta, b.grad_y,
                                       b.grad_q_rot, read_only(grad_keys), read_only(grad_values), b.proj, W,
                                       a.gradients.gate_bias, b.workspace, a.add_gradients},
                                      stream));
  mark(a.forward, "chunk_scan_backward");
  RAT_CUDA_TRY(project_weight_gradient<T>(gemm, b.proj, b.normed, a.gradients.in_proj, a.add_gradients, N, W, D, stream));
  mark(a.forward, "in_proj weight gradient");
  // The normed input is not needed any more: its gradient takes its place.
  RAT_CUDA_TRY(project_input_gradient<T>(gemm, b.proj, w.in_proj, b.normed, N, W, D, stream));
  mark(a.forward, "in_proj input gradient");
  RAT_CUDA_TRY(rms_norm_backward<T, X>({a.forward.x, w.norm, b.rstd, b.normed, a.residual_gradient ? a.grad_out : nullptr,
                                        a.grad_x, a.gradients.norm, b.workspace, N, D, a.add_gradients},
                                       stream));
  mark(a.forward, "rms_norm_backward");
  return {};
}

template <class T, class X, class C>
Status layer_step(const LayerStepArgs<T, X, C>& a, Gemm& gemm, cudaStream_t stream) {
  RatDecodeArgs<T, C> decode = a.decode;
  const int64_t D = decode.shape.channels(), B = decode.shape.batch, W = decode.projected();
  decode.proj = a.proj;
  decode.proj_stride = W;
  decode.y = a.y;
  const StepProducts<T, X> products{.rows = B,
                                    .channels = D,
                                    .width = W,
                                    .x = a.x,
                                    .norm = a.weights.norm,
                                    .in_proj = a.weights.in_proj,
                                    .out_proj = a.weights.out_proj,
                                    .y = a.y,
                                    .normed = a.normed,
                                    .proj = a.proj,
                                    .residual = a.residual,
                                    .out = a.out,
                                    .epsilon = a.epsilon,
                                    .counter = a.counter};
  decode.ahead = products.ahead(), decode.early = true;
  RAT_CUDA_TRY(products.begin(gemm, stream));
  if (a.linear == nullptr || decode.shape.window >= 0) RAT_CUDA_TRY(rat_decode<T, C>(decode, stream));
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (a.linear != nullptr) {
      LinearDecodeArgs linear = *a.linear;
      linear.proj = a.proj, linear.near = linear.y = a.y;
      linear.position = decode.position, linear.ahead = decode.ahead;
      RAT_CUDA_TRY(linear_decode(linear, stream));
    }
  }
  return products.end(gemm, stream);
}

#define RAT_INSTANTIATE(T)                                                                       \
  template int64_t rat_workspace<T>(const RatShape&);                                            \
  template std::size_t rat_buffers<T>(const RatShape&, bool, void*, RatBuffers<T>*);             \
  template Status rat_layer<T, T>(const RatLayerArgs<T>&, Gemm&, cudaStream_t);                  \
  template Status rat_layer_backward<T, T>(const RatLayerBackwardArgs<T>&, Gemm&, cudaStream_t); \
  template Status layer_step<T, T, T>(const LayerStepArgs<T>&, Gemm&, cudaStream_t);
RAT_INSTANTIATE(float)
RAT_INSTANTIATE(__nv_bfloat16)
template Status rat_layer<__nv_bfloat16, float>(const RatLayerArgs<__nv_bfloat16, float>&, Gemm&, cudaStream_t);
template Status rat_layer_backward<__nv_bfloat16, float>(const RatLayerBackwardArgs<__nv_bfloat16, float>&, Gemm&,
                                                         cudaStream_t);
template Status layer_step<__nv_bfloat16, float, __nv_bfloat16>(const LayerStepArgs<__nv_bfloat16, float>&,
                                                                    Gemm&, cudaStream_t);
template Status layer_step<__nv_bfloat16, float, e4m3>(const LayerStepArgs<__nv_bfloat16, float, e4m3>&, Gemm&,
                                                           cudaStream_t);
template Status layer_step<__nv_bfloat16, __nv_bfloat16, e4m3>(
    const LayerStepArgs<__nv_bfloat16, __nv_bfloat16, e4m3>&, Gemm&, cudaStream_t);

}  // namespace rat::kernels::cuda
