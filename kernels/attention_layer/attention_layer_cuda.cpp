// The layer of kernels/cuda/attention_layer.h. What backward needs lies in the caller's block, the rest in scratch that
// all layers share.
#include <algorithm>

#include "kernels/attention_layer/attention_layer.h"
#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/dilated_keys.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/stream_gradient.h"
#include "kernels/cuda_ops.h"
#include "kernels/layer_step/layer_step_cuda.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

cuda::RatShape shape_of(const AttentionLayerShape& s) {
  return cuda::attention_shape(s.batch, s.tokens, s.heads, s.head_size, s.window);
}

std::size_t cut_saved(const AttentionLayerShape& s, void* block, cuda::AttentionBuffers& b) {
  Cutter cutter(block);
  const int64_t plane = s.rows() * s.channels();
  b.normed = cutter.take<Half>(plane);
  b.proj = cutter.take<Half>(s.rows() * s.width());
  b.y = cutter.take<Half>(plane);
  if (!s.in_place()) b.keys = cutter.take<Half>(plane), b.values = cutter.take<Half>(plane);
  b.rstd = cutter.take<float>(s.rows());
  b.lse = cutter.take<float>(s.rows() * s.heads);
  return cutter.used();
}

int64_t cut_dilated_keys(const AttentionLayerShape& s, Cutter& cutter, cuda::DilatedBuffers& d) {
  d.shape = cuda::before_window(shape_of(s), s.dilation, s.initial);
  const int64_t plane = s.batch * d.shape.keys() * s.channels();
  d.keys = cutter.take<Half>(plane), d.values = cutter.take<Half>(plane);
  return plane;
}

// What forward alone needs.
std::size_t cut_forward_scratch(const AttentionLayerShape& s, void* block, cuda::AttentionLayerArgs& args) {
  Cutter cutter(block);
  args.buffers.workspace = cutter.take<float>(cuda::attention_layer_workspace(shape_of(s), s.recurrent));
  if (s.dilation > 0) {
    cut_dilated_keys(s, cutter, args.dilated);
    args.dilated.window_lse = cutter.take<float>(s.rows() * s.heads);
  }
  return cutter.used();
}

std::size_t cut_scratch(const AttentionLayerShape& s, void* block, cuda::AttentionLayerArgs& args) {
  cuda::AttentionBuffers& b = args.buffers;
  Cutter cutter(block);
  const int64_t plane = s.rows() * s.channels();
  b.grad_y = cutter.take<Half>(plane);
  b.grad_proj = cutter.take<Half>(s.rows() * s.width());
  if (!s.in_place()) b.grad_keys = cutter.take<Half>(plane), b.grad_values = cutter.take<Half>(plane);
  b.delta = cutter.take<float>(s.rows() * s.heads);
  const cuda::RatShape shape = shape_of(s);
  const int64_t sums = cuda::token_gradient_sums(shape, cuda::best_backward_path<Half>(shape));
  b.grad_queries = cutter.take<float>(s.dilation > 0 ? plane : sums);
  b.workspace = cutter.take<float>(cuda::attention_layer_workspace(shape, s.recurrent));
  if (s.dilation > 0) {
    const int64_t keys = cut_dilated_keys(s, cutter, args.dilated);
    args.dilated.grad_keys = cutter.take<float>(keys), args.dilated.grad_values = cutter.take<float>(keys);
  }
  return cutter.used();
}

Result<cuda::AttentionLayerArgs> layer_args(const AttentionLayerArgs& a) {
  cuda::AttentionLayerArgs args;
  args.shape = shape_of(a.shape);
  args.recurrent = a.shape.recurrent, args.kv_heads = a.shape.kv_heads;
  args.weights = {a.norm.data(), reinterpret_cast<const Half*>(a.in_proj), reinterpret_cast<const Half*>(a.out_proj)};
  cut_saved(a.shape, a.saved, args.buffers);
  RAT_ASSIGN(args.rope, rotations(a.shape.head_size, a.shape.rope_base, std::max(a.shape.tokens, a.cache.angles)));
  args.path = cuda::best_path<Half>(a.shape.head_size);
  args.x = a.x.data;
  args.residual = a.residual ? a.x.data : nullptr;
  args.out = a.y.data;
  args.state_k = a.cache.state_k, args.state_v = a.cache.state_v;
  return args;
}

// The cache after a prefill: the newest rows where a window keeps only some, and, dilated, what is seen beyond it.
Status fill(const AttentionLayerArgs& a, const cuda::AttentionLayerArgs& layer) {
  const LayerStepShape step = a.shape.step();
  const cuda::RatShape cached = cuda::of_heads(layer.shape, step.cached_heads());
  const cuda::AttentionBuffers& b = layer.buffers;
  const int64_t width = a.shape.recurrent ? a.shape.channels() : layer.width();
  const auto heads = [&](const Half* rows) { return cuda::heads_of<const Half>(rows, cached, width); };
  const auto keys = heads(a.shape.recurrent ? b.keys : b.proj + layer.key_column());
  const auto values = heads(a.shape.recurrent ? b.values : b.proj);
  const int64_t T = a.shape.tokens, newest = step.window < 0 ? T : std::min(T, step.window + 1);
  RAT_TRY(keep_rows(cached, keys, values, T - newest, newest, a.cache));
  if (step.dilation > 0)
    RAT_TRY(keep_rows(cuda::before_window(cached, step.dilation, step.initial), keys, values, 0,
                      kept_tokens(T, step.dilation, step.initial), a.cache));
  return answer(cuda::advance_position(a.cache.position, stream(), static_cast<int32_t>(T)));
}

}  // namespace

bool fuses_attention_layer(const AttentionLayerShape& s) {
  return on_tensor_cores(s.head_size) && s.channels() % 64 == 0 && s.channels() <= 2048 &&
         cuda::check_shape("attention_layer", shape_of(s)).ok() && (s.dilation == 0 || (s.recurrent && s.window >= 0));
}

std::size_t attention_layer_saved(const AttentionLayerShape& s) {
  cuda::AttentionBuffers unused;
  return cut_saved(s, nullptr, unused);
}

Status attention_layer(const AttentionLayerArgs& a) {
  RAT_ASSIGN(auto args, layer_args(a));
  if (args.recurrent) {
    cuda::AttentionLayerArgs sizes;
    RAT_ASSIGN(void* const block, scratch_bytes(0, cut_forward_scratch(a.shape, nullptr, sizes)));
    cut_forward_scratch(a.shape, block, args);
  }
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::attention_layer(args, *gemm, stream())));
  return a.cache.capacity == 0 ? ok() : fill(a, args);
}

Status attention_layer_backward(const AttentionLayerBackwardArgs& a) {
  cuda::AttentionLayerBackwardArgs args;
  RAT_ASSIGN(args.forward, layer_args(a.forward));
  args.forward.path = cuda::best_backward_path<Half>(args.forward.shape);
  cuda::AttentionLayerArgs sizes;
  RAT_ASSIGN(void* const block, scratch_bytes(0, cut_scratch(a.forward.shape, nullptr, sizes)));
  cut_scratch(a.forward.shape, block, args.forward);
  RAT_ASSIGN(args.grad, rounded_gradient(a.grad));
  args.gradients = {a.grad_norm.data(), a.grad_in_proj.data(), a.grad_out_proj.data()};
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  return answer(cuda::attention_layer_backward(args, *gemm, stream()));
}

}  // namespace rat::kernels::gpu
