#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace rat::kernels::cuda {
namespace {

constexpr int kCandidates = 12;

// The largest power of two up to 256 that divides the address: what an algorithm may rely on.
uint32_t alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return static_cast<uint32_t>(std::min<std::uintptr_t>(256, address == 0 ? 256 : address & (~address + 1)));
}

Status checked(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return {};
  return refuse("matmul: %s failed: %s", what, cublasLtGetStatusString(status));
}

}  // namespace

Gemm::~Gemm() {
  for (auto& [key, plan] : plans_) {
    cublasLtMatmulDescDestroy(plan.operation);
    for (const auto layout : {plan.a, plan.b, plan.d}) cublasLtMatrixLayoutDestroy(layout);
  }
  if (workspace_ != nullptr) cudaFree(workspace_);
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

Status Gemm::create(std::size_t workspace_bytes) {
  RAT_CUDA_TRY(checked(cublasLtCreate(&handle_), "starting cuBLASLt"));
  RAT_CUDA_TRY(cuda::checked(cudaMalloc(&workspace_, workspace_bytes), "matmul: workspace"));
  workspace_bytes_ = workspace_bytes;
  return {};
}

cublasStatus_t Gemm::multiply(const GemmArgs& args, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                              cudaStream_t stream) {
  const float one = 1.0f, beta = args.c == nullptr ? 0.0f : 1.0f;
  // cuBLASLt is column-major: the row-major product is its transpose, with the operands swapped.
  return cublasLtMatmul(handle_, plan.operation, &one, args.b, plan.b, args.a, plan.a, &beta,
                        args.c == nullptr ? args.d : args.c, plan.d, args.d, plan.d, &algorithm, workspace_,
                        workspace_bytes_, stream);
}

Status Gemm::make_plan(const GemmArgs& args, cudaStream_t stream, Plan& plan) {
  RAT_CUDA_TRY(checked(cublasLtMatmulDescCreate(
                           &plan.operation, args.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F), "the description"));
  const cublasOperation_t first = args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
  cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
  const auto layout = [](cublasLtMatrixLayout_t& to, cudaDataType_t type, int64_t rows, int64_t cols, int64_t stride) {
    return checked(cublasLtMatrixLayoutCreate(&to, type, static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), stride),
                   "a layout");
  };
  RAT_CUDA_TRY(layout(plan.a, args.type, args.transpose_a ? args.k : args.m, args.transpose_a ? args.m : args.k, args.lda));
  RAT_CUDA_TRY(layout(plan.b, args.type, args.transpose_b ? args.n : args.k, args.transpose_b ? args.k : args.n, args.ldb));
  RAT_CUDA_TRY(layout(plan.d, args.out_type, args.m, args.n, args.ldd));

  cublasLtMatmulPreference_t preference = nullptr;
  RAT_CUDA_TRY(checked(cublasLtMatmulPreferenceCreate(&preference), "the preference"));
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace_bytes_,
                                       sizeof workspace_bytes_);
  const std::pair<cublasLtMatmulPreferenceAttributes_t, const void*> operands[] = {
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, args.b},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, args.a},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, args.c == nullptr ? args.d : args.c},
      {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, args.d}};
  for (const auto& [attribute, pointer] : operands) {
    const uint32_t alignment = alignment_of(pointer);
    cublasLtMatmulPreferenceSetAttribute(preference, attribute, &alignment, sizeof alignment);
  }
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.b, plan.a, plan.d, plan.d,
                                                               preference, kCandidates, found.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0)
    return refuse("matmul: no algorithm for (%lld x %lld) x (%lld x %lld)", static_cast<long long>(args.m),
                  static_cast<long long>(args.k), static_cast<long long>(args.k), static_cast<long long>(args.n));
  plan.algorithm = found[0].algo;
  return tuning_ ? tune(args, stream, plan, {found.data(), static_cast<std::size_t>(count)}) : Status();
}

Status Gemm::run(const GemmArgs& args, cudaStream_t stream) {
  if (handle_ == nullptr) return refuse("matmul: create() was not called");
  if (args.m < 1 || args.n < 1 || args.k < 1)
    return refuse("matmul: (%lld x %lld) x (%lld x %lld) is empty", static_cast<long long>(args.m),
                  static_cast<long long>(args.k), static_cast<long long>(args.k), static_cast<long long>(args.n));
  const Key key{args.transpose_a, args.transpose_b, args.m, args.n, args.k, args.lda, args.ldb, args.ldd,
                args.type, args.out_type, args.tf32, args.c != nullptr, args.c == args.d,
                alignment_of(args.a), alignment_of(args.b), alignment_of(args.c), alignment_of(args.d)};
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    Plan plan;
    RAT_CUDA_TRY(make_plan(args, stream, plan));
    found = plans_.emplace(key, plan).first;
  }
  return checked(multiply(args, found->second, found->second.algorithm, stream), "the product");
}

}  // namespace rat::kernels::cuda
