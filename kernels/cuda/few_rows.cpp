#include "kernels/cuda/few_rows.h"

#include <type_traits>

#include "kernels/cuda/early_launch.cuh"

namespace rat::kernels::cuda {

bool few_rows_takes(int64_t rows, int64_t n, int64_t k) {
  constexpr int64_t most_columns = int64_t{1} << 22;
  const auto fits = [](int64_t columns) { return columns >= 8 && columns % 8 == 0 && columns <= most_columns; };
  return launches_early() && rows >= 1 && rows <= kFewRows && fits(n) && fits(k);
}

bool few_rows_takes_norm(int64_t rows, int64_t n, int64_t k) {
  return few_rows_takes(rows, n, k) && rows <= kFewNormedRows && k <= kMostNormed;
}

template <class X>
Status few_rows_product(const FewRowsArgs<X>& a, cudaStream_t stream) {
  const bool normed = a.x == nullptr;
  const bool sizes = normed ? few_rows_takes_norm(a.rows, a.n, a.k) : few_rows_takes(a.rows, a.n, a.k);
  const bool ends = (!normed && !a.gelu) || (std::is_same_v<X, __nv_bfloat16> && a.residual == nullptr);
  if (!sizes || !ends)
    return refuse(
        "few_rows_product: %lld rows, %lld times %lld%s%s; it takes up to %lld rows (with a norm %lld, and %lld "
        "columns) "
        "and multiples of 8 on Hopper, a norm or GELU in bf16 without a residual",
        static_cast<long long>(a.rows), static_cast<long long>(a.n), static_cast<long long>(a.k),
        normed ? ", with a norm" : "", a.gelu ? ", with GELU" : "", static_cast<long long>(kFewRows),
        static_cast<long long>(kFewNormedRows), static_cast<long long>(kMostNormed));
#if defined(RAT_CUDA_HOPPER)
  return paths::hopper_few_rows(a, stream);
#else
  return {};  // few_rows_takes has said no
#endif
}

template Status few_rows_product(const FewRowsArgs<float>&, cudaStream_t);
template Status few_rows_product(const FewRowsArgs<__nv_bfloat16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
