// Few rows of A against weights already rounded to bf16: half the bytes to stream.
#include <algorithm>

#include "kernels/base/parallel.h"
#include "kernels/base/scratch.h"
#include "kernels/matmul/few_rows.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")

namespace rat::kernels::cpu {
namespace {

__mmask32 first_halves(int64_t n) { return n >= 32 ? ~__mmask32{0} : (__mmask32{1} << static_cast<unsigned>(n)) - 1; }

__m512bh load(const uint16_t* from, __mmask32 which) {
  return (__m512bh)_mm512_maskz_loadu_epi16(which, from);  // NOLINT: vectors of one size
}

// out[j] = a . w[j] for four rows of w.
void four_dots(const uint16_t* a, const uint16_t* w, int64_t stride, int64_t count, int64_t n, float* out) {
  __m512 sums[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 which = first_halves(n - i);
    const __m512bh x = load(a + i, which);
    for (int64_t j = 0; j < 4; ++j)
      if (j < count) sums[j] = _mm512_dpbf16_ps(sums[j], x, load(w + j * stride + i, which));
  }
  for (int64_t j = 0; j < count; ++j) out[j] = _mm512_reduce_add_ps(sums[j]);
}

void dot_columns(const MatmulArgs& args, const uint16_t* a, int64_t begin, int64_t end) {
  const int64_t k = args.a.cols;
  for (int64_t j = begin; j < end; j += 4) {
    const int64_t count = std::min<int64_t>(4, end - j);
    for (int64_t i = 0; i < args.c.rows; ++i) {
      float sums[4];
      if (count == 4)
        four_dots(a + i * k, args.b_bf16 + j * k, k, 4, k, sums);
      else
        four_dots(a + i * k, args.b_bf16 + j * k, k, count, k, sums);
      float* c = args.c.row(i) + j;
      for (int64_t l = 0; l < count; ++l) {
        const float start = args.addend ? args.addend[i * args.c.cols + j + l] : args.accumulate ? c[l] : 0.0f;
        c[l] = start + sums[l];
      }
    }
  }
}

}  // namespace

void round_to_bf16(const float* x, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += 32) {
    const __mmask32 which = first_halves(n - i);
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(which), x + i);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(which >> 16), x + i + 16);
    _mm512_mask_storeu_epi16(out + i, which, (__m512i)_mm512_cvtne2ps_pbh(high, low));  // NOLINT
  }
}

void multiply_few_rows_bf16(const MatmulArgs& args) {
  static thread_local Scratch scratch;
  const int64_t k = args.a.cols;
  auto* const a = scratch.ensure<uint16_t>(args.a.rows * k);
  for (int64_t i = 0; i < args.a.rows; ++i) round_to_bf16(args.a.row(i), k, a + i * k);
  const int64_t columns = std::max<int64_t>(4, (int64_t{1} << 15) / k / 4 * 4);
  parallel_ranges(args.c.cols, columns, [&](int64_t begin, int64_t end) { dot_columns(args, a, begin, end); });
}

}  // namespace rat::kernels::cpu
#pragma GCC pop_options

#else

namespace rat::kernels::cpu {
void round_to_bf16(const float*, int64_t, uint16_t*) {}        // never reached: cpu_supports(bf16) refuses first
void multiply_few_rows_bf16(const MatmulArgs&) {}
}  // namespace rat::kernels::cpu

#endif
