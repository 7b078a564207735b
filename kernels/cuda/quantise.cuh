// Making and reading rows of kernels/cuda/quantise.h.
#pragma once

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/quantise.h"

namespace rat::kernels::cuda {

template <>
struct Pack<e4m3, 16> { uint4 raw; };

__device__ __forceinline__ void unpack(const Pack<e4m3, 16>& pack, __half2 (&out)[8]) {
  const unsigned* words = reinterpret_cast<const unsigned*>(&pack.raw);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const auto two = static_cast<__nv_fp8x2_storage_t>(words[i / 2] >> (i % 2 * 16));
    out[i] = __half2(__nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3));
  }
}

// The power of two at or below a number that is not negative; 0 below 2^-126, infinity for infinities and NaN.
__device__ __forceinline__ unsigned exponent_of(float x) { return __float_as_uint(x) & 0x7f800000u; }
// 1 / of it: 2^127 of 0.
__device__ __forceinline__ float inverse_of(unsigned exponent) { return __uint_as_float(0x7f000000u - exponent); }

__device__ __forceinline__ float scale_of(unsigned short bits) { return __uint_as_float(unsigned{bits} << 16); }

// One warp makes a row of P values; all of its lanes answer with the scale.
template <class From>
__device__ unsigned short quantise_row(const From* from, e4m3* to, int P) {
  const int lane = threadIdx.x % 32;
  unsigned largest = 0;  // bits of |x|, in whose order infinity comes after every number and NaN after infinity
  for (int i = lane; i < P; i += 32) largest = max(largest, __float_as_uint(to_float(from[i])) & 0x7fffffffu);
  largest = __reduce_max_sync(0xffffffffu, largest);
  const bool finite = largest < 0x7f800000u;
  // 448 = 1.75 * 2^8: a significand above 1.75 carries into the exponent. Not below 2^-126, the smallest normal number.
  const unsigned exponent = max((largest + 0x1fffffu) >> 23, 9u) - 8;
  const float inverse = finite ? __uint_as_float((254 - exponent) << 23) : NAN;
  for (int i = lane; i < P; i += 32)
    to[i].__x = __nv_cvt_float_to_fp8(to_float(from[i]) * inverse, __NV_SATFINITE, __NV_E4M3);
  return finite ? static_cast<unsigned short>(exponent << 7) : static_cast<unsigned short>(0x7fc0);
}

}  // namespace rat::kernels::cuda
