#include "kernels/cuda/gelu_product.h"

#include "kernels/cuda/capability.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/gemm.h"

namespace rat::kernels::cuda {
namespace {

Status check_sizes(const char* op, int64_t rows, int64_t channels, int64_t width) {
  if (rows >= 1 && channels >= 8 && channels % 8 == 0 && width >= 8 && width % 8 == 0 && rows < int64_t{1} << 31) return {};
  return refuse("%s: %lld rows, %lld channels, width %lld; 1 to 2^31 - 1 rows and multiples of 8 are needed", op,
                static_cast<long long>(rows), static_cast<long long>(channels), static_cast<long long>(width));
}

Status check_path(const char* op, GeluPath path) {
  if (path == GeluPath::separate || best_gelu_path() == GeluPath::fused) return {};
  return refuse("%s: the fused path needs compute capability 9.0 and a build with architecture 90a; use the separate path", op);
}

GemmArgs product(const __nv_bfloat16* a, const __nv_bfloat16* b, bool transpose_b, __nv_bfloat16* d, int64_t rows,
                 int64_t channels, int64_t width) {
  GemmArgs args;
  args.transpose_b = transpose_b;
  args.m = rows, args.n = width, args.k = channels;
  args.a = a, args.b = b, args.d = d;
  args.lda = channels, args.ldb = transpose_b ? channels : width, args.ldd = width;
  args.type = args.out_type = CUDA_R_16BF;
  return args;
}

}  // namespace

GeluPath best_gelu_path() {
#if defined(RAT_CUDA_HOPPER)
  if (device_capability() == 90) return GeluPath::fused;
#endif
  return GeluPath::separate;
}

Status gelu_product(const GeluProductArgs& a, GeluPath path, Gemm& gemm, cudaStream_t stream) {
  RAT_CUDA_TRY(check_sizes("gelu_product", a.rows, a.channels, a.width));
  RAT_CUDA_TRY(check_path("gelu_product", path));
#if defined(RAT_CUDA_HOPPER)
  if (path == GeluPath::fused) return paths::wgmma_gelu_product(a, stream);
#endif
  RAT_CUDA_TRY(gemm.run(product(a.x, a.weight, true, a.slope, a.rows, a.channels, a.width), stream));
  return gelu(a.slope, a.activated, a.rows * a.width, stream);
}

Status gelu_product_backward(const GeluProductBackwardArgs& a, GeluPath path, Gemm& gemm, cudaStream_t stream) {
  RAT_CUDA_TRY(check_sizes("gelu_product_backward", a.rows, a.channels, a.width));
  RAT_CUDA_TRY(check_path("gelu_product_backward", path));
#if defined(RAT_CUDA_HOPPER)
  if (path == GeluPath::fused) return paths::wgmma_gelu_product_backward(a, stream);
#endif
  RAT_CUDA_TRY(gemm.run(product(a.grad, a.weight, false, a.grad_hidden, a.rows, a.channels, a.width), stream));
  return gelu_backward(a.slope, a.grad_hidden, a.rows * a.width, stream);
}

}  // namespace rat::kernels::cuda
