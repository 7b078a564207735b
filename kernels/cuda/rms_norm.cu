// One warp per row: the row stays in registers (16-byte loads, up to 2048 channels), so each byte is read once. Few wide rows
// have a block each.
#include <algorithm>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rms_norm.h"

namespace rat::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kBackwardWarps = 4;
constexpr int kProcessors = 132;  // of an H200: blocks of backward are all resident there; also cuts the partial sums

// Blocks per multiprocessor: as many as registers are left for. Few rows on their way would not fill the memory's bandwidth.
template <class T, int V>
constexpr int kBackwardBlocks = sizeof(T) == 4 ? (V == 1 ? 6 : V == 2 ? 3 : 2) : (V == 1 ? 8 : V == 2 ? 6 : V == 4 ? 4 : 2);

// Vectors of 8 channels per lane: V = 1, 2, 4, 8 keep rows of up to 256 V channels; wider rows take several turns.
template <class T, class X, int V>
__global__ void __launch_bounds__(kWarps * 32) rms_norm_kernel(RmsNormArgs<T, X> a) {
  const int lane = threadIdx.x % 32;
  const int vectors = static_cast<int>(a.channels / 8);
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (a.early) wait_for_previous();
  start_next();
  if (a.counter != nullptr && blockIdx.x == 0 && threadIdx.x == 0) ++*a.counter;
  if (row >= a.rows) return;
  const X* x = a.x + row * a.channels;
  Pack<X, 8> packs[V];
  float squares = 0.0f;
  for (int first = 0; first < vectors; first += 32 * V) {
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (const int at = first + v * 32 + lane; at < vectors) packs[v] = load<8>(x + at * 8);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      if (first + v * 32 + lane >= vectors) continue;
      float values[8];
      unpack(packs[v], values);
#pragma unroll
      for (int i = 0; i < 8; ++i) squares = fmaf(values[i], values[i], squares);
    }
  }
  const float rstd = rsqrtf(sum_over_lanes(squares) / static_cast<float>(a.channels) + a.epsilon);
  if (a.rstd != nullptr && lane == 0) a.rstd[row] = rstd;
  for (int first = 0; first < vectors; first += 32 * V) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = first + v * 32 + lane;
      if (at >= vectors) continue;
      if (vectors > 32 * V) packs[v] = load<8>(x + at * 8);
      float values[8], weight[8];
      unpack(packs[v], values);
      load<8>(a.weight + at * 8, weight);
#pragma unroll
      for (int i = 0; i < 8; ++i) values[i] *= rstd * weight[i];
      store<8>(a.y + row * a.channels + at * 8, values);
    }
  }
}

// A step of decoding waits for its norm: 8 channels a thread instead of 64 a lane.
constexpr int kRowThreads = 256;
constexpr int64_t kFewRows = 1024;
template <class T, class X>
__global__ void __launch_bounds__(kRowThreads) rms_norm_few_kernel(RmsNormArgs<T, X> a) {
  const int64_t first = threadIdx.x * 8, at = blockIdx.x * a.channels + first;
  const bool exists = first < a.channels;
  float values[8] = {}, weight[8] = {}, squares = 0.0f;
  if (exists) load<8>(a.weight + first, weight);
  if (a.early) wait_for_previous();
  start_next();
  if (a.counter != nullptr && blockIdx.x == 0 && threadIdx.x == 0) ++*a.counter;
  if (exists) load<8>(a.x + at, values);
#pragma unroll
  for (int i = 0; i < 8; ++i) squares = fmaf(values[i], values[i], squares);
  squares = gpu::block_sum<kRowThreads>(squares);
  const float rstd = rsqrtf(squares / static_cast<float>(a.channels) + a.epsilon);
  if (a.rstd != nullptr && threadIdx.x == 0) a.rstd[blockIdx.x] = rstd;
  if (!exists) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] *= rstd * weight[i];
  store<8>(a.y + at, values);
}

template <class T, class X>
__device__ __forceinline__ Pack<T, 8> residual_at(const RmsNormBackwardArgs<T, X>& a, int64_t at) {
  return a.residual == nullptr ? Pack<T, 8>{} : load<8>(a.residual + at);
}

// Wide rows of float32 leave no registers for the residual: it is read when it is added.
template <class X, int V>
constexpr bool kResidualLate = sizeof(X) * V > 16;

// Each warp walks rows with a fixed stride and keeps its share of grad_weight in shared memory columns of its own.
template <class T, class X, int V>
__global__ void __launch_bounds__(kBackwardWarps * 32, kBackwardBlocks<T, V>)
    rms_norm_backward_kernel(RmsNormBackwardArgs<T, X> a) {
  extern __shared__ float shared[];  // (kBackwardWarps, channels), used once at the end
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int vectors = static_cast<int>(a.channels / 8);
  float weight_grad[V][8] = {};
  const int64_t step = int64_t{gridDim.x} * kBackwardWarps;
  for (int64_t row = int64_t{blockIdx.x} * kBackwardWarps + warp; row < a.rows; row += step) {
    const X* x = a.x + row * a.channels;
    const T* grad = a.grad_y + row * a.channels;
    const float rstd = a.rstd[row];
    Pack<X, 8> xs[V];
    Pack<T, 8> grads[V], rests[kResidualLate<X, V> ? 1 : V];
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = v * 32 + lane;
      if (at < vectors) {
        xs[v] = load<8>(x + at * 8);
        grads[v] = load<8>(grad + at * 8);
        if constexpr (!kResidualLate<X, V>) rests[v] = residual_at(a, row * a.channels + at * 8);
      }
    }
    float dot = 0.0f;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = v * 32 + lane;
      if (at >= vectors) continue;
      float xv[8], gv[8], weight[8];
      unpack(xs[v], xv);
      unpack(grads[v], gv);
      load<8>(a.weight + at * 8, weight);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        dot = fmaf(gv[i] * weight[i], xv[i], dot);
        weight_grad[v][i] = fmaf(gv[i] * rstd, xv[i], weight_grad[v][i]);
      }
    }
    dot = sum_over_lanes(dot) / static_cast<float>(a.channels) * rstd * rstd;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int at = v * 32 + lane;
      if (at >= vectors) continue;
      float xv[8], gv[8], weight[8], rest[8];
      unpack(xs[v], xv);
      unpack(grads[v], gv);
      if constexpr (kResidualLate<X, V>) unpack(residual_at(a, row * a.channels + at * 8), rest);
      else unpack(rests[v], rest);
      load<8>(a.weight + at * 8, weight);
#pragma unroll
      for (int i = 0; i < 8; ++i) xv[i] = fmaf(rstd, fmaf(gv[i], weight[i], -xv[i] * dot), rest[i]);
      store<8>(a.grad_x + row * a.channels + at * 8, xv);
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v)
    if (const int at = v * 32 + lane; at < vectors) store<8>(shared + warp * a.channels + at * 8, weight_grad[v]);
  __syncthreads();
  for (int c = threadIdx.x; c < a.channels; c += blockDim.x) {
    float sum = 0.0f;
    for (int w = 0; w < kBackwardWarps; ++w) sum += shared[w * a.channels + c];
    a.workspace[int64_t{blockIdx.x} * a.channels + c] = sum;
  }
}

constexpr int kSumThreads = 1024, kSlices = kSumThreads / 32;
constexpr int64_t kRowsOfOnePass = 2048;

// 32 columns a block: every slice of threads sums each kSlices-th row, and the slices are joined in order.
__global__ void __launch_bounds__(kSumThreads)
    column_sums_kernel(const float* values, int64_t rows, int64_t cols, int64_t rows_per_block, float* out, bool add) {
  const int64_t col = int64_t{blockIdx.x} * 32 + threadIdx.x % 32;
  const int slice = threadIdx.x / 32;
  __shared__ float partial[kSlices][32];
  const int64_t begin = blockIdx.y * rows_per_block, end = min(rows, begin + rows_per_block);
  float sum = 0.0f;
  if (col < cols)
#pragma unroll 16
    for (int64_t row = begin + slice; row < end; row += kSlices) sum += values[row * cols + col];
  partial[slice][threadIdx.x % 32] = sum;
  __syncthreads();
  if (slice != 0 || col >= cols) return;
#pragma unroll
  for (int s = 1; s < kSlices; ++s) sum += partial[s][threadIdx.x];
  float& to = out[blockIdx.y * cols + col];
  to = add ? to + sum : sum;
}

int64_t column_blocks(int64_t rows) { return rows <= kRowsOfOnePass ? 1 : std::min<int64_t>(64, rows / 256); }
template <class T>
int64_t backward_blocks(int64_t rows, int64_t channels) {
  const int per_processor = channels <= 256    ? kBackwardBlocks<T, 1>
                            : channels <= 512  ? kBackwardBlocks<T, 2>
                            : channels <= 1024 ? kBackwardBlocks<T, 4>
                                               : kBackwardBlocks<T, 8>;
  return std::min<int64_t>(kProcessors * per_processor, (rows + kBackwardWarps - 1) / kBackwardWarps);
}

Status check_rows(const char* op, int64_t rows, int64_t channels) {
  if (rows < 1 || channels < 8 || channels % 8 != 0 || channels > 8192)
    return refuse("%s: rows of %lld channels (%lld rows) are not supported; use a multiple of 8 up to 8192", op,
                  static_cast<long long>(channels), static_cast<long long>(rows));
  return {};
}

// backward keeps V vectors of x, of grad_y and of grad_weight per lane: up to 2048 channels
template <class T, class X, int V>
Status launch_backward(const RmsNormBackwardArgs<T, X>& a, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(backward_blocks<T>(a.rows, a.channels));
  const std::size_t shared = static_cast<std::size_t>(kBackwardWarps * a.channels) * sizeof(float);
  RAT_CUDA_TRY(checked(cudaFuncSetAttribute(rms_norm_backward_kernel<T, X, V>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                            static_cast<int>(shared)),
                       "rms_norm_backward: shared memory"));
  rms_norm_backward_kernel<T, X, V><<<blocks, kBackwardWarps * 32, shared, stream>>>(a);
  return launched("rms_norm_backward");
}

}  // namespace

int64_t column_sums_workspace(int64_t rows, int64_t cols) {
  const int64_t blocks = column_blocks(rows);
  return blocks > 1 ? blocks * cols : 0;
}

Status column_sums(const float* values, int64_t rows, int64_t cols, float* workspace, float* sums, cudaStream_t stream,
                   bool add) {
  if (rows < 1 || cols < 1) return refuse("column_sums: (%lld, %lld) is empty", static_cast<long long>(rows),
                                          static_cast<long long>(cols));
  const int64_t blocks = column_blocks(rows);
  const auto columns = static_cast<unsigned>((cols + 31) / 32);
  if (blocks > 1) {
    column_sums_kernel<<<dim3(columns, static_cast<unsigned>(blocks)), kSumThreads, 0, stream>>>(
        values, rows, cols, (rows + blocks - 1) / blocks, workspace, false);
    values = workspace;
    rows = blocks;
  }
  column_sums_kernel<<<columns, kSumThreads, 0, stream>>>(values, rows, cols, rows, sums, add);
  return launched("column_sums");
}

int64_t rms_norm_workspace(int64_t rows, int64_t channels) {
  const int64_t blocks = std::max(backward_blocks<float>(rows, channels), backward_blocks<bf16>(rows, channels));
  return blocks * channels + column_sums_workspace(blocks, channels);
}

template <class T, class X>
Status rms_norm(const RmsNormArgs<T, X>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_rows("rms_norm", a.rows, a.channels));
  static_assert(kRowThreads == kWarps * 32, "either kernel");
  const bool few = a.rows <= kFewRows && a.channels > 512 && a.channels <= kRowThreads * 8;
  const auto blocks = static_cast<unsigned>(few ? a.rows : (a.rows + kWarps - 1) / kWarps);
  const auto kernel = few                  ? rms_norm_few_kernel<T, X>
                      : a.channels <= 256  ? rms_norm_kernel<T, X, 1>
                      : a.channels <= 512  ? rms_norm_kernel<T, X, 2>
                      : a.channels <= 1024 ? rms_norm_kernel<T, X, 4>
                                           : rms_norm_kernel<T, X, 8>;
  if (a.early) return launch_early({"rms_norm", blocks, kRowThreads, 0, stream}, kernel, a);
  kernel<<<blocks, kRowThreads, 0, stream>>>(a);
  return launched("rms_norm");
}

template <class T, class X>
Status rms_norm_backward(const RmsNormBackwardArgs<T, X>& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check_rows("rms_norm_backward", a.rows, a.channels));
  if (a.channels <= 256) RAT_CUDA_TRY((launch_backward<T, X, 1>(a, stream)));
  else if (a.channels <= 512) RAT_CUDA_TRY((launch_backward<T, X, 2>(a, stream)));
  else if (a.channels <= 1024) RAT_CUDA_TRY((launch_backward<T, X, 4>(a, stream)));
  else if (a.channels <= 2048) RAT_CUDA_TRY((launch_backward<T, X, 8>(a, stream)));
  else return refuse("rms_norm_backward: %lld channels are not supported yet; up to 2048", static_cast<long long>(a.channels));
  const int64_t blocks = backward_blocks<T>(a.rows, a.channels);
  return column_sums(a.workspace, blocks, a.channels, a.workspace + blocks * a.channels, a.grad_weight, stream,
                     a.add_grad_weight);
}

template Status rms_norm<float, float>(const RmsNormArgs<float>&, cudaStream_t);
template Status rms_norm<__nv_bfloat16, __nv_bfloat16>(const RmsNormArgs<__nv_bfloat16>&, cudaStream_t);
template Status rms_norm<__nv_bfloat16, float>(const RmsNormArgs<__nv_bfloat16, float>&, cudaStream_t);
template Status rms_norm_backward<float, float>(const RmsNormBackwardArgs<float>&, cudaStream_t);
template Status rms_norm_backward<__nv_bfloat16, __nv_bfloat16>(const RmsNormBackwardArgs<__nv_bfloat16>&, cudaStream_t);
template Status rms_norm_backward<__nv_bfloat16, float>(const RmsNormBackwardArgs<__nv_bfloat16, float>&, cudaStream_t);

}  // namespace rat::kernels::cuda
