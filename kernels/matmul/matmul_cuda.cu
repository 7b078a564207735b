// Products by cuBLASLt. bf16: operands are rounded into scratch; sums and results stay float32 in every dtype.
#include <cuda_bf16.h>

#include <cstdlib>
#include <string_view>
#include <vector>

#include "kernels/cuda/blocks.h"
#include "kernels/cuda/convert.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"
#include "kernels/matmul/matmul.h"
#include "kernels/memory/memory.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;

__global__ void round_rows(Input x, __nv_bfloat16* out) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at < x.rows * x.cols) out[at] = __float2bfloat16_rn(x.row(at / x.cols)[at % x.cols]);
}

// Eight elements at a time where there are no gaps between rows.
Status round_to(const Input& x, __nv_bfloat16* out, const char* op) {
  const int64_t count = x.rows * x.cols;
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  if (x.stride == x.cols && count % 8 == 0 && aligned(x.data) && aligned(out))
    return answer(cuda::to_bf16(x.data, out, count, stream()));
  round_rows<<<blocks_for(count, threads), threads, 0, stream()>>>(x, out);
  return launched(op);
}

// x rounded, without gaps between its rows.
Result<const __nv_bfloat16*> rounded(const Input& x, int slot) {
  RAT_ASSIGN(__nv_bfloat16* const out, scratch<__nv_bfloat16>(slot, x.rows * x.cols));
  RAT_TRY(round_to(x, out, "matmul"));
  return out;
}

// The operands of one product and what it adds to.
struct Operands {
  const void *a, *b;
  bool add;
};

// hi = x rounded, lo = what that left, rounded.
__global__ void split_rows(Input x, __nv_bfloat16* hi, __nv_bfloat16* lo) {
  const int64_t at = int64_t{blockIdx.x} * threads + threadIdx.x;
  if (at >= x.rows * x.cols) return;
  const float value = x.row(at / x.cols)[at % x.cols];
  const __nv_bfloat16 high = __float2bfloat16_rn(value);
  hi[at] = high;
  lo[at] = __float2bfloat16_rn(value - __bfloat162float(high));
}

struct Halves {
  const __nv_bfloat16 *hi, *lo;
};

Result<Halves> split(const Input& x, int slot) {
  RAT_ASSIGN(__nv_bfloat16* const hi, scratch<__nv_bfloat16>(slot, x.rows * x.cols));
  RAT_ASSIGN(__nv_bfloat16* const lo, scratch<__nv_bfloat16>(slot + 2, x.rows * x.cols));
  split_rows<<<blocks_for(x.rows * x.cols, threads), threads, 0, stream()>>>(x, hi, lo);
  RAT_TRY(launched("matmul"));
  return Halves{hi, lo};
}

// One product in f32, tf32 or bf16, or the three of bf16x3, smallest first.
Result<std::vector<Operands>> operands(const MatmulArgs& args, bool add) {
  if (args.dtype == Dtype::bf16x3) {
    RAT_ASSIGN(const Halves a, split(args.a, 0));
    RAT_ASSIGN(const Halves b, split(args.b, 1));
    return std::vector<Operands>{{a.lo, b.hi, add}, {a.hi, b.lo, true}, {a.hi, b.hi, true}};
  }
  if (args.dtype != Dtype::bf16) return std::vector<Operands>{{args.a.data, args.b.data, add}};
  RAT_ASSIGN(const void* const a, rounded(args.a, 0));
  if (args.b_bf16 != nullptr) return std::vector<Operands>{{a, args.b_bf16, add}};
  RAT_ASSIGN(const void* const b, rounded(args.b, 1));
  return std::vector<Operands>{{a, b, add}};
}

}  // namespace

Status answer(const cuda::Status& status) {
  return status.ok() ? ok() : Status(Error{ErrorCode::device_failure, status.problem()});
}

Result<cuda::Gemm*> products() {
  static thread_local cuda::Gemm gemm;
  if (gemm.workspace_bytes() > 0) return &gemm;
  RAT_TRY(answer(gemm.create()));
  const char* const tune = std::getenv("RAT_CUDA_TUNE");  // see docs/cuda-backend.md
  gemm.set_tuning(tune != nullptr && std::string_view(tune) == "1");
  return &gemm;
}

Status round_weights(const RoundWeightsArgs& args) {
  const Input x(args.x.data(), 1, static_cast<int64_t>(args.x.size()));
  RAT_TRY(round_to(x, reinterpret_cast<__nv_bfloat16*>(args.out.data()), "round_weights"));
  // No kernel that reads weights early (kernels/cuda/early_launch.cuh) may be next in the stream.
  RAT_ASSIGN(int32_t* const between, scratch<int32_t>(0, 1));
  return checked(cudaMemsetAsync(between, 0, sizeof *between, stream()), "round_weights");
}

Status matmul(const MatmulArgs& args) {
  const int64_t m = args.c.rows, n = args.c.cols, k = args.transpose_a ? args.a.rows : args.a.cols;
  if (m == 0 || n == 0) return ok();
  RAT_TRY(supports(args.dtype));
  if (args.addend != nullptr && args.addend != args.c.data)
    RAT_TRY(copy_rows({.x = Input(args.addend, m, n), .y = args.c}));
  const bool add = args.accumulate || args.addend != nullptr;
  if (k == 0) return add ? ok() : zero({.x = args.c});
  const bool half = args.dtype == Dtype::bf16 || args.dtype == Dtype::bf16x3;  // copied without gaps between rows
  cuda::GemmArgs product;
  product.transpose_a = args.transpose_a;
  product.transpose_b = args.transpose_b;
  product.m = m, product.n = n, product.k = k;
  product.lda = half ? args.a.cols : args.a.stride;
  product.ldb = half ? args.b.cols : args.b.stride;
  product.d = args.c.data, product.ldd = args.c.stride;
  product.type = half ? CUDA_R_16BF : CUDA_R_32F;
  product.tf32 = args.dtype == Dtype::tf32;
  RAT_ASSIGN(cuda::Gemm* const gemm, products());
  RAT_ASSIGN(const std::vector<Operands> parts, operands(args, add));
  for (const Operands& part : parts) {
    product.a = part.a, product.b = part.b;
    product.c = part.add ? args.c.data : nullptr;
    RAT_TRY(answer(gemm->run(product, stream())));
  }
  return ok();
}

}  // namespace rat::kernels::gpu
