// GELU and its slope for values that are rounded to bf16: the tensor cores leave few instructions beside them.
#pragma once

namespace rat::kernels::cuda {

// Phi(x) as 1 / (1 + 2^-u) with u odd, of degree 7, fitted on the equation's own terms: x Phi(x) within 1.2e-5 and the slope
// within 2.5e-5 of the exact ones everywhere (bf16 rounds 0.01 by up to 2e-5). Beyond 5 the polynomial goes on as a line.
__device__ __forceinline__ float normal_cdf(float x, float square) {
  const float s = fminf(square, 25.0f);
  const float u = x * fmaf(fmaf(fmaf(-2.48363895e-5f, s, -7.36060983e-4f), s, 0.105982727f), s, 2.30164716f);
  float power, cdf;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-u));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(cdf) : "f"(1.0f + power));
  return cdf;
}

// x becomes x Phi(x); returns Phi(x) + x phi(x).
__device__ __forceinline__ float gelu_and_slope(float& x) {
  const float square = x * x, cdf = normal_cdf(x, square);
  float bell;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(bell) : "f"(fmaf(square, -0.5f * 1.44269504f, -1.32574807f)));  // log2 sqrt(2 pi)
  const float slope = fmaf(x, bell, cdf);
  x *= cdf;
  return slope;
}

}  // namespace rat::kernels::cuda
