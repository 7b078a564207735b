#include "kernels/cuda/shared_heads.h"

#include "kernels/cuda/device_math.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256, kWide = 8;  // values of a thread

// A thread has the same columns of all heads that share them.
struct Piece {
  int64_t row, column;
  bool exists;
  __device__ explicit Piece(const SharedHeads& a) {
    const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x, pieces = a.shared_channels / kWide;
    row = item / pieces, column = item % pieces * kWide;
    exists = row < a.rows;
  }
};

__global__ void __launch_bounds__(kThreads) repeat_heads_kernel(const __grid_constant__ SharedHeads a) {
  const Piece at(a);
  if (!at.exists) return;
  const auto values = load<kWide>(a.shared[blockIdx.y] + at.row * a.stride + at.column);
  bf16* const to = a.each[blockIdx.y] + at.row * a.channels;
  for (int64_t c = at.column; c < a.channels; c += a.shared_channels)
    *reinterpret_cast<Pack<bf16, kWide>*>(to + c) = values;
}

__global__ void __launch_bounds__(kThreads) sum_heads_kernel(const __grid_constant__ SharedHeads a) {
  const Piece at(a);
  if (!at.exists) return;
  const bf16* const from = a.each[blockIdx.y] + at.row * a.channels;
  float sum[kWide] = {};
  for (int64_t c = at.column; c < a.channels; c += a.shared_channels) {
    float values[kWide];
    load<kWide>(from + c, values);
#pragma unroll
    for (int i = 0; i < kWide; ++i) sum[i] += values[i];
  }
  store<kWide>(a.shared[blockIdx.y] + at.row * a.stride + at.column, sum);
}

Status check(const char* op, const SharedHeads& a) {
  bool aligned = a.stride % kWide == 0;
  for (const bf16* rows : {a.shared[0], a.shared[1], a.each[0], a.each[1]})
    aligned = aligned && reinterpret_cast<uintptr_t>(rows) % 16 == 0;
  if (a.rows >= 1 && a.shared_channels >= kWide && a.shared_channels % kWide == 0 &&
      a.channels % a.shared_channels == 0 && aligned)
    return {};
  return refuse(
      "%s: %lld rows of %lld columns that share %lld, %lld elements apart; at least 1 row, columns that divide and are "
      "multiples of 8, rows that start at multiples of 16 bytes",
      op, static_cast<long long>(a.rows), static_cast<long long>(a.channels), static_cast<long long>(a.shared_channels),
      static_cast<long long>(a.stride));
}

dim3 grid_of(const SharedHeads& a) {
  return dim3(static_cast<unsigned>((a.rows * (a.shared_channels / kWide) + kThreads - 1) / kThreads),
              static_cast<unsigned>(a.count));
}

}  // namespace

Status repeat_heads(const SharedHeads& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("repeat_heads", a));
  repeat_heads_kernel<<<grid_of(a), kThreads, 0, stream>>>(a);
  return launched("repeat_heads");
}

Status sum_heads(const SharedHeads& a, cudaStream_t stream) {
  RAT_CUDA_TRY(check("sum_heads", a));
  sum_heads_kernel<<<grid_of(a), kThreads, 0, stream>>>(a);
  return launched("sum_heads");
}

}  // namespace rat::kernels::cuda
