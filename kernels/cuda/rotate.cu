#include "kernels/cuda/rotate.h"

#include "kernels/cuda/device_math.cuh"

namespace rat::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// A thread turns 8 channel pairs of every head of a row by the same 8 rotations.
__global__ void __launch_bounds__(kThreads) rotate_kernel(RotateArgs a, int64_t items) {
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const int half = static_cast<int>(a.head_size) / 2, pieces = half / 8;
  const int64_t row = item / pieces;
  const int channel = static_cast<int>(item % pieces) * 8;
  float turns[16];  // cos, sin, cos, sin ...
  const float2* from = a.rope + row % a.tokens * half + channel;
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    const float4 pair = *reinterpret_cast<const float4*>(from + i / 2);
    turns[i] = pair.x, turns[i + 1] = pair.y, turns[i + 2] = pair.z, turns[i + 3] = pair.w;
  }
  const bf16* at = a.x + row * a.stride + channel;
  bf16* to = a.to == nullptr ? a.x + row * a.stride + channel : a.to + row * a.to_stride + channel;
  const int heads = static_cast<int>(a.heads);
#pragma unroll 4
  for (int h = 0; h < heads; ++h, at += a.head_size, to += a.head_size) {
    float low[8], high[8];
    load<8>(at, low);
    load<8>(at + half, high);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float cosine = turns[2 * i], sine = turns[2 * i + 1], x = low[i], y = high[i];
      low[i] = fmaf(-y, sine, x * cosine);
      high[i] = fmaf(x, sine, y * cosine);
    }
    store<8>(to, low);
    store<8>(to + half, high);
  }
}

// A thread turns 4 channel pairs of a head of a row back.
template <bool kAdd>
__global__ void __launch_bounds__(kThreads) rotate_back_kernel(RotateBackArgs a, int64_t rows, int64_t items) {
  constexpr int N = 4;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= items) return;
  const RatShape& s = a.shape;
  const int half = static_cast<int>(s.head_size) / 2, pieces = half / N, heads = static_cast<int>(s.heads);
  const int channel = static_cast<int>(item % pieces) * N, h = static_cast<int>(item / pieces % heads);
  const int64_t row = item / pieces / heads, t = a.of_keys ? s.key_token(row % rows) : row % rows;
  const float* from = a.x + row * s.channels() + h * s.head_size + channel;
  float low[N], high[N];
  load<N>(from, low);
  load<N>(from + half, high);
  if (a.rope != nullptr) {
    float turns[2 * N];  // cos, sin, cos, sin ...
    load<2 * N>(reinterpret_cast<const float*>(a.rope + t * half + channel), turns);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float cosine = turns[2 * i], sine = turns[2 * i + 1], x = low[i], y = high[i];
      low[i] = fmaf(y, sine, x * cosine);
      high[i] = fmaf(-x, sine, y * cosine);
    }
  }
  bf16* const to = a.to.at(row / rows, h, t) + channel;
  if constexpr (kAdd) {
    float low_before[N], high_before[N];
    load<N>(to, low_before);
    load<N>(to + half, high_before);
#pragma unroll
    for (int i = 0; i < N; ++i) low[i] += low_before[i], high[i] += high_before[i];
  }
  store<N>(to, low);
  store<N>(to + half, high);
}

}  // namespace

Status rotate_back(const RotateBackArgs& a, cudaStream_t stream) {
  const RatShape& s = a.shape;
  RAT_CUDA_TRY(check_shape("rotate_back", s));
  if (s.head_size % 8 != 0 || reinterpret_cast<uintptr_t>(a.to.data) % 8 != 0 || a.to.row % 4 != 0 || a.to.head % 4 != 0)
    return refuse("rotate_back: heads of %lld channels in rows %lld elements apart; it takes heads of a multiple of 8 in rows "
                  "that start at multiples of 8 bytes",
                  static_cast<long long>(s.head_size), static_cast<long long>(a.to.row));
  const int64_t rows = a.of_keys ? s.keys() : s.tokens, items = s.batch * rows * s.channels() / 8;
  if (items == 0) return {};
  const auto blocks = static_cast<unsigned>((items + kThreads - 1) / kThreads);
  if (a.add) rotate_back_kernel<true><<<blocks, kThreads, 0, stream>>>(a, rows, items);
  else rotate_back_kernel<false><<<blocks, kThreads, 0, stream>>>(a, rows, items);
  return launched("rotate_back");
}

Status rotate(const RotateArgs& a, cudaStream_t stream) {
  if (a.batch < 1 || a.tokens < 1 || a.heads < 1 || a.head_size < 16 || a.head_size % 16 != 0)
    return refuse("rotate: batch %lld, tokens %lld, heads %lld of %lld channels; at least 1 each, heads of a multiple of 16",
                  static_cast<long long>(a.batch), static_cast<long long>(a.tokens), static_cast<long long>(a.heads),
                  static_cast<long long>(a.head_size));
  if (reinterpret_cast<uintptr_t>(a.x) % 16 != 0 || a.stride % 8 != 0 || reinterpret_cast<uintptr_t>(a.to) % 16 != 0 ||
      a.to_stride % 8 != 0)
    return refuse("rotate: rows must start at multiples of 16 bytes; they are %lld elements apart, and %lld where they go",
                  static_cast<long long>(a.stride), static_cast<long long>(a.to_stride));
  const int64_t items = a.batch * a.tokens * (a.head_size / 16);
  rotate_kernel<<<static_cast<unsigned>((items + kThreads - 1) / kThreads), kThreads, 0, stream>>>(a, items);
  return launched("rotate");
}

}  // namespace rat::kernels::cuda
