// The layer of kernels/cuda/rat_layer.h with a f32 residual stream. What backward needs lies in the caller's block, the
// rest in scratch that all layers share.
#include "kernels/rat_layer/rat_layer.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/rat_layer.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

cuda::RatShape shape_of(const RatLayerShape& s) {
  return {s.batch, s.tokens, s.heads, s.head_size, s.groups, s.chunk_len};
}

int64_t key_count(const cuda::RatShape& s) { return s.batch * s.channels() * std::max<int64_t>(1, s.full_chunks()); }

std::size_t cut_saved(const cuda::RatShape& s, void* block, cuda::RatBuffers<Half>& b) {
  Cutter cutter(block);
  b.normed = cutter.take<Half>(s.rows() * s.channels());
  b.proj = cutter.take<Half>(s.rows() * s.proj_width());
  b.y = cutter.take<Half>(s.rows() * s.channels());
  b.q_rot = cutter.take<Half>(s.rows() * s.group_width());
  b.keys = cutter.take<Half>(key_count(s));
  b.values = cutter.take<Half>(key_count(s));
  b.rstd = cutter.take<float>(s.rows());
  b.own_score = cutter.take<float>(s.rows() * s.heads);
  b.lse = cutter.take<float>(s.rows() * s.heads);
  return cutter.used();
}

std::size_t cut_scratch(const cuda::RatShape& s, void* block, cuda::RatBuffers<Half>& b) {
  Cutter cutter(block);
  b.grad_y = cutter.take<Half>(s.rows() * s.channels());
  b.delta = cutter.take<float>(s.rows() * s.heads);
  b.grad_q_rot = cutter.take<float>(s.rows() * s.group_width());
  b.grad_keys = cutter.take<float>(key_count(s));
  b.grad_values = cutter.take<float>(key_count(s));
  b.workspace = cutter.take<float>(
      std::max(cuda::chunk_scan_backward_workspace<Half>(s), cuda::rms_norm_workspace(s.rows(), s.channels())));
  return cutter.used();
}

template <class C>
cuda::KeyRows<C> cache_rows(void* data, const cuda::RatShape& shape, int64_t capacity) {
  return cuda::head_major(static_cast<C*>(data), shape, capacity);
}
cuda::KeyRows<ushort2> scale_rows(const RatLayerCache& cache, const cuda::RatShape& shape) {
  return cuda::scale_pairs(reinterpret_cast<ushort2*>(cache.scales), shape, cache.capacity);
}

Result<cuda::RatLayerArgs<Half, float>> layer_args(const RatLayerArgs& a) {
  cuda::RatLayerArgs<Half, float> args;
  args.shape = shape_of(a.shape);
  args.weights = {a.norm.data(), reinterpret_cast<const Half*>(a.in_proj), a.gate_bias.data(),
                  reinterpret_cast<const Half*>(a.out_proj)};
  cut_saved(args.shape, a.saved, args.buffers);
  const int64_t angles = std::max(args.shape.chunks(), a.cache.capacity + 1);
  RAT_ASSIGN(args.rope, rotations(a.shape.head_size, a.shape.rope_base, angles));
  args.path = cuda::best_path<Half>(a.shape.head_size, args.shape.keys());
  args.x = a.x.data;
  args.residual = a.residual ? a.x.data : nullptr;
  args.out = a.y.data;
  args.training = a.cache.capacity == 0;
  if (args.training) return args;
  const RatLayerCache& cache = a.cache;
  if (cache.dtype == CacheDtype::bf16) {  // else the attention reads buffers.keys and values, quantised afterwards
    args.keys = cache_rows<Half>(cache.keys, args.shape, cache.capacity);
    args.values = cache_rows<Half>(cache.values, args.shape, cache.capacity);
  }
  args.state_k = cache.state_k, args.state_v = cache.state_v;
  return args;
}

Status quantise(const cuda::RatLayerArgs<Half, float>& args, const RatLayerCache& cache) {
  const cuda::RatShape& shape = args.shape;
  const auto from = [&](Half* data) {
    return cuda::read_only(cuda::head_major(data, shape, std::max<int64_t>(1, shape.full_chunks())));
  };
  return answer(cuda::quantise_chunk_ends({.shape = shape,
                                           .keys = from(args.buffers.keys),
                                           .values = from(args.buffers.values),
                                           .to_keys = cache_rows<cuda::e4m3>(cache.keys, shape, cache.capacity),
                                           .to_values = cache_rows<cuda::e4m3>(cache.values, shape, cache.capacity),
                                           .scales = scale_rows(cache, shape)},
                                          stream()));
}

// Asked for every layer of every step of decoding: the device is only asked once.
bool on_tensor_cores(int64_t head_size) {
  static const bool heads_of_64 = cuda::best_path<Half>(64) != cuda::AttentionPath::simple;
  static const bool heads_of_128 = cuda::best_path<Half>(128) != cuda::AttentionPath::simple;
  return head_size == 64 ? heads_of_64 : head_size == 128 && heads_of_128;
}

}  // namespace

bool fuses_rat_layer(const RatLayerShape& s) {
  return on_tensor_cores(s.head_size) && s.channels() % 64 == 0 && s.channels() <= 2048 &&
         cuda::check_shape("rat_layer", shape_of(s)).ok();
}

std::size_t rat_layer_saved(const RatLayerShape& s) {
  cuda::RatBuffers<Half> unused;
  return cut_saved(shape_of(s), nullptr, unused);
}

Status rat_layer(const RatLayerArgs& a) {
  RAT_ASSIGN(const auto args, layer_args(a));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::rat_layer<Half, float>(args, *gemm, stream())));
  if (a.cache.capacity == 0) return ok();
  if (a.cache.dtype == CacheDtype::fp8) RAT_TRY(quantise(args, a.cache));
  return answer(cuda::advance_position(a.cache.position, stream(), static_cast<int32_t>(a.shape.tokens)));
}

// Splits of the keys follow from the capacity, not from how many there are: a captured step stays right while the cache
// fills.
std::size_t rat_layer_step_workspace(const RatLayerShape& s, int64_t capacity) {
  const cuda::RatShape shape = shape_of(s);
  return cuda::rat_decode_workspace(shape, cuda::rat_decode_splits(shape, capacity));
}

namespace {

// C: what the cache's keys and values are.
template <class C>
Status step(const RatLayerStepArgs& a) {
  cuda::RatLayerStepArgs<Half, float, C> args;
  const RatLayerCache& cache = a.cache;
  cuda::RatDecodeArgs<Half, C>& decode = args.decode;
  const cuda::RatShape shape = decode.shape = shape_of(a.shape);
  decode.capacity = cache.capacity;
  decode.position = cache.position;
  decode.gate_bias = a.gate_bias.data();
  RAT_ASSIGN(decode.rope, rotations(a.shape.head_size, a.shape.rope_base, cache.capacity + 1));
  decode.state_k = cache.state_k, decode.state_v = cache.state_v;
  decode.keys = cache_rows<C>(cache.keys, shape, cache.capacity);
  decode.values = cache_rows<C>(cache.values, shape, cache.capacity);
  decode.scales = scale_rows(cache, shape);
  decode.splits = cuda::rat_decode_splits(shape, cache.capacity);
  decode.workspace = static_cast<float*>(cache.workspace);
  args.weights = {a.norm.data(), reinterpret_cast<const Half*>(a.in_proj), a.gate_bias.data(),
                  reinterpret_cast<const Half*>(a.out_proj)};
  args.x = a.x.data;
  args.residual = a.residual ? a.x.data : nullptr;
  args.out = a.y.data;
  const int64_t plane = shape.batch * shape.channels();
  RAT_ASSIGN(args.normed, scratch<Half>(0, plane));
  RAT_ASSIGN(args.proj, scratch<Half>(1, shape.batch * shape.proj_width()));
  RAT_ASSIGN(args.y, scratch<Half>(2, plane));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::rat_layer_step<Half, float, C>(args, *gemm, stream())));
  return answer(cuda::advance_position(cache.position, stream()));
}

}  // namespace

Status rat_layer_step(const RatLayerStepArgs& a) {
  return a.cache.dtype == CacheDtype::fp8 ? step<cuda::e4m3>(a) : step<Half>(a);
}

Status rat_layer_backward(const RatLayerBackwardArgs& a) {
  cuda::RatLayerBackwardArgs<Half, float> args;
  RAT_ASSIGN(args.forward, layer_args(a.forward));
  cuda::RatBuffers<Half>& buffers = args.forward.buffers;
  cuda::RatBuffers<Half> sizes;
  RAT_ASSIGN(void* const block, scratch_bytes(0, cut_scratch(args.forward.shape, nullptr, sizes)));
  cut_scratch(args.forward.shape, block, buffers);
  args.grad_out = args.grad_x = a.grad.values.data;
  args.grad_rounded = reinterpret_cast<Half*>(a.grad.rounded);
  args.grad_is_rounded = a.grad.is_rounded;
  args.residual_gradient = true;
  args.add_gradients = true;
  args.gradients = {a.grad_norm.data(), a.grad_in_proj.data(), a.grad_gate_bias.data(), a.grad_out_proj.data()};
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  return answer(cuda::rat_layer_backward<Half, float>(args, *gemm, stream()));
}

}  // namespace rat::kernels::gpu
