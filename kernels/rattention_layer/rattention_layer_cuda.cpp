// Composed of the kernels of kernels/cuda and of linear attention on tensor cores. What backward needs lies in the
// caller's block, the rest in scratch that all layers share; linear attention has scratch of its own in slots 0 and 1.
#include <algorithm>

#include "kernels/cuda/attention_layer.h"
#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/head_norms.h"
#include "kernels/cuda/linear_decode.h"
#include "kernels/cuda/projection.h"
#include "kernels/cuda/rat_decode.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rotate.h"
#include "kernels/cuda/shared_heads.h"
#include "kernels/cuda/stream_gradient.h"
#include "kernels/cuda_ops.h"
#include "kernels/layer_step/layer_step_cuda.h"
#include "kernels/linear_attention/mma_cuda.h"
#include "kernels/rattention_layer/rattention_layer.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;
constexpr int scratch_slot = 2;

cuda::RatShape shape_of(const RattentionLayerShape& s) {
  return cuda::attention_shape(s.batch, s.tokens, s.heads, s.head_size, s.window);
}
bool shares_keys(const RattentionLayerShape& s) { return s.has_window() && s.kv_heads < s.heads; }

struct Saved {
  Half *normed, *proj, *y, *far;
  Half *near = nullptr, *rotated = nullptr;  // with a window: its result; (N, D + KV) queries, keys
  Half *keys = nullptr, *values = nullptr;   // (N, D), of shared heads with a window
  float *rstd, *lse = nullptr;
  std::size_t bytes;

  Saved(const RattentionLayerShape& s, void* block) {
    Cutter cutter(block);
    const int64_t plane = s.rows() * s.channels();
    normed = cutter.take<Half>(plane);
    proj = cutter.take<Half>(s.rows() * s.width());
    y = cutter.take<Half>(plane);
    far = cutter.take<Half>(plane);
    rstd = cutter.take<float>(s.rows());
    if (s.has_window()) {
      near = cutter.take<Half>(plane);
      if (s.rope_base > 0) rotated = cutter.take<Half>(s.rows() * (s.channels() + s.key_width()));
      lse = cutter.take<float>(s.rows() * s.heads);
    }
    if (shares_keys(s)) keys = cutter.take<Half>(plane), values = cutter.take<Half>(plane);
    bytes = cutter.used();
  }
};

struct Gradients {
  Half *y, *far, *proj, *near = nullptr, *keys = nullptr, *values = nullptr;
  float *delta = nullptr, *queries = nullptr, *workspace;
  std::size_t bytes;

  Gradients(const RattentionLayerShape& s, void* block) {
    Cutter cutter(block);
    const cuda::RatShape shape = shape_of(s);
    const int64_t plane = s.rows() * s.channels();
    y = cutter.take<Half>(plane);
    far = cutter.take<Half>(plane);
    proj = cutter.take<Half>(s.rows() * s.width());
    if (s.has_window()) {
      near = cutter.take<Half>(plane);
      delta = cutter.take<float>(s.rows() * s.heads);
      queries = cutter.take<float>(cuda::token_gradient_sums(shape, cuda::best_backward_path<Half>(shape)));
    }
    if (shares_keys(s)) keys = cutter.take<Half>(plane), values = cutter.take<Half>(plane);
    workspace = cutter.take<float>(std::max({cuda::rms_norm_workspace(s.rows(), s.channels()),
                                             cuda::head_norms_workspace(shape), cuda::chunk_attention_turns(shape)}));
    bytes = cutter.used();
  }
};

// The window's inputs, where they lie.
struct Window {
  const Half* queries;
  int64_t query_stride;
  cuda::KeyRows<const Half> keys, values;

  Window(const RattentionLayerShape& s, const Saved& b) {
    const cuda::RatShape shape = shape_of(s);
    const int64_t D = s.channels(), KV = s.key_width(), W = s.width();
    const Half* const turned = b.rotated != nullptr ? b.rotated : b.proj + KV;
    queries = turned, query_stride = b.rotated != nullptr ? D + KV : W;
    if (b.keys != nullptr) {
      keys = cuda::heads_of<const Half>(b.keys, shape, D), values = cuda::heads_of<const Half>(b.values, shape, D);
    } else {
      keys = cuda::heads_of<const Half>(turned + D, shape, query_stride),
      values = cuda::heads_of<const Half>(b.proj, shape, W);
    }
  }
};

Status attend_to_window(const RattentionLayerArgs& a, const Saved& b) {
  const RattentionLayerShape& s = a.shape;
  const cuda::RatShape shape = shape_of(s);
  const int64_t D = s.channels(), KV = s.key_width(), W = s.width();
  if (b.rotated != nullptr) {
    RAT_ASSIGN(const float2* const rope, rotations(s.head_size, s.rope_base, std::max(s.tokens, a.cache.angles)));
    RAT_TRY(answer(cuda::rotate(
        {b.proj + KV, W, s.batch, s.tokens, s.heads + s.kv_heads, s.head_size, rope, b.rotated, D + KV}, stream())));
  }
  if (b.keys != nullptr) {
    const bool turned = b.rotated != nullptr;
    RAT_TRY(answer(cuda::repeat_heads(
        {s.rows(), D, KV, turned ? D + KV : W, {turned ? b.rotated + D : b.proj + KV + D}, {b.keys}, 1}, stream())));
    RAT_TRY(answer(cuda::repeat_heads({s.rows(), D, KV, W, {b.proj}, {b.values}, 1}, stream())));
  }
  const Window in(s, b);
  cuda::ChunkAttentionArgs<Half> attention;
  attention.shape = shape;
  attention.q_rot = in.queries, attention.q_stride = in.query_stride;
  attention.keys = in.keys, attention.values = in.values;
  attention.y = b.near, attention.lse = b.lse;
  return answer(cuda::chunk_attention<Half>(attention, cuda::best_path<Half>(s.head_size), stream()));
}

// Writes the gradients of the projected rows.
Status window_backward(const RattentionLayerShape& s, const Saved& b, const Gradients& grad) {
  const cuda::RatShape shape = shape_of(s);
  const int64_t D = s.channels(), KV = s.key_width(), W = s.width();
  const Window in(s, b);
  cuda::ChunkAttentionBackwardArgs<Half> attention;
  attention.shape = shape;
  attention.q_rot = in.queries, attention.q_stride = in.query_stride;
  attention.keys = in.keys, attention.values = in.values;
  attention.grad_out = grad.near, attention.lse = b.lse, attention.delta = grad.delta;
  attention.grad_q_rot = grad.queries, attention.turns = reinterpret_cast<int*>(grad.workspace);
  RAT_ASSIGN(const float2* const rope, rotations(s.head_size, s.rope_base, s.tokens));
  attention.token_gradients = {cuda::heads_of(grad.proj + KV, shape, W), cuda::heads_of(grad.proj + KV + D, shape, W),
                               cuda::heads_of(grad.proj, shape, W), rope};
  if (grad.keys != nullptr)
    attention.token_gradients.keys = cuda::heads_of(grad.keys, shape, D),
    attention.token_gradients.values = cuda::heads_of(grad.values, shape, D);
  RAT_TRY(answer(cuda::chunk_attention_backward<Half>(attention, cuda::best_backward_path<Half>(shape), stream())));
  if (grad.keys == nullptr) return ok();
  return answer(
      cuda::sum_heads({s.rows(), D, KV, W, {grad.proj + KV + D, grad.proj}, {grad.keys, grad.values}}, stream()));
}

linear::Call<Half> linear_of(const RattentionLayerShape& s, const Saved& b) {
  const int64_t D = s.channels(), KV = s.key_width();
  const Rows<const Half> proj(b.proj, s.rows(), s.width());
  return {s.tokens,           s.heads, s.head_size, s.shift(), proj.columns(KV, D), proj.columns(KV + D, KV),
          proj.columns(0, KV)};
}

Status attend_linearly(const RattentionLayerShape& s, const Saved& b) {
  const auto row = static_cast<std::size_t>(s.channels()) * sizeof(Half);
  if (const auto unseeing = static_cast<std::size_t>(std::min(s.shift(), s.tokens)); unseeing > 0)
    RAT_TRY(checked(cudaMemset2DAsync(b.far, row * static_cast<std::size_t>(s.tokens), 0, row * unseeing,
                                      static_cast<std::size_t>(s.batch), stream()),
                    "rattention_layer"));
  if (s.tokens <= s.shift()) return ok();
  return linear::attend_on_tensor_cores<Half>(linear_of(s, b), {b.far, s.rows(), s.channels()});
}

// Adds to the gradients of the projected rows.
Status linear_backward(const RattentionLayerShape& s, const Saved& b, const Gradients& grad) {
  if (s.tokens <= s.shift()) return ok();
  const int64_t D = s.channels(), KV = s.key_width();
  const Rows<Half> proj(grad.proj, s.rows(), s.width());
  return linear::gradients_on_tensor_cores<Half>(
      linear_of(s, b),
      {Rows<const Half>(grad.far, s.rows(), D), proj.columns(KV, D), proj.columns(KV + D, KV), proj.columns(0, KV)});
}

cuda::HeadNormsArgs norms_of(const RattentionLayerArgs& a, const Saved& b) {
  if (!a.shape.has_window()) return {shape_of(a.shape), {b.far}, {a.far_norm.data()}, b.y};
  return {shape_of(a.shape), {b.near, b.far}, {a.near_norm.data(), a.far_norm.data()}, b.y};
}

Status norms_backward(const RattentionLayerBackwardArgs& a, const Saved& b, const Gradients& grad) {
  cuda::HeadNormsBackwardArgs norms{norms_of(a.forward, b), grad.y};
  norms.workspace = grad.workspace;
  if (a.forward.shape.has_window()) {
    norms.grad_x[0] = grad.near, norms.grad_x[1] = grad.far;
    norms.grad_weight[0] = a.grad_near_norm.data(), norms.grad_weight[1] = a.grad_far_norm.data();
    norms.delta = grad.delta;
  } else {
    norms.grad_x[0] = grad.far, norms.grad_weight[0] = a.grad_far_norm.data();
  }
  return answer(cuda::head_norms_backward(norms, stream()));
}

// The cache after a prefill: the newest rows of the window, and the sums of what is older than its tokens.
Status fill(const RattentionLayerArgs& a, const Saved& b) {
  const RattentionLayerShape& s = a.shape;
  const int64_t D = s.channels(), KV = s.key_width(), W = s.width(), T = s.tokens;
  if (s.has_window()) {
    const cuda::RatShape cached = cuda::of_heads(shape_of(s), s.kv_heads);
    const bool turned = b.rotated != nullptr;
    const auto keys = turned ? cuda::heads_of<const Half>(b.rotated + D, cached, D + KV)
                             : cuda::heads_of<const Half>(b.proj + KV + D, cached, W);
    const int64_t newest = std::min(T, s.window + 1);
    RAT_TRY(keep_rows(cached, keys, cuda::heads_of<const Half>(b.proj, cached, W), T - newest, newest, a.cache));
  }
  if (const int64_t older = T - std::max<int64_t>(0, s.window); older > 0) {
    RAT_ASSIGN(float* const keys, scratch<float>(scratch_slot, 2 * s.batch * older * KV));
    float* const values = keys + s.batch * older * KV;
    for (const auto& [from, to] : {std::pair{b.proj + KV + D, keys}, {b.proj, values}})
      RAT_TRY(answer(cuda::widen_first_tokens({s.batch, T, older, KV, W, from, to}, stream())));
    const int64_t rows = s.batch * older;
    RAT_TRY(linear_absorb(
        {s.head_size, {keys, rows, KV}, {values, rows, KV}, {a.cache.sums, s.step().sum_rows(), s.head_size}}));
  }
  return answer(cuda::advance_position(a.cache.position, stream(), static_cast<int32_t>(T)));
}

const Half* half(const uint16_t* weights) { return reinterpret_cast<const Half*>(weights); }

}  // namespace

bool fuses_rattention_layer(const RattentionLayerShape& s) {
  return on_tensor_cores(s.head_size) && s.channels() % 64 == 0 && s.channels() <= 2048 &&
         cuda::check_shape("rattention_layer", shape_of(s)).ok();
}

std::size_t rattention_layer_saved(const RattentionLayerShape& s) { return Saved(s, nullptr).bytes; }

Status rattention_layer(const RattentionLayerArgs& a) {
  const RattentionLayerShape& s = a.shape;
  const int64_t D = s.channels(), N = s.rows();
  const Saved b(s, a.saved);
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::rms_norm<Half, float>({a.x.data, a.norm.data(), b.normed, b.rstd, N, D}, stream())));
  RAT_TRY(
      answer(cuda::project<Half, Half>(*gemm, b.normed, half(a.in_proj), nullptr, b.proj, N, s.width(), D, stream())));
  if (s.has_window()) RAT_TRY(attend_to_window(a, b));
  RAT_TRY(attend_linearly(s, b));
  RAT_TRY(answer(cuda::head_norms(norms_of(a, b), stream())));
  const float* const residual = a.residual ? a.x.data : nullptr;
  RAT_TRY(answer(cuda::project<Half, float>(*gemm, b.y, half(a.out_proj), residual, a.y.data, N, D, D, stream())));
  return a.cache.position == nullptr ? ok() : fill(a, b);
}

Status rattention_layer_backward(const RattentionLayerBackwardArgs& a) {
  const RattentionLayerArgs& f = a.forward;
  const RattentionLayerShape& s = f.shape;
  const int64_t D = s.channels(), N = s.rows(), W = s.width();
  const Saved b(s, f.saved);
  RAT_ASSIGN(void* const block, scratch_bytes(scratch_slot, Gradients(s, nullptr).bytes));
  const Gradients grad(s, block);
  RAT_ASSIGN(Half* const grad_out, rounded_gradient(a.grad));
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(
      cuda::project_weight_gradient<Half>(*gemm, grad_out, b.y, a.grad_out_proj.data(), true, N, D, D, stream())));
  RAT_TRY(answer(cuda::project_input_gradient<Half>(*gemm, grad_out, half(f.out_proj), grad.y, N, D, D, stream())));
  RAT_TRY(norms_backward(a, b, grad));
  if (s.has_window())
    RAT_TRY(window_backward(s, b, grad));
  else
    RAT_TRY(checked(cudaMemsetAsync(grad.proj, 0, static_cast<std::size_t>(N * W) * sizeof(Half), stream()),
                    "rattention_layer"));
  RAT_TRY(linear_backward(s, b, grad));
  RAT_TRY(answer(
      cuda::project_weight_gradient<Half>(*gemm, grad.proj, b.normed, a.grad_in_proj.data(), true, N, W, D, stream())));
  // The normed input is not needed any more: its gradient takes its place.
  RAT_TRY(answer(cuda::project_input_gradient<Half>(*gemm, grad.proj, half(f.in_proj), b.normed, N, W, D, stream())));
  cuda::RmsNormBackwardArgs<Half, float> norm{f.x.data, f.norm.data(),      b.rstd,        b.normed, grad_out,
                                              grad_out, a.grad_norm.data(), grad.workspace};
  norm.rows = N, norm.channels = D, norm.add_grad_weight = true;
  return answer(cuda::rms_norm_backward<Half, float>(norm, stream()));
}

}  // namespace rat::kernels::gpu
