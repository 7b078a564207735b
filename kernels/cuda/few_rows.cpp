#include "kernels/cuda/few_rows.h"

#include <type_traits>

#include "kernels/cuda/early_launch.cuh"

namespace rat::kernels::cuda {

bool few_rows_takes(int64_t rows, int64_t n, int64_t k) {
  constexpr int64_t most_rows = 64, most_columns = int64_t{1} << 22;
  return launches_early() && rows >= 1 && rows <= most_rows && n >= 8 && n % 8 == 0 && n <= most_columns && k >= 8 &&
         k % 8 == 0 && k <= most_columns;
}

bool few_rows_takes_norm(int64_t rows, int64_t n, int64_t k) {
  return few_rows_takes(rows, n, k) && rows <= 16 && k <= 4096;
}

template <class X>
Status few_rows_product(const FewRowsArgs<X>& a, cudaStream_t stream) {
  const bool normed = a.x == nullptr,
             takes_end = !a.gelu || (std::is_same_v<X, __nv_bfloat16> && a.residual == nullptr);
  const bool takes =
      normed ? few_rows_takes_norm(a.rows, a.n, a.k) && std::is_same_v<X, __nv_bfloat16> && a.residual == nullptr
             : few_rows_takes(a.rows, a.n, a.k);
  if (!takes || !takes_end)
    return refuse(
        "few_rows_product: %lld rows, %lld times %lld%s%s; it takes 1 to 64 rows (with a norm 16) and multiples of 8 "
        "on "
        "Hopper, a norm or GELU in bf16 without a residual",
        static_cast<long long>(a.rows), static_cast<long long>(a.n), static_cast<long long>(a.k),
        normed ? ", with a norm" : "", a.gelu ? ", with GELU" : "");
#if defined(RAT_CUDA_HOPPER)
  return paths::hopper_few_rows(a, stream);
#else
  return {};  // few_rows_takes has said no
#endif
}

template Status few_rows_product(const FewRowsArgs<float>&, cudaStream_t);
template Status few_rows_product(const FewRowsArgs<__nv_bfloat16>&, cudaStream_t);

}  // namespace rat::kernels::cuda
