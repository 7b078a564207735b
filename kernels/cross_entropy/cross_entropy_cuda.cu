// Cross-entropy with one warp or one block per row: one pass finds the largest logit and the sum of exponentials, a
// second writes the gradient.
#include <algorithm>
#include <cfloat>
#include <climits>

#include "kernels/cross_entropy/cross_entropy_cuda.h"
#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/device.h"
#include "kernels/cuda_ops.h"

namespace rat::kernels::gpu {
namespace {

constexpr int threads = 256;
constexpr int64_t widest_of_a_warp = 1024;

// Of the logits seen so far: the largest, where it is first, and the sum of exp(x - largest).
struct Softmax {
  float largest = -FLT_MAX, total = 0;  // not minus infinity: logits may be, and their difference is not a number
  int first = INT_MAX;
};

__device__ __forceinline__ void take(Softmax& s, float x, int i) {
  if (x > s.largest) {
    s.total *= expf(s.largest - x);
    s.largest = x;
    s.first = i;
  }
  s.total += expf(x - s.largest);
}

__device__ __forceinline__ void take(Softmax& s, float4 x, int i) {
  const float largest = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
  if (largest > s.largest) {
    s.total *= expf(s.largest - largest);
    s.largest = largest;
    s.first = i + (x.x == largest ? 0 : x.y == largest ? 1 : x.z == largest ? 2 : 3);
  }
  s.total += (expf(x.x - s.largest) + expf(x.y - s.largest)) + (expf(x.z - s.largest) + expf(x.w - s.largest));
}

__device__ __forceinline__ void join(Softmax& s, const Softmax& other) {
  const float largest = fmaxf(s.largest, other.largest);
  s.first = s.largest == other.largest ? min(s.first, other.first) : s.largest == largest ? s.first : other.first;
  s.total = s.total * expf(s.largest - largest) + other.total * expf(other.largest - largest);
  s.largest = largest;
}

// What lane 0 has at the end is the result for all: the others have joined in another order.
__device__ __forceinline__ void join_warp(Softmax& s) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) {
    Softmax other;
    other.largest = __shfl_xor_sync(0xffffffffu, s.largest, step);
    other.total = __shfl_xor_sync(0xffffffffu, s.total, step);
    other.first = __shfl_xor_sync(0xffffffffu, s.first, step);
    join(s, other);
  }
  s.largest = __shfl_sync(0xffffffffu, s.largest, 0);
  s.total = __shfl_sync(0xffffffffu, s.total, 0);
  s.first = __shfl_sync(0xffffffffu, s.first, 0);
}

__device__ __forceinline__ void join_block(Softmax& s) {
  __shared__ float largest[threads / 32], total[threads / 32];
  __shared__ int first[threads / 32];
  join_warp(s);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x % 32 == 0) largest[warp] = s.largest, total[warp] = s.total, first[warp] = s.first;
  __syncthreads();
  s = Softmax{};
  for (int i = 0; i < threads / 32; ++i) {
    Softmax other;
    other.largest = largest[i], other.total = total[i], other.first = first[i];
    join(s, other);
  }
}

__device__ __forceinline__ void put(float* to, float x) { *to = x; }
__device__ __forceinline__ void put(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
__device__ __forceinline__ void put(__nv_bfloat16* to, float x) { *to = __float2bfloat16_rn(x); }
__device__ __forceinline__ void put(__nv_bfloat16* to, float4 x) {
  reinterpret_cast<__nv_bfloat162*>(to)[0] = __floats2bfloat162_rn(x.x, x.y);
  reinterpret_cast<__nv_bfloat162*>(to)[1] = __floats2bfloat162_rn(x.z, x.w);
}

// weight * exp(x - largest), less `scale` at the target; `to` may be x.
template <int Width, class To>
__device__ void write_gradient(const float* x, To* to, int n, int quads, int lane, int target, const Softmax& s,
                               float scale) {
  const float weight = scale / s.total;
  const auto gradient = [&](float value, int i) {
    const float g = __fmul_rn(expf(value - s.largest), weight);
    return i == target ? __fsub_rn(g, scale) : g;
  };
  for (int q = lane; q < quads; q += Width) {
    float4 v = reinterpret_cast<const float4*>(x)[q];
    v = {gradient(v.x, 4 * q), gradient(v.y, 4 * q + 1), gradient(v.z, 4 * q + 2), gradient(v.w, 4 * q + 3)};
    put(to + 4 * q, v);
  }
  for (int i = 4 * quads + lane; i < n; i += Width) put(to + i, gradient(x[i], i));
}

// One row, by `Width` threads: its loss, and 1 where the target is the argmax, for the first of them.
template <int Width, class To>
__device__ double2 entropy_row(const float* x, To* to, int n, int target, float scale, int lane) {
  const bool wide = reinterpret_cast<uintptr_t>(x) % sizeof(float4) == 0 &&
                    reinterpret_cast<uintptr_t>(to) % (4 * sizeof(To)) == 0;
  const int quads = wide ? n / 4 : 0;
  if (target < 0) {
    for (int i = lane; i < n && scale != 0.0f; i += Width) put(to + i, 0.0f);
    return {0, 0};
  }
  const float aimed = lane == 0 ? x[target] : 0.0f;  // before the barriers below: the gradient replaces it
  Softmax s;
  for (int q = lane; q < quads; q += Width) take(s, reinterpret_cast<const float4*>(x)[q], 4 * q);
  for (int i = 4 * quads + lane; i < n; i += Width) take(s, x[i], i);
  if constexpr (Width == 32) join_warp(s);
  else join_block(s);
  double2 result{0, 0};
  if (lane == 0) {
    const double loss = static_cast<double>(s.largest) + log(static_cast<double>(s.total)) - static_cast<double>(aimed);
    result = {loss, s.first == target ? 1.0 : 0.0};
  }
  __syncwarp();  // lane 0 has read its target
  if (scale != 0.0f) write_gradient<Width>(x, to, n, quads, lane, target, s, scale);
  return result;
}

// results: of each block's rows. `gradient`: the logits themselves, or rows of bf16.
template <int Width, class To>
__global__ void __launch_bounds__(threads) entropy_rows(Input logits, Rows<To> gradient, const int32_t* targets,
                                                        float scale, double2* results) {
  constexpr int together = threads / Width;
  __shared__ double2 of_rows[together];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * together + threadIdx.x / Width;
  const int lane = threadIdx.x % Width;
  double2 result{0, 0};
  if (row < logits.rows)  // all threads of a row, so all of a warp
    result = entropy_row<Width>(logits.data + row * logits.stride, gradient.data + row * gradient.stride,
                                static_cast<int>(logits.cols), targets[row], scale, lane);
  if (lane == 0) of_rows[threadIdx.x / Width] = result;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < together; ++i) result.x += of_rows[i].x, result.y += of_rows[i].y;
  results[blockIdx.x] = result;
}

constexpr int join_threads = 1024;

__global__ void __launch_bounds__(join_threads) join_results(const double2* results, int64_t count, double2* sums) {
  double loss = 0, correct = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += join_threads) {
    const double2 result = results[i];
    loss += result.x, correct += result.y;
  }
  loss = block_sum<join_threads>(loss);
  __syncthreads();
  correct = block_sum<join_threads>(correct);
  if (threadIdx.x == 0) *sums = {loss, correct};
}

// Blocks, each with a result.
unsigned blocks_of(const Input& logits) {
  return blocks_for(logits.rows, logits.cols <= widest_of_a_warp ? threads / 32 : 1);
}

template <class To>
Status launch(const CrossEntropyArgs& args, const Rows<To>& gradient, const int32_t* targets, double2* results) {
  const auto kernel = args.logits.cols <= widest_of_a_warp ? entropy_rows<32, To> : entropy_rows<threads, To>;
  kernel<<<blocks_of(args.logits), threads, 0, stream()>>>(args.logits, gradient, targets, args.grad_scale, results);
  return launched("cross_entropy");
}

}  // namespace

Status start_entropy(const CrossEntropyArgs& args, __nv_bfloat16* rounded) {
  const int64_t rows = args.logits.rows, cols = args.logits.cols;
  static_assert(entropy_slots == 2);
  auto targets = scratch<int32_t>(0, rows);
  if (!targets) return targets.error();
  const int64_t blocks = blocks_of(args.logits);
  auto results = scratch<double2>(1, blocks + 1);  // the last: their sums
  if (!results) return results.error();
  RAT_TRY(to_device(*targets, args.targets.data(), args.targets.size_bytes()));
  if (rounded != nullptr)
    RAT_TRY(launch(args, Rows<__nv_bfloat16>(rounded, rows, cols), *targets, *results));
  else
    RAT_TRY(launch(args, args.logits, *targets, *results));
  join_results<<<1, join_threads, 0, stream()>>>(*results, blocks, *results + blocks);
  RAT_TRY(launched("cross_entropy"));
  return start_read_back(*results + blocks, sizeof(double2));
}

Status finish_entropy(std::span<const int32_t> targets, CrossEntropySums& sums) {
  double2 own{};
  RAT_TRY(finish_read_back(&own, sizeof(own)));
  sums.loss += own.x;
  sums.correct += static_cast<int64_t>(own.y);
  sums.targets += std::count_if(targets.begin(), targets.end(), [](int32_t x) { return x >= 0; });
  return ok();
}

Status cross_entropy(const CrossEntropyArgs& args) {
  if (args.logits.rows == 0) return ok();
  RAT_TRY(start_entropy(args, nullptr));
  return finish_entropy(args.targets, *args.sums);
}

}  // namespace rat::kernels::gpu
