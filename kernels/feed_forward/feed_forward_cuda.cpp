// Saved: the normed input, its factors, GELU and its slope, in bf16: computing them again in backward takes longer than
// reading them.
#include "kernels/feed_forward/feed_forward.h"

#include <cuda_bf16.h>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/few_rows.h"
#include "kernels/cuda/gelu_product.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/stream_gradient.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

using Half = __nv_bfloat16;

struct Saved {
  Half *normed, *slope, *activated;
  float* rstd;
  std::size_t bytes;

  Saved(const FeedForwardShape& s, void* block) {
    Cutter cutter(block);
    normed = cutter.take<Half>(s.rows * s.channels);
    slope = cutter.take<Half>(s.rows * s.hidden);
    activated = cutter.take<Half>(s.rows * s.hidden);
    rstd = cutter.take<float>(s.rows);
    bytes = cutter.used();
  }
};

struct Gradients {
  Half *hidden, *normed;
  float* workspace;
  std::size_t bytes;

  Gradients(const FeedForwardShape& s, void* block) {
    Cutter cutter(block);
    hidden = cutter.take<Half>(s.rows * s.hidden);
    normed = cutter.take<Half>(s.rows * s.channels);
    workspace = cutter.take<float>(cuda::rms_norm_workspace(s.rows, s.channels));
    bytes = cutter.used();
  }
};

// d (m, n) = op(a) op(b) + c, of bf16 operands.
struct Product {
  bool transpose_a = false, transpose_b = false;
  int64_t m, n, k;
  const Half *a, *b;
  const float* add = nullptr;
  void* d;
  cudaDataType_t out_type;
};

Status multiply(cuda::Gemm& gemm, const Product& p) {
  cuda::GemmArgs args;
  args.transpose_a = p.transpose_a, args.transpose_b = p.transpose_b;
  args.m = p.m, args.n = p.n, args.k = p.k;
  args.a = p.a, args.b = p.b, args.c = p.add, args.d = p.d;
  args.lda = p.transpose_a ? p.m : p.k, args.ldb = p.transpose_b ? p.k : p.n, args.ldd = p.n;
  args.type = CUDA_R_16BF;
  args.out_type = p.out_type;
  return answer(gemm.run(args, stream()));
}

const Half* half(const uint16_t* weights) { return reinterpret_cast<const Half*>(weights); }

// What a step of decoding takes: fewer rows than products have tiles for.
bool takes_few_rows(const FeedForwardArgs& a) {
  const auto& [N, D, F] = a.shape;
  return !a.keep && cuda::few_rows_takes(N, F, D) && cuda::few_rows_takes(N, D, F);
}

Status step(const FeedForwardArgs& a, const Saved& saved) {
  const auto& [N, D, F] = a.shape;
  cuda::FewRowsArgs<Half> first{.weight = half(a.fc1), .gelu = true, .out = saved.activated, .rows = N, .n = F, .k = D};
  if (cuda::few_rows_takes_norm(N, F, D)) {
    first.norm = {a.x.data, a.norm.data()};
  } else {
    cuda::RmsNormArgs<Half, float> norm{a.x.data, a.norm.data(), saved.normed, nullptr, N, D};
    norm.early = true;
    RAT_TRY(answer(cuda::rms_norm<Half, float>(norm, stream())));
    first.x = saved.normed;
  }
  RAT_TRY(answer(cuda::few_rows_product<Half>(first, stream())));
  return answer(cuda::few_rows_product<float>({.x = saved.activated,
                                               .weight = half(a.fc2),
                                               .residual = a.x.data,
                                               .out = a.y.data,
                                               .rows = N,
                                               .n = D,
                                               .k = F},
                                              stream()));
}

}  // namespace

bool fuses_feed_forward(const FeedForwardShape& s) {
  return s.channels % 8 == 0 && s.channels >= 64 && s.channels <= 2048 && s.hidden % 8 == 0;
}

std::size_t feed_forward_saved(const FeedForwardShape& s) { return Saved(s, nullptr).bytes; }

Status feed_forward(const FeedForwardArgs& a) {
  const auto& [N, D, F] = a.shape;
  const Saved saved(a.shape, a.saved);
  if (takes_few_rows(a)) return step(a, saved);
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_TRY(answer(cuda::rms_norm<Half, float>({a.x.data, a.norm.data(), saved.normed, saved.rstd, N, D}, stream())));
  RAT_TRY(answer(cuda::gelu_product({saved.normed, half(a.fc1), saved.slope, saved.activated, N, D, F, a.keep},
                                    cuda::best_gelu_path(), *gemm, stream())));
  return multiply(*gemm, {.transpose_b = true,
                          .m = N,
                          .n = D,
                          .k = F,
                          .a = saved.activated,
                          .b = half(a.fc2),
                          .add = a.x.data,
                          .d = a.y.data,
                          .out_type = CUDA_R_32F});
}

Status feed_forward_backward(const FeedForwardBackwardArgs& a) {
  const auto& [N, D, F] = a.forward.shape;
  const Saved saved(a.forward.shape, a.forward.saved);
  RAT_ASSIGN(void* const block, scratch_bytes(0, Gradients(a.forward.shape, nullptr).bytes));
  const Gradients grad(a.forward.shape, block);
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_ASSIGN(Half* const grad_out, rounded_gradient(a.grad));
  RAT_TRY(answer(cuda::gelu_product_backward({grad_out, half(a.forward.fc2), saved.slope, grad.hidden, N, D, F},
                                             cuda::best_gelu_path(), *gemm, stream())));
  RAT_TRY(multiply(*gemm, {.transpose_a = true,
                           .m = D,
                           .n = F,
                           .k = N,
                           .a = grad_out,
                           .b = saved.activated,
                           .add = a.grad_fc2.data(),
                           .d = a.grad_fc2.data(),
                           .out_type = CUDA_R_32F}));
  RAT_TRY(multiply(*gemm, {.transpose_a = true,
                           .m = F,
                           .n = D,
                           .k = N,
                           .a = grad.hidden,
                           .b = saved.normed,
                           .add = a.grad_fc1.data(),
                           .d = a.grad_fc1.data(),
                           .out_type = CUDA_R_32F}));
  RAT_TRY(multiply(
      *gemm,
      {.m = N, .n = D, .k = F, .a = grad.hidden, .b = half(a.forward.fc1), .d = grad.normed, .out_type = CUDA_R_16BF}));
  cuda::RmsNormBackwardArgs<Half, float> norm;
  norm.x = a.forward.x.data, norm.weight = a.forward.norm.data(), norm.rstd = saved.rstd, norm.grad_y = grad.normed;
  norm.residual = norm.grad_x = grad_out;
  norm.grad_weight = a.grad_norm.data(), norm.add_grad_weight = true;
  norm.workspace = grad.workspace, norm.rows = N, norm.channels = D;
  return answer(cuda::rms_norm_backward<Half, float>(norm, stream()));
}

}  // namespace rat::kernels::gpu
