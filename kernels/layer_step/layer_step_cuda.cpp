#include "kernels/layer_step/layer_step_cuda.h"

#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/dilated_keys.h"
#include "kernels/cuda/rat_layer.h"
#include "kernels/cuda/step_products.h"
#include "kernels/cuda/value_scan.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

cuda::RatShape shape_of(const LayerStepShape& s) {
  if (s.groups == 0) return cuda::attention_shape(s.batch, 1, s.heads, s.head_size, s.window);
  return {s.batch, 1, s.heads, s.head_size, s.groups, s.chunk_len};
}

// C: what the cache's keys and values are.
template <class C>
Status keep(const cuda::RatShape& shape, const cuda::KeyRows<const Half>& keys, const cuda::KeyRows<const Half>& values,
            int64_t first, int64_t count, const LayerCache& cache) {
  const auto to = cache_rows<C>(shape, cache);
  return answer(cuda::fill_cache<C>({.shape = shape,
                                     .first = first,
                                     .count = count,
                                     .keys = keys,
                                     .values = values,
                                     .to_keys = to.keys,
                                     .to_values = to.values,
                                     .scales = scale_rows(shape, cache)},
                                    stream()));
}

// The window's rows are bf16: in fp8 these layers are not fused.
cuda::LinearDecodeArgs linear_step(const LayerStepArgs& a, const cuda::RatShape& shape, const float2* rope) {
  cuda::LinearDecodeArgs linear;
  linear.shape = shape, linear.kv_heads = a.shape.cached_heads();
  linear.sums = a.cache.sums;
  linear.near_norm = a.near_norm.data(), linear.far_norm = a.far_norm.data();
  const auto rows = cache_rows<Half>(cuda::of_heads(shape, linear.kv_heads), a.cache);
  linear.keys = cuda::read_only(rows.keys), linear.values = cuda::read_only(rows.values);
  linear.rope = rope;
  return linear;
}

template <class C>
Status step(const LayerStepArgs& a) {
  cuda::LayerStepArgs<Half, float, C> args;
  const LayerCache& cache = a.cache;
  cuda::RatDecodeArgs<Half, C>& decode = args.decode;
  const cuda::RatShape shape = decode.shape = shape_of(a.shape);
  decode.capacity = cache.capacity;
  decode.angles = cache.angles;
  decode.position = cache.position;
  decode.gate_bias = a.gate_bias.data();
  RAT_ASSIGN(decode.rope, rotations(a.shape.head_size, a.shape.rope_base, cache.angles));
  decode.recurrent = a.shape.recurrent, decode.kv_heads = a.shape.kv_heads;
  if (a.shape.dilation > 0) decode.before = cuda::before_window(shape, a.shape.dilation, a.shape.initial);
  decode.state_k = cache.state_k, decode.state_v = cache.state_v;
  const cuda::RatShape cached = cuda::of_heads(shape, a.shape.cached_heads());
  const auto rows = cache_rows<C>(cached, cache);
  decode.keys = rows.keys, decode.values = rows.values;
  decode.scales = scale_rows(cached, cache);
  decode.splits = cuda::rat_decode_splits(shape, cache.capacity, a.shape.kv_heads);
  decode.workspace = static_cast<float*>(cache.workspace);
  args.weights = {a.norm.data(), reinterpret_cast<const Half*>(a.in_proj), a.gate_bias.data(),
                  reinterpret_cast<const Half*>(a.out_proj)};
  args.x = a.x.data;
  args.residual = a.residual ? a.x.data : nullptr;
  args.out = a.y.data;
  const int64_t plane = shape.batch * shape.channels();
  RAT_ASSIGN(args.normed, scratch<Half>(0, plane));
  RAT_ASSIGN(args.proj, scratch<Half>(1, shape.batch * decode.projected()));
  RAT_ASSIGN(args.y, scratch<Half>(2, plane));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  args.counter = cache.position;
  cuda::LinearDecodeArgs linear;
  if (a.shape.linear) linear = linear_step(a, shape, decode.rope), args.linear = &linear;
  return answer(cuda::layer_step<Half, float, C>(args, *gemm, stream()));
}

Status rnn_step(const LayerStepArgs& a) {
  const int64_t B = a.shape.batch, D = a.shape.channels();
  RAT_ASSIGN(Half* const normed, scratch<Half>(0, B * D));
  RAT_ASSIGN(Half* const proj, scratch<Half>(1, B * 3 * D));
  RAT_ASSIGN(Half* const y, scratch<Half>(2, B * D));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  const auto half = [](const uint16_t* weights) { return reinterpret_cast<const Half*>(weights); };
  const cuda::StepProducts<Half, float> step{.rows = B,
                                             .channels = D,
                                             .width = 3 * D,
                                             .x = a.x.data,
                                             .norm = a.norm.data(),
                                             .in_proj = half(a.in_proj),
                                             .out_proj = half(a.out_proj),
                                             .y = y,
                                             .normed = normed,
                                             .proj = proj,
                                             .residual = a.residual ? a.x.data : nullptr,
                                             .out = a.y.data,
                                             .counter = a.cache.position};
  RAT_TRY(answer(step.begin(*gemm, stream())));
  RAT_TRY(answer(
      cuda::value_step({B, D, proj, a.gate_bias.data(), a.cache.state_v, a.cache.position, step.ahead(), y}, stream())));
  return answer(step.end(*gemm, stream()));
}

}  // namespace

bool on_tensor_cores(int64_t head_size) {
  static const bool heads_of_64 = cuda::best_path<Half>(64) != cuda::AttentionPath::simple;
  static const bool heads_of_128 = cuda::best_path<Half>(128) != cuda::AttentionPath::simple;
  return head_size == 64 ? heads_of_64 : head_size == 128 && heads_of_128;
}

Status keep_rows(const cuda::RatShape& shape, const cuda::KeyRows<const Half>& keys,
                 const cuda::KeyRows<const Half>& values, int64_t first, int64_t count, const LayerCache& cache) {
  return cache.dtype == CacheDtype::fp8 ? keep<cuda::e4m3>(shape, keys, values, first, count, cache)
                                        : keep<Half>(shape, keys, values, first, count, cache);
}

// Splits of the keys follow from the capacity, not from how many there are: a captured step stays right while the cache
// fills.
std::size_t layer_step_workspace(const LayerStepShape& s, int64_t capacity) {
  const cuda::RatShape shape = shape_of(s);
  return cuda::rat_decode_workspace(shape, cuda::rat_decode_splits(shape, capacity, s.kv_heads));
}

Status layer_step(const LayerStepArgs& a) {
  if (!a.shape.takes_fp8() && a.cache.dtype == CacheDtype::fp8)
    return fail(ErrorCode::unsupported, "layer_step: what RAttention and RNNs keep is not kept in fp8");
  if (a.shape.rnn) return rnn_step(a);
  return a.cache.dtype == CacheDtype::fp8 ? step<cuda::e4m3>(a) : step<Half>(a);
}

}  // namespace rat::kernels::gpu
