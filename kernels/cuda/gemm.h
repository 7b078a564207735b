// Matrix products through cuBLASLt, with the algorithm of every problem kept after its first use.
//
//   d = op(a) op(b) + c      row-major; op(a) (m, k), op(b) (k, n), c and d (m, n); c null: no addition
//
// transpose_a: a is stored (k, m); transpose_b: b is stored (n, k), as weights are. float32 accumulation; float32
// operands are rounded to tf32 only when asked for. c may be d.
// Deterministic for a given plan; `tuned` plans are timed on the device and may differ from run to run.
#pragma once

#include <cublasLt.h>

#include <array>
#include <map>
#include <span>

#include "kernels/cuda/status.h"

namespace rat::kernels::cuda {

struct GemmArgs {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  const void* c = nullptr;
  void* d = nullptr;
  int64_t lda = 0, ldb = 0, ldd = 0;  // row strides as stored; c has the stride of d
  cudaDataType_t type = CUDA_R_32F;   // of a and b
  cudaDataType_t out_type = CUDA_R_32F;
  bool tf32 = false;  // float32 operands may be rounded to tf32
};

class Gemm {
 public:
  Gemm() = default;
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // workspace_bytes of device memory are allocated here and used by every product.
  Status create(std::size_t workspace_bytes = std::size_t{64} << 20);
  // Time the heuristic's candidates at the first use of a problem (not while a stream is being captured).
  void set_tuning(bool on) { tuning_ = on; }
  Status run(const GemmArgs& args, cudaStream_t stream);
  std::size_t workspace_bytes() const { return workspace_bytes_; }

 private:
  struct Plan {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
  };
  using Key = std::array<int64_t, 17>;

  Status make_plan(const GemmArgs& args, cudaStream_t stream, Plan& plan);
  Status tune(GemmArgs args, cudaStream_t stream, Plan& plan, std::span<const cublasLtMatmulHeuristicResult_t> found);
  Status choose(const GemmArgs& args, cudaStream_t stream, Plan& plan,
                std::span<const cublasLtMatmulHeuristicResult_t> found);
  Status time_alone(const GemmArgs& args, cudaStream_t stream, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                    float& ms);
  Status time_sustained(const GemmArgs& args, cudaStream_t stream, const Plan& plan,
                        const cublasLtMatmulAlgo_t& algorithm, float& ms);
  cublasStatus_t multiply(const GemmArgs& args, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                          cudaStream_t stream);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  bool tuning_ = false;
  std::map<Key, Plan> plans_;
};

}  // namespace rat::kernels::cuda
