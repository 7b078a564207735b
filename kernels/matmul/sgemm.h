// Small products on the calling thread alone, for use inside parallel_for blocks. CPU only.
#pragma once

#include <cstdint>

#include "kernels/base/dtype.h"

namespace rat::kernels::cpu {

// The library's single-precision one. Row-major C (M, N) = alpha op(A) op(B) + beta C; lda, ldb, ldc are row strides of the matrices as stored.
void sgemm_on_this_thread(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

// The same in any dtype that this CPU supports; not both transposed. `add`: to what C holds.
void gemm_on_this_thread(Dtype dtype, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                         const float* a, int64_t lda, const float* b, int64_t ldb, bool add, float* c, int64_t ldc);

}  // namespace rat::kernels::cpu
