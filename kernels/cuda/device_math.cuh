// Vector loads, dtype conversion and warp reductions shared by the kernels. Arithmetic is always float32.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace rat::kernels::cuda {

using bf16 = __nv_bfloat16;

// N neighbouring elements as they lie in memory, moved by one instruction where the width allows.
template <class T, int N>
struct Pack;
template <>
struct Pack<bf16, 1> { unsigned short raw; };
template <>
struct Pack<bf16, 2> { unsigned raw; };
template <>
struct Pack<bf16, 4> { uint2 raw; };
template <>
struct Pack<bf16, 8> { uint4 raw; };
template <>
struct Pack<float, 1> { float raw; };
template <>
struct Pack<float, 2> { float2 raw; };
template <>
struct Pack<float, 4> { float4 raw; };
template <>
struct alignas(16) Pack<float, 8> { float4 raw, high; };

__device__ __forceinline__ float low_half(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_half(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ unsigned pack_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

template <int N>
__device__ __forceinline__ void unpack(const Pack<bf16, N>& pack, float (&out)[N]) {
  if constexpr (N == 1) {
    out[0] = __uint_as_float(static_cast<unsigned>(pack.raw) << 16);
  } else {
    const unsigned* pairs = reinterpret_cast<const unsigned*>(&pack.raw);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      out[2 * i] = low_half(pairs[i]);
      out[2 * i + 1] = high_half(pairs[i]);
    }
  }
}
template <int N>
__device__ __forceinline__ void unpack(const Pack<float, N>& pack, float (&out)[N]) {
  const float* values = reinterpret_cast<const float*>(&pack);
#pragma unroll
  for (int i = 0; i < N; ++i) out[i] = values[i];
}

template <class T, int N>
__device__ __forceinline__ Pack<T, N> pack(const float (&in)[N]) {
  Pack<T, N> result;
  if constexpr (sizeof(T) == 4) {
    float* values = reinterpret_cast<float*>(&result);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = in[i];
  } else if constexpr (N == 1) {
    result.raw = __bfloat16_as_ushort(__float2bfloat16_rn(in[0]));
  } else {
    unsigned* pairs = reinterpret_cast<unsigned*>(&result.raw);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) pairs[i] = pack_pair(in[2 * i], in[2 * i + 1]);
  }
  return result;
}

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load(const T* at) {
  return *reinterpret_cast<const Pack<T, N>*>(at);
}
template <int N, class T>
__device__ __forceinline__ void load(const T* at, float (&out)[N]) {
  unpack(load<N>(at), out);
}
template <int N, class T>
__device__ __forceinline__ void store(T* at, const float (&in)[N]) {
  *reinterpret_cast<Pack<T, N>*>(at) = pack<T, N>(in);
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == 4) return x;
  else return __float2bfloat16_rn(x);
}

// sigmoid(2 x). float32 exactly rounded pieces for the verification kernels; for bf16 the tanh unit, whose error (about
// 2^-12 of the gate) is below the rounding of the bf16 logit it is taken from.
template <class T>
__device__ __forceinline__ float sigmoid_of_twice(float x) {
  if constexpr (sizeof(T) == 4) {
    return 1.0f / (1.0f + expf(-2.0f * x));
  } else {
    float t;
    asm("tanh.approx.f32 %0, %1;" : "=f"(t) : "f"(x));
    return fmaf(0.5f, t, 0.5f);
  }
}
template <class T>
__device__ __forceinline__ float sigmoid(float x) {
  return sigmoid_of_twice<T>(0.5f * x);
}

// Over each `Lanes` neighbouring lanes; all lanes of the warp take part, as in every function here that shuffles.
template <int Lanes = 32>
__device__ __forceinline__ float sum_over_lanes(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

template <int Lanes = 32>
__device__ __forceinline__ float largest_over_lanes(float x) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}

// Lane l is given the sum of values[l % Count] over its Count lanes. Each exchange halves how many sums a lane still holds.
template <int Count>
__device__ __forceinline__ float sums_of_few_lanes(const float (&values)[Count]) {
  static_assert((Count & (Count - 1)) == 0 && Count <= 32, "a power of two, at most one sum a lane");
  if constexpr (Count == 1) {
    return values[0];
  } else {
    constexpr int half = Count / 2;
    const bool upper = (threadIdx.x & half) != 0;
    float kept[half];
#pragma unroll
    for (int i = 0; i < half; ++i) {
      const float given = upper ? values[i] : values[i + half];
      kept[i] = (upper ? values[i + half] : values[i]) + __shfl_xor_sync(0xffffffffu, given, half);
    }
    return sums_of_few_lanes(kept);
  }
}

// Several sums over the warp at once, values[l % Count] for lane l: 8 of them take 9 shuffles instead of 40.
template <int Count>
__device__ __forceinline__ float sums_by_lane(const float (&values)[Count]) {
  float sum = sums_of_few_lanes(values);
#pragma unroll
  for (int step = Count; step < 32; step <<= 1) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

}  // namespace rat::kernels::cuda
