// The layer of kernels/cuda/rat_layer.h with a f32 residual stream. What backward needs lies in the caller's block, the
// rest in scratch that all layers share.
#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/rat_layer.h"
#include "kernels/cuda/stream_gradient.h"
#include "kernels/cuda_ops.h"
#include "kernels/layer_step/layer_step_cuda.h"
#include "kernels/rat_layer/rat_layer.h"

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
  b.workspace = cutter.take<float>(cuda::rat_workspace<Half>(s));
  return cutter.used();
}

Result<cuda::RatLayerArgs<Half, float>> layer_args(const RatLayerArgs& a) {
  cuda::RatLayerArgs<Half, float> args;
  args.shape = shape_of(a.shape);
  args.weights = {a.norm.data(), reinterpret_cast<const Half*>(a.in_proj), a.gate_bias.data(),
                  reinterpret_cast<const Half*>(a.out_proj)};
  cut_saved(args.shape, a.saved, args.buffers);
  RAT_ASSIGN(args.rope, rotations(a.shape.head_size, a.shape.rope_base, std::max(args.shape.chunks(), a.cache.angles)));
  args.path = cuda::best_path<Half>(a.shape.head_size);
  args.x = a.x.data;
  args.residual = a.residual ? a.x.data : nullptr;
  args.out = a.y.data;
  args.training = a.cache.capacity == 0;
  if (args.training) return args;
  const LayerCache& cache = a.cache;
  if (cache.dtype == CacheDtype::bf16) {  // else the attention reads buffers.keys and values, quantised afterwards
    const auto rows = cache_rows<Half>(args.shape, cache);
    args.keys = rows.keys, args.values = rows.values;
  }
  args.state_k = cache.state_k, args.state_v = cache.state_v;
  return args;
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
  if (a.cache.dtype == CacheDtype::fp8) {
    const auto ends = [&](Half* data) {
      return cuda::read_only(cuda::head_major(data, args.shape, std::max<int64_t>(1, args.shape.full_chunks())));
    };
    RAT_TRY(keep_rows(args.shape, ends(args.buffers.keys), ends(args.buffers.values), 0, args.shape.full_chunks(),
                      a.cache));
  }
  return answer(cuda::advance_position(a.cache.position, stream(), static_cast<int32_t>(a.shape.tokens)));
}

Status rat_layer_backward(const RatLayerBackwardArgs& a) {
  cuda::RatLayerBackwardArgs<Half, float> args;
  RAT_ASSIGN(args.forward, layer_args(a.forward));
  args.forward.path = cuda::best_backward_path<Half>(args.forward.shape);
  cuda::RatBuffers<Half>& buffers = args.forward.buffers;
  cuda::RatBuffers<Half> sizes;
  RAT_ASSIGN(void* const block, scratch_bytes(0, cut_scratch(args.forward.shape, nullptr, sizes)));
  cut_scratch(args.forward.shape, block, buffers);
  RAT_ASSIGN(args.grad_x, rounded_gradient(a.grad));
  args.grad_out = args.grad_x;
  args.residual_gradient = true;
  args.add_gradients = true;
  args.gradients = {a.grad_norm.data(), a.grad_in_proj.data(), a.grad_gate_bias.data(), a.grad_out_proj.data()};
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  return answer(cuda::rat_layer_backward<Half, float>(args, *gemm, stream()));
}

}  // namespace rat::kernels::gpu
