// Which of cuBLASLt's candidates computes a product fastest: each is timed on the device.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cuda/gemm.h"

namespace rat::kernels::cuda {
namespace {

// A product that takes this long (ms) draws the power that the device may have, and is slowed down until it needs no
// more: what is fastest for a moment is not fastest for long, so that the nearest of the candidates are timed for a
// while.
constexpr float kLong = 1.0f, kNear = 1.15f, kSustained = 150.0f;

// Two events around what is timed.
class Timer {
 public:
  Timer() = default;
  ~Timer() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  Status create() {
    RAT_CUDA_TRY(checked(cudaEventCreate(&begin_), "matmul: event"));
    return checked(cudaEventCreate(&end_), "matmul: event");
  }
  Status begin(cudaStream_t stream) { return checked(cudaEventRecord(begin_, stream), "matmul: timing"); }
  // Waits for what was started since begin().
  Status end(cudaStream_t stream, float& ms) {
    RAT_CUDA_TRY(checked(cudaEventRecord(end_, stream), "matmul: timing"));
    RAT_CUDA_TRY(checked(cudaEventSynchronize(end_), "matmul: timing an algorithm"));
    return checked(cudaEventElapsedTime(&ms, begin_, end_), "matmul: timing");
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

}  // namespace

// A product that adds to its own result is timed on a block of its own: repeating it would change the result.
Status Gemm::tune(GemmArgs args, cudaStream_t stream, Plan& plan,
                  std::span<const cublasLtMatmulHeuristicResult_t> found) {
  void* spare = nullptr;
  if (args.c != nullptr && args.c == args.d) {
    const std::size_t element = args.out_type == CUDA_R_32F ? 4 : 2;
    RAT_CUDA_TRY(checked(cudaMalloc(&spare, static_cast<std::size_t>(args.m * args.ldd) * element), "matmul: timing"));
    RAT_CUDA_TRY(checked(cudaMemsetAsync(spare, 0, static_cast<std::size_t>(args.m * args.ldd) * element, stream),
                         "matmul: timing"));
    args.c = args.d = spare;
  }
  const Status timed = choose(args, stream, plan, found);
  if (spare != nullptr) cudaFree(spare);
  return timed;
}

// The median of five; infinity for an algorithm that does not take the product after all.
Status Gemm::time_alone(const GemmArgs& args, cudaStream_t stream, const Plan& plan,
                        const cublasLtMatmulAlgo_t& algorithm, float& ms) {
  Timer timer;
  RAT_CUDA_TRY(timer.create());
  std::vector<float> times(6);
  ms = INFINITY;
  for (float& time : times) {
    RAT_CUDA_TRY(timer.begin(stream));
    if (multiply(args, plan, algorithm, stream) != CUBLAS_STATUS_SUCCESS) return {};
    RAT_CUDA_TRY(timer.end(stream, time));
  }
  std::sort(times.begin() + 1, times.end());
  ms = times[3];
  return {};
}

// The mean over a while of nothing else, after as long a while of the same.
Status Gemm::time_sustained(const GemmArgs& args, cudaStream_t stream, const Plan& plan,
                            const cublasLtMatmulAlgo_t& algorithm, float& ms) {
  Timer timer;
  RAT_CUDA_TRY(timer.create());
  const int repeats = std::max(1, static_cast<int>(kSustained / ms));
  for (int half = 0; half < 2; ++half) {
    RAT_CUDA_TRY(timer.begin(stream));
    for (int repeat = 0; repeat < repeats; ++repeat)
      if (multiply(args, plan, algorithm, stream) != CUBLAS_STATUS_SUCCESS)
        return refuse("matmul: timing an algorithm failed");
    RAT_CUDA_TRY(timer.end(stream, ms));
  }
  ms /= static_cast<float>(repeats);
  return {};
}

Status Gemm::choose(const GemmArgs& args, cudaStream_t stream, Plan& plan,
                    std::span<const cublasLtMatmulHeuristicResult_t> found) {
  struct Candidate {
    float ms;
    cublasLtMatmulAlgo_t algorithm;
  };
  std::vector<Candidate> candidates;
  for (const cublasLtMatmulHeuristicResult_t& one : found) {
    candidates.push_back({0.0f, one.algo});
    RAT_CUDA_TRY(time_alone(args, stream, plan, one.algo, candidates.back().ms));
  }
  const auto faster = [](const Candidate& a, const Candidate& b) { return a.ms < b.ms; };
  std::ranges::sort(candidates, faster);
  const float least = candidates.front().ms;
  if (std::isfinite(least) && least >= kLong) {
    std::erase_if(candidates, [least](const Candidate& one) { return one.ms > kNear * least; });
    for (Candidate& one : candidates) RAT_CUDA_TRY(time_sustained(args, stream, plan, one.algorithm, one.ms));
  }
  plan.algorithm = std::ranges::min_element(candidates, faster)->algorithm;
  return {};
}

}  // namespace rat::kernels::cuda
